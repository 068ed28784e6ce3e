"""Objectives and verdicts: what is asked of a variant, and what is decided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Decision(StrEnum):
    """What the evidence says of an objective."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    FAIL = "fail"
    UNDECIDED = "undecided"
    INVALID = "invalid"
    """The measurement itself cannot be trusted; it decides nothing."""


@dataclass(frozen=True)
class Constraint:
    """One clause of an objective, for example `p95 < 50 ms`."""

    metric: str
    """p50, p90, p95, p99, mean, error_rate, throughput, or a quality metric's name."""
    operator: str
    """<, <=, >, >=."""
    value: float
    """In the metric's own unit (ms; a share; 1/s), or the factor of the teacher's value."""
    relative_to_teacher: bool
    text: str
    """The clause as it was written."""


@dataclass(frozen=True)
class ServiceLevelObjective:
    """All clauses must hold."""

    text: str
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True)
class Rejection:
    """A candidate that is not recommended, and why."""

    variant: str
    trial_id: str | None
    """None for a variant that was ruled out before any load."""
    cause: str
    """export, serving, quality, latency, throughput, error_rate, invalid, undecided, slower,
    teacher."""
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one family."""

    family: str
    slo: str
    decision: Decision
    recommended: str | None
    """Identifier of the recommended trial."""
    summary: str
    """One sentence for a person."""
    rejected: tuple[Rejection, ...]
    next_step: str = ""
    """What would decide it, where it is undecided."""
    pruned: tuple[Rejection, ...] = ()
    """Points never measured, because a measured one already ruled them out."""

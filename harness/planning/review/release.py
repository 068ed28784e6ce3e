"""What a run says, as far as two runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types import (
    ColdStart,
    QualityScore,
    ServiceLevelObjective,
    TrialResult,
)


@dataclass(frozen=True)
class ReleasedFamily:
    """What a run says of one family."""

    name: str
    task: str
    """The kind of its family; empty where it is not known."""
    rows: str
    """Digest of the rows that were scored; empty where it is not known."""
    objective: ServiceLevelObjective | None
    recommended: TrialResult | None
    variants: tuple[str, ...]
    scores: tuple[QualityScore, ...]
    trials: tuple[TrialResult, ...]
    sizes_bytes: Mapping[str, int] = field(default_factory=dict)
    cold_starts: Mapping[str, ColdStart] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """What a run says, as far as it is compared."""

    run: str
    """Path of the run folder."""
    study: str
    machine: str
    """The machine in words; equal for equal machines, empty where it is not known."""
    families: tuple[ReleasedFamily, ...]

"""A router between a student and its teacher: its threshold, its curve, what was deployed of it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types.estimates import Interval
from harness.types.variants import Decision
from harness.types.workloads import ServingConfig


@dataclass(frozen=True)
class CalibratedThreshold:
    """The boldest threshold whose guarantee holds."""

    threshold: float
    """The threshold: a row whose confidence is below it goes to the teacher."""
    keep: float
    """Share of the teacher's accuracy that the router keeps at least."""
    confidence: float
    """Probability, over the calibration rows, that it does."""
    p_value: float
    """Probability under the hypothesis that it keeps less."""
    rows: int
    """Number of rows it was calibrated on."""
    tested: int
    """Thresholds, until one was not rejected."""


@dataclass(frozen=True)
class ServedModel:
    """What a request costs that a model answers alone; None where it is not known."""

    latency_ms: float | None = None
    """Mean milliseconds per request."""
    usd_per_million: float | None = None
    """Cost per million inferences."""


@dataclass(frozen=True)
class RoutePoint:
    """A threshold, and what the router does there to rows that it was not chosen on."""

    threshold: float
    routed: Interval
    """Share of the rows that go to the teacher."""
    accuracy: Interval
    kept: Interval | None
    """The router's accuracy over the teacher's; None where that has no interval, as where the
    teacher is hardly ever right."""
    gained: float
    """Share of the rows that the teacher gets right and the student would not have, of those that
    are routed, as a share of all."""
    lost: float
    """The reverse: routed, and only the student would have been right."""
    latency_ms: float | None
    """Mean per request: the student answers first, and the teacher after it where it is asked."""
    usd_per_million: float | None


@dataclass(frozen=True)
class DeployedRouter:
    """A router that was served as one model, scored through the endpoint and load-tested."""

    variant: str
    """Name of the model in front; its scores and trials are in the run's journal under it."""
    sha256: str
    student_serving: ServingConfig
    teacher_serving: ServingConfig
    rows: int
    """Number of rows that were scored: all of the run's, calibration rows included."""
    routed: float
    """Share of those rows that the teacher was asked, by the server's own count."""
    accuracy: Interval
    """Accuracy on the rows held out, as the endpoint answered them."""
    kept: Interval | None
    """That accuracy over the teacher's; None where it has no interval."""
    otherwise: int
    """Rows that the endpoint answered with another class than the stored answers say a router
    would: beyond a few, the models answer otherwise than when they were scored."""
    keeps: Decision
    """Whether what is kept is within what was promised, on the rows held out."""
    decision: Decision
    """Decision on the objective: quality and load."""
    summary: str
    trials: tuple[str, ...]
    """Trials in the order they were measured; the last is what the decision rests on."""
    routed_under_load: float | None
    """Share of the rows sent in the last trial that the teacher was asked."""


@dataclass(frozen=True)
class Route:
    """A router's threshold and its curve: what `route.json` holds."""

    family: str
    student: str
    teacher: str
    student_sha256: str
    teacher_sha256: str
    chosen: CalibratedThreshold
    at: RoutePoint
    """The chosen threshold on the rows held out."""
    curve: tuple[RoutePoint, ...]
    """The curve from the student alone to the teacher alone, on the rows held out."""
    held_out_rows: int
    seed: int
    """Seed of the split into calibration rows and rows held out."""
    served: tuple[ServedModel, ServedModel]
    """The student's and the teacher's."""
    trials: tuple[str, str]
    """Trials that their latency was measured in; empty where it was not."""
    deployed: DeployedRouter | None = None
    """The chosen point served as one model and measured; None where it was not."""

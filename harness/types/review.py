"""Two runs side by side, and variants weighed against each other: the terms.

Every figure says which run and which trial it came from, so that a page can link it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.types.losses import Estimate
from harness.types.variants import Decision, Role


class FigureBasis(StrEnum):
    """What a figure rests on."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    """Predicted by a model that was fitted on trials of the run."""
    ESTIMATE = "estimate"
    """Scaled from another machine, or taken from a table."""


@dataclass(frozen=True)
class Figure:
    """A number of one variant, and where it came from."""

    metric: str
    """Name of a metric in `harness.metrics`."""
    estimate: Estimate
    """Value and interval in the metric's unit; a quality over the teacher's where `relative`."""
    run: str
    """Path of the run folder."""
    trial_id: str = ""
    """The trial that gave it; empty where none did: a score, a size, a cold start."""
    basis: FigureBasis = FigureBasis.MEASURED
    relative: bool = False
    """Whether it is a multiple of the teacher's value."""
    note: str = ""
    """What limits it: `measured once`, `30% beyond the measured rates`."""


class Change(StrEnum):
    """How a metric of the later run stands to the earlier one's."""

    BETTER = "better"
    WORSE = "worse"
    TOLERATED = "worse, tolerated"
    """Worse beyond its interval, and surely by no more than is tolerated."""
    SAME = "no difference shown"
    UNDECIDED = "undecided"
    """May be worse by more than is tolerated, or not."""
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of one variant in two runs."""

    family: str
    variant: str
    """The variant; empty for the recommended configuration, whose variant may differ."""
    metric: str
    point: str
    """Configuration and load in words; empty for what no load decides."""
    before: Figure | None
    after: Figure | None
    difference: Estimate | None
    """Later less earlier value, in the metric's unit; no bounds where one of the two has none."""
    change: Change
    reason: str
    """How the difference was taken, or why there is none."""


@dataclass(frozen=True)
class RunComparison:
    """A run against an earlier one."""

    before: str
    """Path of the earlier run folder."""
    after: str
    metrics: tuple[ComparedMetric, ...]
    tolerance: str
    """What may get worse, in words; empty for nothing."""
    notes: tuple[str, ...]

    def changed(self, *changes: Change) -> tuple[ComparedMetric, ...]:
        """The metrics that changed in one of these ways."""
        return tuple(one for one in self.metrics if one.change in changes)

    @property
    def decision(self) -> Decision:
        """Fail where something got worse, undecided where something could not be told."""
        if self.changed(Change.WORSE):
            return Decision.FAIL
        undecided = self.changed(Change.UNDECIDED, Change.NOT_COMPARABLE)
        return Decision.UNDECIDED if undecided or not self.metrics else Decision.PASS


@dataclass(frozen=True)
class HardLimit:
    """One clause of the objective, judged for one candidate."""

    text: str
    """The clause as it was written."""
    metric: str
    decision: Decision
    reason: str
    trial_id: str = ""


@dataclass(frozen=True)
class DecisionCandidate:
    """A variant (or a router) that could be deployed, with all that is known of it."""

    name: str
    """Unique in its matrix; with the run's name where several runs have the variant."""
    variant: str
    run: str
    role: Role | None
    """The variant's role; None for a router, which is no variant."""
    figures: tuple[Figure, ...]
    limits: tuple[HardLimit, ...]
    confirmed: bool
    """Whether its trial was measured afresh after the search, which a recommendation asks for."""

    def figure(self, metric: str) -> Figure | None:
        """The figure of a metric; None where it is not known."""
        return next((one for one in self.figures if one.metric == metric), None)

    @property
    def decision(self) -> Decision:
        """The decision of all hard limits together; undecided where none was judged."""
        found = {one.decision for one in self.limits}
        for decision in (Decision.FAIL, Decision.INVALID, Decision.UNDECIDED):
            if decision in found:
                return decision
        return Decision.PASS if found else Decision.UNDECIDED


@dataclass(frozen=True)
class FrontPlace:
    """Where a candidate stands among all of them, whether or not it meets the hard limits."""

    candidate: str
    on_front: bool
    """Whether, by the values alone, no other candidate is at least as good in all and better in
    one."""
    probability: float | None
    """0 to 1: share of draws from the intervals in which it lies on the front; None where less
    than half of the metrics are known of it, so that it has no place."""
    dominated_by: tuple[str, ...]
    """Candidates that are surely no worse in any metric and surely better in one."""
    missing: tuple[str, ...] = ()
    """Metrics that are not known of it, though they are of others."""


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate's place by the weights."""

    candidate: str
    score: float
    """Weighted geometric mean of its advantages over the reference; 1 is as good."""
    first_probability: float
    """0 to 1: share of draws from the intervals in which it ranks first by these weights."""
    first_share: float
    """0 to 1: share of all weightings, drawn evenly, by which it ranks first."""


@dataclass(frozen=True)
class WeightRange:
    """How far one weight may move, the others held, before another candidate ranks first."""

    metric: str
    weight: float
    low: float
    high: float | None
    """Upper end of the range; None: however heavy."""
    below: str
    """Who ranks first below `low`; empty where nobody takes over."""
    above: str


@dataclass(frozen=True)
class Ranking:
    """The candidates by weights, and how much that depends on them."""

    weights: Mapping[str, float]
    reference: str
    """The candidate whose score is 1 by definition."""
    ranked: tuple[RankedCandidate, ...]
    """Candidates, the best first."""
    ranges: tuple[WeightRange, ...]
    left_out: tuple[str, ...]
    """Candidates without a score, each with the reason."""


@dataclass(frozen=True)
class Risk:
    """Something that whoever signs should know."""

    kind: str
    """undecided, invalid, unconfirmed, extrapolated, small sample, slice, machine, router, rollout,
    other."""
    text: str
    run: str = ""
    trial_id: str = ""


@dataclass(frozen=True)
class PlannedFact:
    """A value that a plan adds to the page: a saving, a break-even, replicas."""

    heading: str
    """Which part of the page: `Return on investment`."""
    name: str
    value: str
    run: str = ""
    trial_id: str = ""


@dataclass(frozen=True)
class DecisionMatrix:
    """The candidates of one family against every metric."""

    family: str
    objective: str
    runs: tuple[str, ...]
    decision: Decision
    recommended: str | None
    """Name of the recommended candidate."""
    sentence: str
    next_step: str
    metrics: tuple[str, ...]
    """Metrics that dominance is decided by, in the order of the columns."""
    candidates: tuple[DecisionCandidate, ...]
    places: tuple[FrontPlace, ...]
    ranking: Ranking | None
    """The weighted ranking; None where nobody named weights."""
    risks: tuple[Risk, ...]
    facts: tuple[PlannedFact, ...] = ()

    def candidate(self, name: str) -> DecisionCandidate:
        """The candidate of a name."""
        return next(one for one in self.candidates if one.name == name)

    def place(self, name: str) -> FrontPlace:
        """Where a candidate stands on the front."""
        return next(one for one in self.places if one.candidate == name)


@dataclass(frozen=True)
class DecisionReview:
    """Every family's matrix: what the page of a technical review shows."""

    matrices: tuple[DecisionMatrix, ...]
    seed: int

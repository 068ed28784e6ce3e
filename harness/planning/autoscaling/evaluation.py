"""Every policy on a trace, over all draws of the fit: outcomes, their front, the one to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.planning.autoscaling.candidates import knows_itself, start_replicas
from harness.planning.autoscaling.replica import ReplicaTable
from harness.planning.autoscaling.simulation import (
    LatencyClause,
    PolicyRun,
    simulate_policy,
    step_of,
)
from harness.planning.capacity.draws import STATISTICS
from harness.planning.capacity.judging import planned_clauses
from harness.types import Decision, ServiceLevelObjective
from harness.types.autoscaling import (
    FixedRule,
    Policy,
    PolicyOutcome,
    RateTrace,
    ScalingCourse,
    ScalingTerms,
    ScheduleRule,
)
from harness.types.estimates import Interval, Pricing
from harness.types.metrics import MetricKind

MOST_DRAWS, FEWEST_DRAWS = 16, 6
BUDGET = 500_000
"""Steps that all policies of an answer may simulate: about 10 s."""
COURSE_POINTS = 240


@dataclass(frozen=True)
class Ground:
    """What every policy is tried on."""

    trace: RateTrace
    terms: ScalingTerms
    tables: tuple[ReplicaTable, ...]
    """The best guess first."""
    clauses: tuple[LatencyClause, ...]
    confidence: float
    seed: int
    pricing: Pricing | None = None
    """Price of one replica, one on each machine."""


def clauses_of(slo: ServiceLevelObjective) -> tuple[LatencyClause, ...]:
    """The percentiles that an objective bounds, as shares of requests: `p95 < 50 ms` is 95%.

    Raises:
        UsageError: it bounds none.
    """
    found = []
    for one in planned_clauses(slo):
        metric = metric_named(one.metric)
        share = STATISTICS.get(metric.statistic) if metric.kind is MetricKind.LATENCY else None
        if share is not None:
            found.append(LatencyClause(share, one.value / 1e3))
    if not found:
        raise UsageError(
            f"the objective '{slo.text}' bounds no percentile, so no share of requests to keep "
            "inside it",
            next_step='name one: --slo "p95 < 50 ms"',
        )
    return tuple(found)


def draws_for(trace: RateTrace, terms: ScalingTerms, policies: int) -> int:
    """How many draws of the fit are simulated per policy, so that an answer takes seconds."""
    steps = trace.duration_s / step_of(trace, terms)
    return int(min(MOST_DRAWS, max(FEWEST_DRAWS, BUDGET / (steps * policies))))


def evaluate(ground: Ground, policy: Policy, *, course: bool = True) -> PolicyOutcome:
    """Simulate a policy once for every table, and put the results together."""
    runs = [_run(ground, policy, number) for number in range(len(ground.tables))]
    first = ground.clauses[0]
    limits = ground.terms.limits
    shares = [
        _interval([run.attained(number) for run in runs], ground.confidence, 0.0, 1.0)
        for number in range(len(ground.clauses))
    ]
    hours = _interval([run.replica_hours for run in runs], ground.confidence)
    return PolicyOutcome(
        policy=policy,
        attained=shares[0],
        needed=first.share,
        decision=_decide(shares, ground.clauses),
        replica_hours=hours,
        scalings=_interval([float(run.scalings) for run in runs], ground.confidence),
        most_replicas=min(limits.max_replicas, max(int(run.ordered.max()) for run in runs)),
        missed_share=_interval(
            [run.missed_share(first.share) for run in runs], ground.confidence, 0.0, 1.0
        ),
        cost_usd=cost_of(hours, ground.pricing) if ground.pricing else None,
        with_foresight=knows_itself(ground.trace)
        and any(isinstance(rule, ScheduleRule) for rule in policy.rules),
        course=course_of(runs[0]) if course else None,
    )


def cost_of(hours: Interval, pricing: Pricing) -> Interval:
    """Replica hours in US dollars; on a machine that is twice as fast, half as many are needed."""
    price, speed = pricing.usd_per_hour, pricing.scaling
    return Interval(
        hours.value * price / speed.value,
        hours.low * price / speed.high,
        hours.high * price / speed.low,
    )


def _run(ground: Ground, policy: Policy, number: int) -> PolicyRun:
    (rule, *_) = policy.rules
    begun = start_replicas(ground.trace, ground.terms, ground.tables[0])
    return simulate_policy(
        policy,
        ground.trace,
        ground.terms,
        ground.tables[number],
        ground.clauses,
        start_replicas=rule.replicas if isinstance(rule, FixedRule) else begun,
        seed=ground.seed * 1000 + number,
    )


def _decide(shares: Sequence[Interval], clauses: Sequence[LatencyClause]) -> Decision:
    """Pass where every unfavourable bound keeps its clause, fail where a favourable misses one."""
    pairs = list(zip(shares, clauses, strict=True))
    if any(share.high < clause.share for share, clause in pairs):
        return Decision.FAIL
    if all(share.low >= clause.share for share, clause in pairs):
        return Decision.PASS
    return Decision.UNDECIDED


def _interval(
    values: Sequence[float], confidence: float, least: float = 0.0, most: float = np.inf
) -> Interval:
    """The mean over the draws, and bounds within which another draw lies with the confidence."""
    mean, count = float(np.mean(values)), len(values)
    deviation = float(np.std(values, ddof=1)) if count > 1 else 0.0
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, max(1, count - 1))) * deviation
    return Interval(mean, max(least, mean - half), min(most, mean + half))


def course_of(run: PolicyRun) -> ScalingCourse:
    """A run in few enough stretches for a picture."""
    each = max(1, -(-len(run.arrived) // COURSE_POINTS))
    starts = np.arange(0, len(run.arrived), each)
    steps = np.diff(np.append(starts, len(run.arrived)))
    arrived, inside = np.add.reduceat(run.arrived, starts), np.add.reduceat(run.inside[0], starts)
    attained = np.where(arrived > 0, inside / np.maximum(arrived, 1), -1.0)
    return ScalingCourse(
        stretch_s=each * run.step_s,
        demand_per_s=_rounded(arrived / steps / run.step_s),
        ordered=_rounded(np.add.reduceat(run.ordered, starts) / steps),
        ready=_rounded(np.add.reduceat(run.ready, starts) / steps),
        attained=_rounded(attained),
    )


def _rounded(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    return tuple(round(float(one), 4) for one in values)


def with_front(outcomes: Sequence[PolicyOutcome]) -> tuple[PolicyOutcome, ...]:
    """The outcomes, those on the front marked: no other keeps as much with fewer replica hours.

    Two that differ in neither are both on it. What knows the trace beforehand is left out.
    """

    def point(one: PolicyOutcome) -> tuple[float, float]:
        return one.attained.value, -one.replica_hours.value

    points = [point(one) for one in outcomes if not one.with_foresight]

    def is_dominated(mine: tuple[float, float]) -> bool:
        return any(
            other[0] >= mine[0] and other[1] >= mine[1] and other != mine for other in points
        )

    return tuple(
        replace(one, on_front=not one.with_foresight and not is_dominated(point(one)))
        for one in outcomes
    )


def choose(outcomes: Sequence[PolicyOutcome]) -> tuple[str | None, str]:
    """The policy with the fewest replica hours of those that are sure to keep the objective.

    Returns:
        Its name (None: there is none), and why.
    """
    outcomes = [one for one in outcomes if not one.with_foresight]
    sure = [one for one in outcomes if one.decision is Decision.PASS]
    if sure:
        best = min(sure, key=lambda one: (one.replica_hours.value, one.scalings.value))
        return (
            best.policy.name,
            "the fewest replica hours of those that are sure to keep the objective over the trace",
        )
    closest = max(outcomes, key=lambda one: (one.attained.low, -one.replica_hours.value))
    may = [one for one in outcomes if one.decision is Decision.UNDECIDED]
    if may:
        return None, (
            f"no policy is sure to keep the objective; {closest.policy.name} comes closest. More "
            "trials at the loads in question make the intervals narrower, more replicas or a "
            "shorter start the objective easier"
        )
    return None, (
        f"every policy misses the objective on this trace; {closest.policy.name} comes closest. "
        "More replicas at the start of a rise would help: a higher minimum, a shorter start"
    )


def evaluations(ground: Ground, policies: Sequence[Policy]) -> Iterator[PolicyOutcome]:
    """One outcome after the other, so that progress can be shown."""
    for policy in policies:
        yield evaluate(ground, policy)

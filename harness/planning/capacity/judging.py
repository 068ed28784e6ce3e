"""Whether a prediction meets an objective, and up to which rate one replica does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.planning.capacity.draws import STATISTICS
from harness.planning.capacity.model import CapacityModel
from harness.planning.clauses import DEFAULT_ERROR_RATE, decide_interval
from harness.study.clauses import load_clauses
from harness.types import RESPONSE, Constraint, Decision, ServiceLevelObjective
from harness.types.capacity import Prediction
from harness.types.estimates import Demand, Interval
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import Metric, MetricKind
from harness.words.numbers import amount, latency, milliseconds, percent, span, with_unit

SHARES = (0.1, 0.25, 0.4, 0.55, 0.68, 0.78, 0.86, 0.92, 0.97, 1.02)
"""Rates at which a curve is simulated, as shares of one replica's saturation."""


@dataclass(frozen=True)
class Predicted:
    """What a prediction says of an objective's load clauses."""

    decision: Decision
    reason: str
    """Each clause with its predicted value and interval."""


def planned_clauses(slo: ServiceLevelObjective) -> tuple[Constraint, ...]:
    """The clauses that a prediction decides: latencies of the response, and the errors.

    Quality does not depend on the load, and throughput is what the demand says.

    Raises:
        UsageError: the objective bounds no latency that is predicted.
    """
    clauses = tuple(load_clauses(slo))
    latencies = tuple(one for one in clauses if _is_predicted(metric_named(one.metric)))
    if not latencies:
        raise UsageError(
            f"the objective '{slo.text}' bounds no latency, so any rate short of saturation "
            "meets it",
            next_step='name one: --slo "p95 < 50 ms"',
        )
    others = [
        one.metric
        for one in clauses
        if metric_named(one.metric).kind is MetricKind.LATENCY and one not in latencies
    ]
    if others:
        raise UsageError(
            f"{', '.join(others)} cannot be predicted from the trials",
            next_step=f"plan for one of: {', '.join(STATISTICS)}",
        )
    errors = tuple(one for one in clauses if one.metric == DEFAULT_ERROR_RATE.metric)
    return latencies + (errors or (DEFAULT_ERROR_RATE,))


def _is_predicted(metric: Metric) -> bool:
    return (
        metric.kind is MetricKind.LATENCY
        and metric.span == RESPONSE
        and metric.statistic in STATISTICS
    )


def meets(prediction: Prediction, slo: ServiceLevelObjective) -> Predicted:
    """Whether a prediction meets an objective: pass, fail or undecided, with the reason.

    Pass where every clause holds at its unfavourable bound, fail where one is missed at its
    favourable bound, else undecided.

    Raises:
        UsageError: the objective bounds no latency that is predicted.
    """
    found: list[Decision] = []
    reasons: list[str] = []
    for clause in planned_clauses(slo):
        interval = _value(prediction, clause)
        decision = decide_interval(clause, interval)
        found.append(decision)
        if clause is not DEFAULT_ERROR_RATE or decision is not Decision.PASS:
            reasons.append(_reason(clause, interval, decision))
    for worst in (Decision.FAIL, Decision.UNDECIDED):
        if worst in found:
            return Predicted(worst, "; ".join(reasons))
    return Predicted(Decision.PASS, "; ".join(reasons))


def _value(prediction: Prediction, clause: Constraint) -> Interval:
    if clause.metric == DEFAULT_ERROR_RATE.metric:
        return prediction.rejected_share
    return prediction.latency_ms[metric_named(clause.metric).statistic]


def _reason(clause: Constraint, interval: Interval, decision: Decision) -> str:
    word = {
        Decision.PASS: "meets",
        Decision.FAIL: "misses",
        Decision.UNDECIDED: "cannot be told from",
    }[decision]
    if clause.metric == DEFAULT_ERROR_RATE.metric:
        return f"rejected {percent(interval.value)} {word} {amount(clause)}"
    between = span(milliseconds(interval.low), milliseconds(interval.high))
    bounds = with_unit(clause.metric, between)
    return f"{clause.metric} {latency(interval.value)} ({bounds}) {word} {amount(clause)}"


def highest_rate(
    model: CapacityModel,
    slo: ServiceLevelObjective,
    demand: Demand,
    curve: Sequence[Prediction] | None = None,
) -> Interval:
    """Requests per second of one replica that meet the objective; 0 where none does.

    `low` is the rate up to which the unfavourable bounds meet it: what a plan may count on. `high`
    is the rate from which on the favourable bounds miss it: beyond it there is no hope.

    Args:
        model: of the replica.
        slo: its clauses on latency and errors.
        demand: how requests arrive, and their rows; its rate does not matter.
        curve: predictions of one replica at rising rates; None: simulated here.

    Raises:
        UsageError: the objective bounds no latency that is predicted.
    """
    clauses = planned_clauses(slo)
    known = curve if curve is not None else model.curve(demand, SHARES)

    def reach(bound: Callable[[Interval], float]) -> float:
        return min(
            _last_rate(
                [one.rate_per_s for one in known],
                [bound(_value(one, clause)) for one in known],
                clause.value,
            )
            for clause in clauses
        )

    value = reach(lambda one: one.value)
    return Interval(
        value, min(value, reach(lambda one: one.high)), max(value, reach(lambda one: one.low))
    )


def _last_rate(rates: Sequence[float], values: Sequence[float], bound: float) -> float:
    """The highest rate up to which a value stays within its bound, on a line through logarithms.

    It counts from the first rate that is within: at the lowest ones a queue's delay may be all that
    is seen. Beyond a rate that is not, a higher one that seems to be is chance. Towards a point
    without a steady state nothing is interpolated: the last point with one counts.
    """
    within = [value <= bound for value in values]
    if not any(within):
        return 0.0
    last = within.index(True)
    while last + 1 < len(values) and within[last + 1]:
        last += 1
    if last + 1 == len(values) or values[last + 1] >= UNBOUNDED_MS:
        return rates[last]
    below, above = np.log(max(values[last], 1e-9)), np.log(values[last + 1])
    if above <= below:
        return rates[last]
    share = float((np.log(bound) - below) / (above - below))
    return rates[last] + share * (rates[last + 1] - rates[last])

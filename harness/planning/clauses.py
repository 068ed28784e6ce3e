"""One clause of an objective against what was measured: the value, its bounds, the decision.

Latencies follow from their span and statistic. Every other metric of a load has its function in
`MEASURES`, under the name that its entry in `harness.metrics` has.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import scipy

from harness.metrics import COST, GOODPUT, WRITING_COST, latency_of, metric_named, summary_of
from harness.planning.cost.money import usd_per_million
from harness.types import Constraint, Decision, TrialResult
from harness.types.estimates import Interval
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import Metric, MetricKind
from harness.words.numbers import (
    NO_INTERVAL,
    amount,
    asked,
    confidence,
    count,
    metric_span,
    metric_value,
    with_unit,
)

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """A metric of one trial."""

    value: float
    interval: Interval | None
    """The confidence interval; None where the trial is too short for one."""
    confidence: float
    """Confidence of the interval: what the trial's looks leave for each of them."""
    counted: str = ""
    """What the value is a part of: `3 of 2,000 requests`."""
    evidence: Callable[[Constraint], float | None] | None = None
    """How many times the evidence would decide, where that does not follow from the interval."""
    remedy: str = ""
    """What would decide, where more requests would not."""


Measure = Callable[[TrialResult], Measured | None]


def measure(metric: Metric, result: TrialResult) -> Measured | None:
    """A metric of a trial; None where the trial says nothing of it.

    Raises:
        KeyError: a metric of quality, or one without a function in `MEASURES`.
    """
    if metric.kind is MetricKind.LATENCY:
        return _latency(metric, result)
    return MEASURES[metric.name](result)


def failures_of(result: TrialResult) -> tuple[int, int]:
    """Requests that failed or were dropped, and all that fell due."""
    failures = result.failures + result.dropped
    return failures, result.requests + failures


def error_rate(result: TrialResult) -> Measured | None:
    """The share of failed requests, with the interval of Clopper and Pearson (1934).

    It is over the effective number of requests, because failures come in bursts (Korn and Graubard
    1998; `harness.analysis.throughput`). A request that an open loop had to drop has failed:
    whoever sent it has no answer.
    """
    failures, total = failures_of(result)
    if not total:
        return None
    confidence = _confidence_of(result)
    share, tail = failures / total, (1 - confidence) / 2
    effective = max(1.0, total / result.failure_design_effect)
    hits = share * effective
    low = float(scipy.special.betaincinv(hits, effective - hits + 1, tail)) if failures else 0.0
    high = (
        float(scipy.special.betainccinv(hits + 1, effective - hits, tail))
        if failures < total
        else 1.0
    )
    dropped = f", {count(result.dropped)} of them dropped" if result.dropped else ""

    def without_failures(constraint: Constraint) -> float:
        return -math.log(tail) / constraint.value / total  # none of n bounds it by -ln(tail) / n

    return Measured(
        share,
        Interval(share, min(low, share), max(high, share)),
        confidence,
        f"{count(failures)} of {count(total)} requests{dropped}",
        None if failures else without_failures,
    )


def throughput(result: TrialResult) -> Measured:
    """Inferences per second, with their interval (`harness.analysis.throughput`)."""
    reached = result.throughput_inferences_per_s
    low, high = result.throughput_low_inferences_per_s, result.throughput_high_inferences_per_s
    known = None if low is None or high is None else Interval(reached, low, high)
    return Measured(reached, known, _confidence_of(result))


def output_tokens(result: TrialResult) -> Measured | None:
    """Output tokens per second of all streams together; None where there were no streams."""
    found = result.streams
    if found is None:
        return None
    return Measured(
        found.output_tokens_per_s, found.output_tokens_per_s_bounds, _confidence_of(result)
    )


def goodput(result: TrialResult) -> Measured | None:
    """Requests per second that meet every clause on latencies; None where none was counted."""
    found = result.goodput
    if found is None:
        return None
    return Measured(found.requests_per_s, found.bounds, _confidence_of(result))


def cost(result: TrialResult) -> Measured | None:
    """US dollars per million inferences on the machine that the trial is priced on.

    The interval has the bounds of the throughput, and those of the scaling to that machine where
    another one was measured.
    """
    return _priced(result, throughput(result))


def output_token_cost(result: TrialResult) -> Measured | None:
    """US dollars per million tokens that were written; None where there were no streams."""
    rate = output_tokens(result)
    return None if rate is None else _priced(result, rate)


def _priced(result: TrialResult, rate: Measured) -> Measured | None:
    """The machine's price over a rate, per million."""
    pricing = result.pricing
    if pricing is None or rate.value <= 0:
        return None
    value = usd_per_million(pricing, Interval(rate.value, rate.value, rate.value)).value
    on = f"{pricing.instance} at {asked(pricing.usd_per_hour)} USD/h"
    interval = rate.interval

    def of_the_rate(constraint: Constraint) -> float | None:
        """What the rate needs to be told from the one at which it costs as much as the bound.

        The cost itself has no upper bound where the rate may be nothing yet.
        """
        at_bound = replace(constraint, value=rate.value * value / constraint.value)
        return None if interval is None else evidence_factor(at_bound, interval)

    return Measured(
        value,
        None if interval is None else usd_per_million(pricing, interval),
        rate.confidence,
        f"estimate for {on}" if pricing.is_estimate else f"on {on}",
        evidence=of_the_rate,
        remedy=f"a run on {pricing.instance} would tell" if pricing.is_estimate else "",
    )


MEASURES: Final[dict[str, Measure]] = {
    "error_rate": error_rate,
    "throughput": throughput,
    "output_tokens_per_s": output_tokens,
    GOODPUT: goodput,
    COST: cost,
    WRITING_COST: output_token_cost,
}
"""By metric, how it is read from a load; latencies are not among them."""


def _latency(metric: Metric, result: TrialResult) -> Measured | None:
    summary, found = summary_of(metric, result), latency_of(metric, result)
    if summary is None or found is None:
        return None
    interval = Interval(found.value_ms, found.low_ms, found.high_ms)
    evidence = None
    if found.high_ms >= UNBOUNDED_MS:
        # Without an upper bound, the least that gives one: the largest of n independent samples
        # bounds the q-quantile with probability 1 - q^n.
        quantile, tail = metric.quantile, (1 - summary.confidence) / 2
        least = math.log(tail) / math.log(quantile) if quantile else None
        factor = None if least is None else least * summary.design_effect / summary.count

        def evidence(_: Constraint) -> float | None:
            return factor

    return Measured(found.value_ms, interval, summary.confidence, evidence=evidence)


def _confidence_of(result: TrialResult) -> float:
    """What the trial's looks leave for each of them; without latencies there was but one."""
    return result.latency.confidence if result.latency else CONFIDENCE


DEFAULT_ERROR_RATE = Constraint("error_rate", "<=", 0.01, False, "error_rate <= 1%")
"""Holds where an objective names no error rate: nobody serves what fails more often than that."""
FARTHEST_FACTOR = 1000
"""More evidence than this is not worth naming: the value is at the bound."""
AT_THE_BOUND = "it lies at the bound"
"""How the reason of such a value begins."""
POWER = 0.8
"""Chance that the number of samples named decides; the usual choice (Cohen 1988)."""
_HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Judgement:
    """What the evidence says of one clause."""

    constraint: Constraint
    cause: str
    """A rejection's cause if this clause fails: `Metric.cause`."""
    decision: Decision
    reason: str
    """The reason in words and numbers, whatever the decision."""
    strain: float
    """The measured value in units of the bound: 1 is at the bound, above 1 beyond it."""
    evidence_factor: float | None = None
    """How many times the evidence would decide; None where decided or not to be predicted."""

    @property
    def promising(self) -> bool:
        """Whether the clause holds, or would if the measured value were the truth."""
        if self.decision is not Decision.UNDECIDED:
            return self.decision is Decision.PASS
        return self.strain < 1 or (self.strain == 1 and "=" in self.constraint.operator)


def decide_interval(constraint: Constraint, measured: Interval) -> Decision:
    """Compare an interval with a clause's bound, both in the clause's unit."""
    holds = _HOLDS[constraint.operator]
    worst, best = measured.high, measured.low
    if constraint.operator.startswith(">"):
        worst, best = best, worst
    if holds(worst, constraint.value):
        return Decision.PASS
    return Decision.UNDECIDED if holds(best, constraint.value) else Decision.FAIL


def strain(constraint: Constraint, value: float) -> float:
    """The value over the bound, or the bound over the value where more is better."""
    if constraint.operator.startswith("<"):
        return value / constraint.value
    return constraint.value / value if value > 0 else math.inf


def evidence_factor(constraint: Constraint, measured: Interval) -> float:
    """How many times the sample would pull the interval clear of the bound."""
    gap = constraint.value - measured.value
    half = measured.high - measured.value if gap > 0 else measured.value - measured.low
    return (half / gap) ** 2 if gap else math.inf


def samples_needed(
    constraint: Constraint, measured: Interval, samples: int, standard_error: float | None = None
) -> float:
    """How many samples would decide a clause, if the value measured is the true one.

    An interval's half has two parts. One is chance among what was seen: it shrinks with the square
    root of the sample, and to decide with the `POWER` wanted it must leave room for the next
    measurement's own chance, `z_b` standard errors beside the interval's `z_a` (Lachin 1981,
    Controlled Clinical Trials 2, 93-113). The other is what was not seen, all of it where all
    samples agree: of n right ones the exact bound is `0.025^(1/n)`, so it shrinks as that does.

    Args:
        constraint: the clause.
        measured: the value and its interval, of a share of the teacher's the paired one.
        samples: that it rests on.
        standard_error: of the value; None (in older runs) takes the whole interval as chance.

    Returns:
        Infinity where the value lies on the bound.
    """
    gap = abs(constraint.value - measured.value)
    below = constraint.value < measured.value
    half = measured.value - measured.low if below else measured.high - measured.value
    if not gap or gap <= sys.float_info.epsilon * abs(measured.value):
        return math.inf
    z_confidence, z_power = (float(z) for z in scipy.special.ndtri([(1 + CONFIDENCE) / 2, POWER]))
    error = half / z_confidence if standard_error is None else standard_error
    unseen = max(0.0, half - z_confidence * error)

    def distance(factor: float) -> float:
        chance = (z_confidence + z_power) * error / math.sqrt(factor)
        rest = 1 - (1 - unseen) ** (1 / factor) if unseen < 1 else unseen / factor
        return chance + rest - gap

    most = 1e3 * FARTHEST_FACTOR
    if distance(most) > 0:
        return math.inf
    if distance(1.0) <= 0:
        return float(samples)
    return samples * float(scipy.optimize.brentq(distance, 1.0, most))


def more_evidence(factor: float | None) -> str:
    """How many more requests would decide, in words."""
    if factor is None:
        return "more requests are needed"
    if factor > FARTHEST_FACTOR:
        return f"{AT_THE_BOUND}, which no number of requests will change"
    return f"about {max(2, math.ceil(factor))} times as many requests would tell"


def judge_load(constraint: Constraint, result: TrialResult) -> Judgement:
    """Judge a clause on anything that a load decides: a latency, a rate, a share, a cost."""
    metric = metric_named(constraint.metric)
    measured = measure(metric, result)
    if measured is None:
        return _nothing_known(constraint, result)
    if measured.value >= UNBOUNDED_MS and metric.kind is MetricKind.LATENCY:
        return _never_drained(constraint, measured)
    decision, factor = Decision.UNDECIDED, None
    if measured.interval is None:
        reason = (
            f"{_stated(metric, measured)} has no interval, so it cannot yet be told from "
            f"{amount(constraint)}: a longer window would tell"
        )
    else:
        decision = decide_interval(constraint, measured.interval)
        reason = f"{_stated(metric, measured)} "
        if decision is Decision.UNDECIDED:
            factor = None if measured.remedy else _evidence(constraint, measured)
            told = measured.remedy or more_evidence(factor)
            reason += f"cannot yet be told from {amount(constraint)}: {told}"
        else:
            under = metric.lower_is_better is (decision is Decision.PASS)
            reason += f"is {'under' if under else 'over'} {amount(constraint)}"
    strained = strain(constraint, measured.value)
    return Judgement(constraint, metric.cause, decision, reason, strained, factor)


def judge_default_error_rate(result: TrialResult) -> Judgement:
    """Judge the error rate where the objective names none.

    It passes by its value: an interval would leave every short trial undecided on a clause that
    nobody wrote. It fails by its interval: one failure in the first fifty requests proves nothing.
    """
    clause, metric = DEFAULT_ERROR_RATE, metric_named(DEFAULT_ERROR_RATE.metric)
    measured = error_rate(result)
    if measured is None or measured.interval is None:
        return _nothing_known(clause, result)
    allowed = f"the {amount(clause)} that is allowed where the objective names no {clause.metric}"
    reason = f"{metric.title} {metric_value(clause.metric, measured.value)} ({measured.counted}) "
    decision, factor = Decision.PASS, None
    if measured.value <= clause.value:
        reason += f"is within {allowed}"
    elif measured.interval.low > clause.value:
        decision = Decision.FAIL
        reason += f"is over {allowed}"
    else:
        decision, factor = Decision.UNDECIDED, evidence_factor(clause, measured.interval)
        reason += f"cannot yet be told from {allowed}: {more_evidence(factor)}"
    return Judgement(clause, metric.cause, decision, reason, strain(clause, measured.value), factor)


def _stated(metric: Metric, measured: Measured) -> str:
    """A metric's value with what it rests on: `p95 40.0 ms (95% interval 38.0 to 42.0 ms)`."""
    value = with_unit(metric.name, metric_value(metric.name, measured.value))
    known, rests_on = measured.interval, [measured.counted] if measured.counted else []
    if known is not None:
        interval = with_unit(metric.name, metric_span(metric.name, known.low, known.high))
        level = "" if interval == NO_INTERVAL else f"{confidence(measured.confidence)} interval "
        rests_on.append(f"{level}{interval}")
    return f"{metric.title} {value}" + (f" ({', '.join(rests_on)})" if rests_on else "")


def _evidence(constraint: Constraint, measured: Measured) -> float | None:
    """How many times the evidence would decide."""
    if measured.evidence is not None:
        return measured.evidence(constraint)
    return None if measured.interval is None else evidence_factor(constraint, measured.interval)


def _never_drained(constraint: Constraint, measured: Measured) -> Judgement:
    """The judgement on a percentile that falls among requests dropped or never answered."""
    metric, known = metric_named(constraint.metric), measured.interval
    low = known.low if known else 0.0
    decision = decide_interval(constraint, known) if known else Decision.UNDECIDED
    at_least = ""
    if 0 < low < UNBOUNDED_MS:
        at_least = f", at least {with_unit(metric.name, metric_value(metric.name, low))}"
    reason = f"{metric.title} is unbounded{at_least}: the queue never drained, "
    if decision is Decision.UNDECIDED:
        reason += f"but that could be chance, so it cannot yet be told from {amount(constraint)}"
    else:
        reason += f"so it is over {amount(constraint)}"
    return Judgement(constraint, metric.cause, decision, reason, strain(constraint, measured.value))


def _nothing_known(constraint: Constraint, result: TrialResult) -> Judgement:
    metric = metric_named(constraint.metric)
    why = "no answered request has it" if result.requests else "no request was answered"
    if metric.name == GOODPUT and result.requests:
        why = "it was not counted by the clauses of this objective: measure again with it"
    if metric.kind is MetricKind.COST and result.requests and result.pricing is None:
        why = "no machine was named to price it on (`cost: {instance: ...}` in the study)"
    reason = f"{why}, so nothing is known of {metric.title}"
    return Judgement(constraint, metric.cause, Decision.UNDECIDED, reason, strain=math.inf)

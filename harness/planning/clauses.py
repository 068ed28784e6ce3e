"""One clause of an objective against one body of evidence.

A clause holds where the whole confidence interval is on its right side, fails where the whole
interval is on the wrong one, and is undecided between. What is not yet decided carries an estimate
of how much more evidence would do: an interval shrinks with the square root of the sample.
"""

from __future__ import annotations

import math
import operator
import sys
from dataclasses import dataclass

from scipy import optimize, stats

from harness.planning.wording import UNBOUNDED_MS, amount, number, percent
from harness.types import Constraint, Decision, LatencySummary, TrialResult

DEFAULT_ERROR_RATE = Constraint("error_rate", "<=", 0.01, False, "error_rate <= 1%")
"""Holds where an objective names no error rate: nobody serves what fails more often than that."""
FARTHEST_FACTOR = 1000
"""More evidence than this is not worth naming: the value is at the bound."""
CONFIDENCE = 0.95
POWER = 0.8
"""Chance that the number of samples named decides; the usual choice (Cohen 1988)."""
_HOLDS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Interval:
    """A measured value and its confidence bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """What the evidence says of one clause."""

    constraint: Constraint
    cause: str
    """A rejection's cause if this clause fails: latency, throughput, error_rate, quality."""
    decision: Decision
    reason: str
    """In words and numbers, whatever the decision."""
    strain: float
    """The measured value in units of the bound: 1 is at the bound, above 1 beyond it."""
    evidence_factor: float | None = None
    """How many times the evidence would decide; None where decided or not to be foretold."""

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
    z_confidence, z_power = (float(z) for z in stats.norm.ppf([(1 + CONFIDENCE) / 2, POWER]))
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
    return samples * float(optimize.brentq(distance, 1.0, most))


def more_evidence(factor: float | None) -> str:
    """How many more requests would decide, in words."""
    if factor is None:
        return "more requests are needed"
    if factor > FARTHEST_FACTOR:
        return "it lies at the bound, which no number of requests will change"
    return f"about {max(2, math.ceil(factor))} times as many requests would tell"


def judge_load(constraint: Constraint, result: TrialResult) -> Finding:
    """Judge a clause on latency, throughput or error rate."""
    if constraint.metric == "throughput":
        return _judge_throughput(constraint, result)
    if constraint.metric == "error_rate":
        return judge_error_rate(constraint, result)
    return _judge_latency(constraint, result.latency)


def judge_error_rate(constraint: Constraint, result: TrialResult) -> Finding:
    """Judge the share of failed requests by the interval of Clopper and Pearson (1934).

    It is over the effective number of requests, because failures come in bursts (Korn and Graubard
    1998; `harness.analysis.failures`). A request that an open loop had to drop has failed: whoever
    sent it has no answer.
    """
    failures, total = _failures_of(result)
    if not total:
        return _nothing_known(constraint, "error_rate")
    measured = _error_rate(result)
    confidence = _confidence_of(result)
    decision = decide_interval(constraint, measured)
    reason = (
        f"error rate {percent(measured.value)} ({_counted(result)}, "
        f"{percent(confidence)} interval {percent(measured.low)} to {percent(measured.high)}) "
    )
    factor = None
    if decision is Decision.UNDECIDED:
        factor = evidence_factor(constraint, measured)
        if not failures:  # none of n bounds the share by -ln(tail) / n
            factor = -math.log((1 - confidence) / 2) / constraint.value / total
        reason += f"cannot yet be told from {amount(constraint)}: {more_evidence(factor)}"
    else:
        reason += f"is {'under' if decision is Decision.PASS else 'over'} {amount(constraint)}"
    return Finding(
        constraint, "error_rate", decision, reason, strain(constraint, measured.value), factor
    )


def judge_default_error_rate(result: TrialResult) -> Finding:
    """Judge the error rate where the objective names none.

    It passes by its value: an interval would leave every short trial undecided on a clause that
    nobody wrote. It fails by its interval: one failure in the first fifty requests proves nothing.
    """
    if not _failures_of(result)[1]:
        return _nothing_known(DEFAULT_ERROR_RATE, "error_rate")
    clause, measured = DEFAULT_ERROR_RATE, _error_rate(result)
    allowed = f"the {percent(clause.value)} that is allowed where the objective names no error_rate"
    reason = f"error rate {percent(measured.value)} ({_counted(result)}) "
    decision, factor = Decision.PASS, None
    if measured.value <= clause.value:
        reason += f"is within {allowed}"
    elif measured.low > clause.value:
        decision = Decision.FAIL
        reason += f"is over {allowed}"
    else:
        decision, factor = Decision.UNDECIDED, evidence_factor(clause, measured)
        reason += f"cannot yet be told from {allowed}: {more_evidence(factor)}"
    return Finding(clause, "error_rate", decision, reason, strain(clause, measured.value), factor)


def _error_rate(result: TrialResult) -> Interval:
    """The share that failed, with the trial's own confidence."""
    failures, total = _failures_of(result)
    share, tail = failures / total, (1 - _confidence_of(result)) / 2
    effective = max(1.0, total / result.failure_design_effect)
    hits = share * effective
    low = float(stats.beta.ppf(tail, hits, effective - hits + 1)) if failures else 0.0
    high = float(stats.beta.isf(tail, hits + 1, effective - hits)) if failures < total else 1.0
    return Interval(share, min(low, share), max(high, share))


def _confidence_of(result: TrialResult) -> float:
    """What the trial's looks leave for each of them; without latencies there was but one."""
    return result.latency.confidence if result.latency else CONFIDENCE


def _failures_of(result: TrialResult) -> tuple[int, int]:
    """Requests that failed or were dropped, and all that fell due."""
    failures = result.failures + result.dropped
    return failures, result.requests + failures


def _counted(result: TrialResult) -> str:
    failures, total = _failures_of(result)
    dropped = f", {result.dropped:,} of them dropped" if result.dropped else ""
    return f"{failures:,} of {total:,} requests{dropped}"


def _judge_throughput(constraint: Constraint, result: TrialResult) -> Finding:
    """Judge inferences a second by their interval (`harness.analysis.throughput`)."""
    reached = result.throughput_inferences_per_s
    low, high = result.throughput_low_inferences_per_s, result.throughput_high_inferences_per_s
    if low is None or high is None:
        reason = (
            f"{number(reached)} inferences/s have no interval, so they cannot yet be told from "
            f"{amount(constraint)}: a longer window would tell"
        )
        decision, factor = Decision.UNDECIDED, None
    else:
        measured = Interval(reached, low, high)
        decision, factor = decide_interval(constraint, measured), None
        reason = (
            f"{number(reached)} inferences/s ({percent(_confidence_of(result))} interval "
            f"{number(low)} to {number(high)}) "
        )
        if decision is Decision.UNDECIDED:
            factor = evidence_factor(constraint, measured)
            reason += f"cannot yet be told from {amount(constraint)}: {more_evidence(factor)}"
        elif decision is Decision.PASS:
            reason += f"reach the {number(constraint.value)} asked for"
        else:
            reason += f"are below the {number(constraint.value)} asked for"
    strained = strain(constraint, reached)
    return Finding(constraint, "throughput", decision, reason, strained, factor)


def _judge_latency(constraint: Constraint, latency: LatencySummary | None) -> Finding:
    measured = _latency_interval(constraint.metric, latency)
    if latency is None or measured is None:
        return _nothing_known(constraint, "latency")
    decision = decide_interval(constraint, measured)
    if measured.value >= UNBOUNDED_MS:
        return _never_drained(constraint, measured, decision)
    factor = None
    unbounded = measured.high >= UNBOUNDED_MS
    interval = f"{number(measured.low)} to {'unbounded' if unbounded else number(measured.high)}"
    reason = (
        f"{constraint.metric} {number(measured.value)} ms "
        f"({percent(latency.confidence)} interval {interval} ms) "
    )
    if decision is Decision.UNDECIDED:
        factor = _latency_factor(constraint, measured, latency)
        reason += f"cannot yet be told from {amount(constraint)}: {more_evidence(factor)}"
    else:
        reason += f"is {'under' if decision is Decision.PASS else 'over'} {amount(constraint)}"
    return Finding(
        constraint, "latency", decision, reason, strain(constraint, measured.value), factor
    )


def _never_drained(constraint: Constraint, measured: Interval, decision: Decision) -> Finding:
    """Of a percentile that lies among the requests which were dropped, or never answered."""
    at_least = f", at least {number(measured.low)} ms" if 0 < measured.low < UNBOUNDED_MS else ""
    reason = f"{constraint.metric} is unbounded{at_least}: the queue never drained, "
    if decision is Decision.UNDECIDED:
        reason += f"but that could be chance, so it cannot yet be told from {amount(constraint)}"
    else:
        reason += f"so it is over {amount(constraint)}"
    return Finding(constraint, "latency", decision, reason, strain(constraint, measured.value))


def _latency_interval(metric: str, latency: LatencySummary | None) -> Interval | None:
    if latency is None:
        return None
    if metric == "mean":
        if latency.mean_low_ms is None or latency.mean_high_ms is None:
            return Interval(latency.mean_ms, 0.0, UNBOUNDED_MS)
        return Interval(latency.mean_ms, latency.mean_low_ms, latency.mean_high_ms)
    percentile = latency.percentiles[metric]
    return Interval(percentile.value_ms, percentile.low_ms, percentile.high_ms)


def _latency_factor(
    constraint: Constraint, measured: Interval, latency: LatencySummary
) -> float | None:
    """Evidence for a percentile; without an upper bound, the least that gives one.

    The largest of n independent samples bounds the q-quantile with probability 1 - q^n.
    """
    if measured.high < UNBOUNDED_MS:
        return evidence_factor(constraint, measured)
    if constraint.metric == "mean":
        return None
    quantile = float(constraint.metric.removeprefix("p")) / 100
    samples = math.log((1 - latency.confidence) / 2) / math.log(quantile)
    return samples * latency.design_effect / latency.count


def _nothing_known(constraint: Constraint, cause: str) -> Finding:
    reason = f"no request was answered, so nothing is known of {constraint.metric}"
    return Finding(constraint, cause, Decision.UNDECIDED, reason, strain=math.inf)

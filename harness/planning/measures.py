"""What a trial says of each metric that a load decides: a value and its confidence bounds.

Latencies follow from their span and statistic. Every other metric of a load has its function in
`MEASURES`, under the name that its entry in `harness.metrics` has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scipy import stats

from harness.hdr import UNBOUNDED_MS
from harness.metrics import Metric, MetricKind, latency_of, summary_of
from harness.types import Constraint, TrialResult

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A measured value and its confidence bounds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """A metric of one trial."""

    value: float
    interval: Interval | None
    """None where the trial is too short for one."""
    confidence: float
    """Of the interval: what the trial's looks leave for each of them."""
    counted: str = ""
    """What the value is a part of: `3 of 2,000 requests`."""
    evidence: Callable[[Constraint], float | None] | None = None
    """How many times the evidence would decide, where that does not follow from the interval."""


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
    1998; `harness.analysis.failures`). A request that an open loop had to drop has failed: whoever
    sent it has no answer.
    """
    failures, total = failures_of(result)
    if not total:
        return None
    confidence = _confidence_of(result)
    share, tail = failures / total, (1 - confidence) / 2
    effective = max(1.0, total / result.failure_design_effect)
    hits = share * effective
    low = float(stats.beta.ppf(tail, hits, effective - hits + 1)) if failures else 0.0
    high = float(stats.beta.isf(tail, hits + 1, effective - hits)) if failures < total else 1.0
    dropped = f", {result.dropped:,} of them dropped" if result.dropped else ""

    def without_failures(constraint: Constraint) -> float:
        return -math.log(tail) / constraint.value / total  # none of n bounds it by -ln(tail) / n

    return Measured(
        share,
        Interval(share, min(low, share), max(high, share)),
        confidence,
        f"{failures:,} of {total:,} requests{dropped}",
        None if failures else without_failures,
    )


def throughput(result: TrialResult) -> Measured:
    """Inferences per second, with their interval (`harness.analysis.throughput`)."""
    reached = result.throughput_inferences_per_s
    low, high = result.throughput_low_inferences_per_s, result.throughput_high_inferences_per_s
    known = None if low is None or high is None else Interval(reached, low, high)
    return Measured(reached, known, _confidence_of(result))


MEASURES: Final[dict[str, Measure]] = {"error_rate": error_rate, "throughput": throughput}
"""By metric, all that a load decides but the latencies."""


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

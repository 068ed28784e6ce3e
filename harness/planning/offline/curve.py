"""Throughput over batch size from stored trials, and how trials of one load differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy

from harness.types import LoadMode, ServingConfig, TrialResult, WireProtocol
from harness.types.estimates import Interval
from harness.types.offline import BatchCurve, BatchPoint, CurveSource, OfflineSpread
from harness.types.workloads import Mix
from harness.words.numbers import asked_percent, count, percent, span

CONFIDENCE = 0.95
FEWEST_REPEATS = 3
"""Degrees of freedom below which trials say too little of how machines differ."""
ASSUMED_SPREAD = Interval(0.10, 0.05, 0.20)
"""Taken where nothing is known: a judgement."""


@dataclass(frozen=True)
class ClosedLoad:
    """What makes trials repetitions of each other."""

    variant: str
    serving: ServingConfig
    protocol: WireProtocol
    batch_size: int
    in_flight: int
    length_mix: Mix = ()
    """Lengths that the requests were drawn from, and their weights; empty: those of the data."""


def by_load(trials: Iterable[TrialResult]) -> dict[ClosedLoad, list[TrialResult]]:
    """The valid closed loops of one batch size that the model answered, by what they asked for.

    Where a response cache may answer, the rate is not the model's.
    """
    found: dict[ClosedLoad, list[TrialResult]] = {}
    for one in trials:
        trial, workload = one.trial, one.trial.workload
        if not one.valid or one.throughput_inferences_per_s <= 0:
            continue
        if workload.load_mode is not LoadMode.CLOSED or workload.batch_mix:
            continue
        if workload.cached_answers or trial.serving.response_cache:
            continue
        load = ClosedLoad(
            trial.variant,
            trial.serving,
            workload.protocol,
            workload.client_batch_size,
            workload.concurrency,
            workload.length_mix,
        )
        found.setdefault(load, []).append(one)
    return found


@dataclass(frozen=True)
class Scatter:
    """How the logarithms of the rates of one load differ from trial to trial."""

    deviation: float
    """Standard deviation, pooled over all loads that were repeated."""
    freedom: int
    """Degrees of freedom behind it."""
    trials: int


def scatter_of(trials: Iterable[TrialResult]) -> Scatter | None:
    """Pooled over a run's repeated closed loops; None where they are too few to tell."""
    groups = [
        np.log([one.throughput_inferences_per_s for one in group])
        for group in by_load(trials).values()
        if len(group) > 1
    ]
    count_of = sum(len(one) for one in groups)
    freedom = count_of - len(groups)
    if freedom < FEWEST_REPEATS:
        return None
    squares = float(sum(np.square(one - one.mean()).sum() for one in groups))
    return Scatter(math.sqrt(squares / freedom), freedom, count_of)


def rate_of(results: Sequence[TrialResult], scatter: Scatter | None = None) -> Interval | None:
    """Inferences per second of one load.

    Of several trials the geometric mean, with Student's t interval of the logarithms: by their own
    scatter, or by the run's where more is known of that. Of one trial its own interval; None where
    it has none.
    """
    rates = [one.throughput_inferences_per_s for one in results]
    if len(rates) > 1:
        return repeated(rates, scatter)
    low = results[0].throughput_low_inferences_per_s
    high = results[0].throughput_high_inferences_per_s
    return None if low is None or high is None or low <= 0 else Interval(rates[0], low, high)


def repeated(rates: Sequence[float], scatter: Scatter | None = None) -> Interval:
    """Geometric mean of two values or more, all above 0, with its 95% interval."""
    logs = np.log(rates)
    deviation, freedom = float(logs.std(ddof=1)), len(logs) - 1
    if scatter is not None and scatter.freedom > freedom:
        deviation, freedom = scatter.deviation, scatter.freedom
    reach = float(scipy.special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    half, mean = reach * deviation / math.sqrt(len(logs)), float(logs.mean())
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def growth_between(before: BatchPoint, after: BatchPoint) -> Interval:
    """What each doubling between two batch sizes brought, as a share.

    The bounds combine the least and the most favourable ends of both rates.
    """
    doublings = math.log2(after.batch_size / before.batch_size)
    old, new = before.inferences_per_s, after.inferences_per_s

    def each(ratio: float) -> float:
        return math.expm1(math.log(ratio) / doublings)

    return Interval(each(new.value / old.value), each(new.low / old.high), each(new.high / old.low))


def curve_of(
    source: CurveSource,
    rates: Mapping[int, Interval],
    least_growth: float,
    trials: Mapping[int, int] | None = None,
) -> BatchCurve:
    """Throughput over batch sizes as they were visited, and the one from which growth is too small.

    Args:
        source: where the rates come from.
        rates: by batch size; at least one, each bound above 0.
        least_growth: what a doubling has to bring.
        trials: how many each rests on; None in process.
    """
    points: list[BatchPoint] = []
    for size in sorted(rates):
        point = BatchPoint(size, rates[size], None, (trials or {}).get(size, 0))
        growth = growth_between(points[-1], point) if points else None
        points.append(BatchPoint(size, point.inferences_per_s, growth, point.trials))
    return judged(source, points, least_growth)


def judged(source: CurveSource, points: Sequence[BatchPoint], least_growth: float) -> BatchCurve:
    """A curve with the batch from which a doubling brings too little, by its points' growths."""
    wanted = asked_percent(least_growth)
    for before, after in pairwise(points):
        growth = after.growth
        if growth is None or growth.value >= least_growth:
            continue
        sure = "with confidence" if growth.high < least_growth else "by the mean alone"
        ended = f"doubling brings less than {wanted}, {sure}"
        return BatchCurve(source, tuple(points), least_growth, before.batch_size, ended)
    last = points[-1].batch_size
    ended = f"batch {count(last)} is the largest that was measured"
    return BatchCurve(source, tuple(points), least_growth, None, ended)


def spread_of(
    trials: Iterable[TrialResult], given: float | None, seconds: float = 0.0
) -> OfflineSpread:
    """How machines that do the same work differ, from how trials of one load did.

    The variances of the logarithms within each load are pooled; their interval is the chi-squared
    distribution's. Few repetitions tell nothing: then a spread is assumed, and that is said.

    Args:
        trials: of the run, of all its variants.
        given: by the user, in place of that.
        seconds: of the throughput from second to second.
    """
    if given is not None:
        stated = Interval(given, given, given)
        return OfflineSpread(stated, seconds, f"{percent(given)}, as given")
    scatter = scatter_of(trials)
    if scatter is None:
        return OfflineSpread(
            ASSUMED_SPREAD,
            seconds,
            f"{percent(ASSUMED_SPREAD.value)}, assumed: the run repeats too few trials to tell",
        )
    freedom, squares = scatter.freedom, scatter.freedom * scatter.deviation**2
    tail = (1 - CONFIDENCE) / 2
    ends = (
        float(scipy.special.chdtri(freedom, 1 - tail)),
        float(scipy.special.chdtri(freedom, tail)),
    )
    value, high, low = (_variation(squares / one) for one in (freedom, *ends))
    basis = (
        f"{percent(value)} ({span(percent(low), percent(high))}), as {count(scatter.trials)} "
        "repeated trials differ"
    )
    return OfflineSpread(Interval(value, low, high), seconds, basis)


def _variation(variance_of_logs: float) -> float:
    """The coefficient of variation of a log-normal variable."""
    return math.sqrt(math.expm1(variance_of_logs))

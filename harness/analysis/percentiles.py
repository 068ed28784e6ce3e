"""A window's latency: percentiles and the mean, with confidence bounds from blocks of time.

`docs/statistics.md` has the method in plain words, and how often it errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness import hdr
from harness.metrics import DEFAULT_LATENCY
from harness.types import LatencySummary, Percentile, SparseHistogram
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import PERCENTILES

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockCounts:
    """How often each latency was recorded in each block; blocks are equally long, in time order.

    A recorded value stands for a bin 0.1% wide. Quantiles are read at the bin's upper edge (the
    convention of HdrHistogram, and the cautious one), the mean at its middle.

    A request that an open loop had to drop has no latency: quantiles take it as slower than any
    other, means leave it out.
    """

    lower_us: Floats
    """(values,) ascending: the latencies that were recorded at all."""
    upper_us: Floats
    counts: Floats
    """(blocks, values) how often each value occurs in each block."""
    dropped: Floats
    """(blocks,) requests that fell due and were never sent."""

    @classmethod
    def of(
        cls, slices: Sequence[SparseHistogram], dropped: Sequence[int] = (), *, blocks: int
    ) -> Self:
        """Merge a window's slices into at most this many blocks; slices may be empty.

        Args:
            slices: equally long, in time order.
            dropped: one number per slice; an empty sequence means none.
            blocks: where the slices do not divide evenly, blocks differ by one slice.
        """
        blocks = min(blocks, len(slices))
        block_of_slice = np.arange(len(slices)) * blocks // max(1, len(slices))
        buckets = np.array([bucket for one in slices for bucket in one.buckets], dtype=np.int64)
        counts = np.array([count for one in slices for count in one.counts], dtype=np.int64)
        recorded, value = np.unique(buckets, return_inverse=True)
        block = np.repeat(block_of_slice, [len(one.buckets) for one in slices])
        cells = blocks * len(recorded)
        return cls(
            lower_us=hdr.lowest_value_us(recorded).astype(float),
            upper_us=np.minimum(hdr.highest_value_us(recorded), hdr.HIGHEST_US).astype(float),
            counts=np.bincount(block * len(recorded) + value, counts, minlength=cells)
            .astype(float)
            .reshape(blocks, len(recorded)),
            dropped=np.bincount(
                block_of_slice, dropped or [0] * len(slices), minlength=blocks
            ).astype(float),
        )

    @cached_property
    def answered(self) -> int:
        """Number of requests that have a latency."""
        return int(self.counts.sum())

    @cached_property
    def offered(self) -> int:
        """Number of requests, dropped ones included."""
        return self.answered + int(self.dropped.sum())

    @cached_property
    def block_answered(self) -> Floats:
        """(blocks,) requests that have a latency."""
        sizes: Floats = self.counts.sum(axis=1)
        return sizes

    @cached_property
    def block_offered(self) -> Floats:
        """(blocks,) requests, dropped ones included."""
        return self.block_answered + self.dropped

    @cached_property
    def block_sums_us(self) -> Floats:
        """(blocks,) the sum of each block's latencies, in microseconds."""
        sums: Floats = self.counts @ ((self.lower_us + self.upper_us) / 2)
        return sums

    @cached_property
    def block_ranks(self) -> Floats:
        """(blocks,) ranks of the block's requests among all, from 0 to 1, added up.

        Requests of one value share its middle rank, dropped ones theirs beyond all values.
        """
        middle = (self._cumulative - self.counts.sum(axis=0) / 2) / self.offered
        slowest = 1 - self.dropped.sum() / 2 / self.offered
        ranks: Floats = self.counts @ middle + self.dropped * slowest
        return ranks

    def value_at(self, rank: int) -> float:
        """The `rank`-th smallest latency in microseconds, from 1; an hour for a dropped request."""
        if rank > self.answered:
            return float(hdr.HIGHEST_US)
        return float(self.upper_us[np.searchsorted(self._cumulative, rank)])

    def exceedances(self, threshold_us: float) -> Floats:
        """(blocks,) how many requests took longer than the threshold, dropped ones included."""
        over: Floats = self.counts[:, self.upper_us > threshold_us].sum(axis=1)
        return over + self.dropped if threshold_us < hdr.HIGHEST_US else over

    def block_quantiles_us(self, quantile: float) -> Floats:
        """(blocks,) each block's own quantile; an hour where it is dropped or the block empty."""
        rank = np.maximum(1, np.ceil(quantile * self.block_offered))
        place = (self.counts.cumsum(axis=1) < rank[:, None]).sum(axis=1)
        quantiles: Floats = np.append(self.upper_us, hdr.HIGHEST_US)[place]
        return quantiles

    @cached_property
    def _cumulative(self) -> Floats:
        """(values,) requests at or below each value."""
        sums: Floats = self.counts.sum(axis=0).cumsum()
        return sums


BLOCKS = 10
"""More are shorter, and so more correlated; 10 to 30 are enough (Schmeiser, Oper. Res., 1982)."""
ROOM = 4.0
"""Found by simulation (benchmarks/stopping_error_rates.py): at 2 a queue near saturation, seen for
less than its memory, passes wrongly in up to 9% of trials; at 4 in 3%."""
CLOSED_ROOM = 1.25
CYCLES_A_BLOCK = 2.0
"""For a closed loop: room beyond its blocks' extremes, and how often it turns over in a block. In
simulation (benchmarks/stopping_error_rates.py) it adds no wrong decision to those without it."""
FEWEST_DEGREES = 1.0
"""Degrees of freedom below which the blocks are one long swing of the queue."""
HIGHEST_CORRELATION = 0.95
_LARGEST_EXPONENT = 50.0

Bounds = tuple[float, float]
UNBOUNDED_US: Bounds = (0.0, float(hdr.HIGHEST_US))


def quantile_bounds_us(
    blocks: BlockCounts, quantile: float, confidence: float, *, block_s: float | None = None
) -> Bounds:
    """Two-sided bounds of a quantile in microseconds; `UNBOUNDED_US` where nothing can be said.

    Args:
        blocks: the window.
        quantile: 0 to 1.
        confidence: of the interval.
        block_s: length of a block, where the load was a closed loop whose slots never rest: its
            memory is bounded.
    """
    value_us = blocks.value_at(max(1, math.ceil(quantile * blocks.offered)))
    low_us, high_us = _spread_bounds_us(blocks, quantile, value_us, confidence)
    if block_s is not None:
        clear_low_us, clear_high_us = _clear_bounds_us(blocks, quantile, confidence, block_s)
        low_us, high_us = max(low_us, clear_low_us), min(high_us, clear_high_us)
    return min(low_us, value_us), max(high_us, value_us)


def _spread_bounds_us(
    blocks: BlockCounts, quantile: float, value_us: float, confidence: float
) -> Bounds:
    """The wider, on either side, of the two intervals."""
    factor = _sectioning_factor(blocks, quantile, value_us, confidence)
    if factor is None:
        return UNBOUNDED_US
    low_us, high_us = _order_statistics_us(blocks, quantile, confidence)
    return (
        min(low_us, value_us / factor),
        min(max(high_us, value_us * factor), float(hdr.HIGHEST_US)),
    )


def _clear_bounds_us(
    blocks: BlockCounts, quantile: float, confidence: float, block_s: float
) -> Bounds:
    """Bounds for clear cases of a closed loop: beyond what any block showed, with room.

    A closed loop of N remembers about as long as N requests take, which is its mean latency
    (Little). Blocks that are several times as long are as good as independent, so the true quantile
    lies far beyond the extremes of ten of them only if the machine itself changed.
    """
    mean_s = float(blocks.block_sums_us.sum()) / max(1, blocks.answered) / 1e6
    enough = blocks.offered >= fewest_requests(quantile, confidence)
    if len(blocks.counts) < BLOCKS or not enough or block_s < CYCLES_A_BLOCK * mean_s:
        return UNBOUNDED_US
    own_us = blocks.block_quantiles_us(quantile)
    high_us = min(CLOSED_ROOM * float(own_us.max()), UNBOUNDED_US[1])
    return float(own_us.min()) / CLOSED_ROOM, high_us


def mean_bounds_us(blocks: BlockCounts, confidence: float) -> Bounds | None:
    """Two-sided bounds of the mean by batch means, with logarithms; None where there are none."""
    mean_us = float(blocks.block_sums_us.sum()) / blocks.answered
    if mean_us <= 0:
        return None
    deviations = (blocks.block_sums_us / mean_us - blocks.block_answered) / blocks.answered
    factor = _spread_factor(blocks, deviations, confidence)
    return None if factor is None else (mean_us / factor, mean_us * factor)


def design_effect(blocks: BlockCounts, quantile: float, confidence: float) -> float:
    """How many requests count as one, for the share above a quantile: from 1 to their number."""
    count = len(blocks.counts)
    if count == 1:
        return float(blocks.offered)
    slow = blocks.exceedances(blocks.value_at(max(1, math.ceil(quantile * blocks.offered))))
    share = float(slow.sum()) / blocks.offered
    if share == 0:  # the quantile is the maximum: nothing varies that could be measured
        return min(_uncertainty(blocks, confidence), float(blocks.offered))
    residuals = slow - share * blocks.block_offered
    # Variance of a ratio, linearised: Cochran, Sampling Techniques, 3rd ed., section 6.3.
    variance = count / (count - 1) * float(np.square(residuals).sum()) / blocks.offered**2
    inflation = ar1_inflation(autocorrelation(residuals))
    effect = inflation * variance / (share * (1 - share) / blocks.offered)
    return min(max(1.0, effect) * _uncertainty(blocks, confidence), float(blocks.offered))


def fewest_requests(quantile: float, confidence: float) -> int:
    """Independent requests that give a quantile an upper bound at all.

    The greatest of n lies below the quantile with probability q^n, which may be one tail.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(quantile))


def order_statistic_ranks(samples: int, quantile: float, confidence: float) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that bound a quantile of independent samples.

    Of n samples the number at or below the quantile is Binomial(n, quantile), so X(r) is above it
    with probability cdf(r - 1), X(s) below it with 1 - cdf(s - 1); each is kept to (1 - confidence)
    / 2. A rank of 0, or of `samples` + 1, says that the sample is too small for that bound.
    """
    tail = (1 - confidence) / 2
    low, above = (_binomial_quantile(share, samples, quantile) for share in (tail, 1 - tail))
    return low, above + 1


def _binomial_quantile(share: float, trials: int, chance: float) -> int:
    """The least number of successes whose distribution function reaches a share.

    As `scipy.stats.binom.ppf`, without the second that importing `scipy.stats` takes.
    """
    found: int = max(0, math.ceil(special.bdtrik(share, trials, chance)))
    # The inverse is continuous, and rounding may put it just above a whole number.
    fewer = max(0, found - 1)
    return fewer if special.bdtr(fewer, trials, chance) >= share else found


def _order_statistics_us(blocks: BlockCounts, quantile: float, confidence: float) -> Bounds:
    """Order statistics whose ranks are found for the effective sample of m of n requests.

    They are then stretched to the real one, outwards: r becomes floor((r - 1) n / m) + 1, and s
    becomes ceil(s n / m); with m = n they stay.
    """
    total = blocks.offered
    effective = max(1, math.floor(total / design_effect(blocks, quantile, confidence)))
    low, high = order_statistic_ranks(effective, quantile, confidence)
    low_us = blocks.value_at((low - 1) * total // effective + 1) if low else UNBOUNDED_US[0]
    if high <= effective:
        return low_us, blocks.value_at(-(-high * total // effective))
    if total >= _uncertainty(blocks, confidence) * fewest_requests(quantile, confidence):
        return low_us, ROOM * blocks.value_at(total)
    return low_us, UNBOUNDED_US[1]


def _uncertainty(blocks: BlockCounts, confidence: float) -> float:
    """How much larger to take a variance that is known from few blocks only.

    As in a t interval: the square of Student's t over the normal quantile.
    """
    tail = (1 + confidence) / 2
    student = float(special.stdtrit(len(blocks.counts) - 1, tail))
    return (student / float(special.ndtri(tail))) ** 2


def _sectioning_factor(
    blocks: BlockCounts, quantile: float, value_us: float, confidence: float
) -> float | None:
    """The factor by which the quantile may be off, from the spread of the blocks' own quantiles."""
    own_us = np.maximum(blocks.block_quantiles_us(quantile), hdr.LOWEST_US)
    logarithms = np.log(own_us / max(value_us, hdr.LOWEST_US))
    return _spread_factor(blocks, logarithms * blocks.block_offered / blocks.offered, confidence)


def _spread_factor(blocks: BlockCounts, deviations: Floats, confidence: float) -> float | None:
    """Turn relative deviations, a block each, into the factor that bounds their sum.

    The blocks' memory is sought in the deviations and, because these are few and coarse, in the
    blocks' mean ranks too: all latencies of a queue share its memory. None where it is too long.
    """
    count = len(deviations)
    if count == 1:
        return None
    ranks = blocks.block_ranks - blocks.block_offered / 2
    inflation = ar1_inflation(max(autocorrelation(deviations), autocorrelation(ranks)))
    degrees = count / inflation - 1
    if degrees < FEWEST_DEGREES:
        return None
    variance = count / (count - 1) * float(np.square(deviations).sum())
    half = float(special.stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(variance * inflation)
    return math.exp(min(half, _LARGEST_EXPONENT))


def ar1_inflation(correlation: float) -> float:
    """How much larger an AR(1) process makes the variance of a mean; alternation counts as none."""
    positive = max(correlation, 0.0)
    return (1 + positive) / (1 - positive)


def autocorrelation(series: Floats) -> float:
    """First autocorrelation of a short series with mean zero, its bias removed.

    A series of m values with the mean taken off shows (1 + 4 r) / m too little (Marriott & Pope,
    Biometrika 41, 1954).
    """
    squares = float(np.square(series).sum())
    if squares == 0:
        return 0.0
    seen = float((series[1:] * series[:-1]).sum()) / squares
    return min(seen + (1 + 4 * max(seen, 0.0)) / len(series), HIGHEST_CORRELATION)


_US_PER_MS = 1e3


def summarise(
    slices: Sequence[SparseHistogram],
    *,
    confidence: float = 0.95,
    dropped: Sequence[int] = (),
    closed_slice_s: float | None = None,
) -> LatencySummary | None:
    """Summarise the latencies of a window: percentiles with confidence bounds, mean and maximum.

    Args:
        slices: equally long, in time order, those without requests too. From a single one nothing
            is known of correlation: values are given, bounds are not.
        confidence: of the two-sided interval of each percentile, and of the mean.
        dropped: requests of each slice that an open loop never sent. Percentiles take them as
            slower than any other; count, mean, least and greatest leave them out.
        closed_slice_s: length of a slice, where the load was a closed loop whose slots never rest
            (`Workload.keeps_in_flight`).

    Returns:
        The summary; None when no latency was recorded. `design_effect` is that of p95.
    """
    blocks = BlockCounts.of(slices, dropped, blocks=BLOCKS)
    if not blocks.answered:
        return None
    mean_us = mean_bounds_us(blocks, confidence)
    block_s = None if closed_slice_s is None else closed_slice_s * len(slices) / BLOCKS
    return LatencySummary(
        count=blocks.answered,
        mean_ms=float(blocks.block_sums_us.sum()) / blocks.answered / _US_PER_MS,
        min_ms=float(blocks.lower_us[0]) / _US_PER_MS,
        max_ms=float(blocks.upper_us[-1]) / _US_PER_MS,
        percentiles={
            name: _percentile(blocks, quantile, confidence, block_s)
            for name, quantile in PERCENTILES.items()
        },
        confidence=confidence,
        design_effect=design_effect(blocks, PERCENTILES[DEFAULT_LATENCY], confidence),
        mean_low_ms=None if mean_us is None else mean_us[0] / _US_PER_MS,
        mean_high_ms=None if mean_us is None else min(mean_us[1] / _US_PER_MS, UNBOUNDED_MS),
    )


def _percentile(
    blocks: BlockCounts, quantile: float, confidence: float, block_s: float | None
) -> Percentile:
    value_us = blocks.value_at(max(1, math.ceil(quantile * blocks.offered)))
    low_us, high_us = quantile_bounds_us(blocks, quantile, confidence, block_s=block_s)
    return Percentile(value_us / _US_PER_MS, low_us / _US_PER_MS, high_us / _US_PER_MS)

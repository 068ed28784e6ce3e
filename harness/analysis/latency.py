"""Latency percentiles with confidence bounds that hold for a queue's correlated latencies.

Three steps, each a textbook one:

1. The bounds of a quantile are order statistics of the sample, found from the binomial
   distribution: nothing is assumed of the latency's distribution (Conover, Practical Nonparametric
   Statistics, 3rd ed., section 3.2). The upper bound alone is the rule by which MLPerf LoadGen
   stops early.
2. That rule wants independent samples, and neighbours in a queue are not. So it is given the
   *effective* sample size n / deff, where the design effect deff (Kish, Survey Sampling, 1965) is
   the variance of the share of slow requests over what independence would give.
3. That variance is estimated by batch means over the window's time blocks (Law & Kelton, Simulation
   Modeling and Analysis, section 9.5.3), as that of a ratio, since slow blocks hold fewer requests.

With about ten blocks the variance itself is uncertain. As batch means do, the interval therefore
takes Student's t for the normal quantile, and deff is never taken below 1: for requests that really
are independent the interval comes out about a fifth wider than need be. Correlation longer than a
block is not seen; blocks must outlast the queue's memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray
from scipy import stats

from harness.analysis.histograms import BlockCounts
from harness.types import LatencySummary, Percentile

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
SIGNIFICANT_FIGURES = 3
"""Of a merged histogram: 1 us to 1 h, 0.1% wide at worst."""
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
UNBOUNDED_MS = HIGHEST_US / 1e3
"""Upper bound where the sample is too small for one: the largest latency that can be recorded.

JSON has no infinity, and an objective compared with an hour stays undecided, as it should.
"""
_US_PER_MS = 1e3


def summarise(histograms: Sequence[str], *, confidence: float = 0.95) -> LatencySummary | None:
    """Summarise encoded HDR histograms of microseconds, one a time block, in time order.

    Args:
        histograms: blocks of one window. From a single block nothing is known of correlation:
            values are given, bounds are not.
        confidence: of the two-sided interval of each percentile.

    Returns:
        The summary; None when nothing was recorded. `design_effect` is that of p95.
    """
    blocks = BlockCounts.decode(histograms)
    return summarise_blocks(blocks, confidence=confidence) if blocks.total else None


def summarise_blocks(blocks: BlockCounts, *, confidence: float) -> LatencySummary:
    """`summarise` over decoded blocks, of which there is at least one."""
    effects = {name: _design_effect(blocks, q, confidence) for name, q in QUANTILES.items()}
    mean_us = float(blocks.block_sums_us.sum()) / blocks.total
    half_us = _mean_half_width(blocks, mean_us, confidence)
    return LatencySummary(
        count=blocks.total,
        mean_ms=mean_us / _US_PER_MS,
        min_ms=float(blocks.lower_us[0]) / _US_PER_MS,
        max_ms=float(blocks.upper_us[-1]) / _US_PER_MS,
        percentiles={
            name: _percentile(blocks, quantile, effects[name], confidence)
            for name, quantile in QUANTILES.items()
        },
        confidence=confidence,
        design_effect=effects["p95"],
        mean_low_ms=None if half_us is None else max(0.0, mean_us - half_us) / _US_PER_MS,
        mean_high_ms=None if half_us is None else (mean_us + half_us) / _US_PER_MS,
    )


def merge(histograms: Sequence[str]) -> str:
    """Add encoded histograms up; counts are kept exactly."""
    merged = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_FIGURES)
    for encoded in histograms:
        merged.decode_and_add(encoded)
    text: str = merged.encode().decode("ascii")
    return text


def order_statistic_ranks(samples: int, quantile: float, confidence: float) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that bound a quantile of independent samples.

    Of n samples the number at or below the quantile is Binomial(n, quantile), so X(r) is above it
    with probability cdf(r - 1), X(s) below it with 1 - cdf(s - 1); each is kept to (1 - confidence)
    / 2. A rank of 0, or of `samples` + 1, says that the sample is too small for that bound.
    """
    tail = (1 - confidence) / 2
    below = stats.binom(samples, quantile)
    return int(below.ppf(tail)), int(below.ppf(1 - tail)) + 1


def _percentile(
    blocks: BlockCounts, quantile: float, design_effect: float, confidence: float
) -> Percentile:
    """A quantile and its bounds.

    The ranks are found for the effective sample of m, then stretched to the real one of n,
    outwards: r becomes floor((r - 1) n / m) + 1, and s becomes ceil(s n / m); with m = n they stay.
    """
    total = blocks.total
    effective = max(1, math.floor(total / design_effect))
    low, high = order_statistic_ranks(effective, quantile, confidence)
    value_us = blocks.value_at(max(1, math.ceil(quantile * total)))
    low_us = blocks.value_at((low - 1) * total // effective + 1) if low else 0.0
    high_us = blocks.value_at(-(-high * total // effective)) if high <= effective else HIGHEST_US
    return Percentile(
        value_ms=value_us / _US_PER_MS,
        low_ms=min(low_us, value_us) / _US_PER_MS,
        high_ms=max(high_us, value_us) / _US_PER_MS,
    )


def _design_effect(blocks: BlockCounts, quantile: float, confidence: float) -> float:
    """How many requests count as one, at a quantile; between 1 and their number."""
    sizes = blocks.block_sizes
    total = blocks.total
    if len(sizes) == 1:
        return float(total)
    slow = blocks.exceedances(blocks.value_at(max(1, math.ceil(quantile * total))))
    share = slow.sum() / total
    if share == 0:  # the quantile is the maximum: nothing varies that could be measured
        return 1.0
    variance = _ratio_variance(slow.astype(float), sizes, float(share))
    effect = variance / (share * (1 - share) / total)
    student = stats.t.ppf((1 + confidence) / 2, len(sizes) - 1)
    normal = stats.norm.ppf((1 + confidence) / 2)
    return float(min(max(1.0, effect * (student / normal) ** 2), total))


def _mean_half_width(blocks: BlockCounts, mean_us: float, confidence: float) -> float | None:
    """Half the width of the mean's interval by batch means, in microseconds."""
    sizes = blocks.block_sizes
    if len(sizes) == 1:
        return None
    variance = _ratio_variance(blocks.block_sums_us, sizes, mean_us)
    return float(stats.t.ppf((1 + confidence) / 2, len(sizes) - 1)) * math.sqrt(variance)


def _ratio_variance(sums: NDArray[np.float64], sizes: NDArray[np.int64], ratio: float) -> float:
    """Variance of sum(sums) / sum(sizes) over blocks, linearised.

    Cochran, Sampling Techniques, 3rd ed., section 6.3.
    """
    residuals = sums - ratio * sizes
    blocks = len(sizes)
    return float(blocks / (blocks - 1) * np.square(residuals).sum() / sizes.sum() ** 2)

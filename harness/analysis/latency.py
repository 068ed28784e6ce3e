"""A window's latency in numbers: percentiles and the mean, with their confidence bounds.

The bounds are those of `harness.analysis.intervals`; `docs/statistics.md` has the method in plain
words, and how often it errs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.intervals import (
    BLOCKS,
    BlockCounts,
    design_effect,
    mean_bounds_us,
    quantile_bounds_us,
)
from harness.hdr import UNBOUNDED_MS
from harness.metrics import DEFAULT_LATENCY, PERCENTILES
from harness.types import LatencySummary, Percentile, SparseHistogram

_US_PER_MS = 1e3


def summarise(
    slices: Sequence[SparseHistogram],
    *,
    confidence: float = 0.95,
    dropped: Sequence[int] = (),
    closed_slice_s: float | None = None,
) -> LatencySummary | None:
    """Summarise a window's latencies.

    Args:
        slices: equally long, in time order, those without requests too. From a single one nothing
            is known of correlation: values are given, bounds are not.
        confidence: of the two-sided interval of each percentile, and of the mean.
        dropped: requests of each slice that an open loop never sent. Percentiles take them as
            slower than any other; count, mean, least and greatest leave them out.
        closed_slice_s: length of a slice, where the load was a closed loop.

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

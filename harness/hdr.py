"""HDR histograms of microseconds: 1 us to 1 h, three significant digits (0.1 % wide at worst).

The layout is HdrHistogram's own (http://hdrhistogram.org): buckets double in width, each cut into
2048 sub-buckets, so `encode` gives the standard V2 form that any HdrHistogram library reads. What
differs is how values get in: whole arrays at a time, because a call a value is the dearest thing a
load generator does with a request.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterable

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from harness.types import SparseHistogram
from harness.types.latency import UNBOUNDED_MS

LOWEST_US = 1
HIGHEST_US = round(UNBOUNDED_MS * 1000)
SIGNIFICANT_FIGURES = 3
INDEX_BITS = 15
"""Every bucket index is below 2**15, so an index leaves room for more in one integer key."""
_HALF_BITS = 10
_HALF = 1 << _HALF_BITS
"""Half of a bucket's sub-buckets: all but the first bucket use only the upper half."""
_MANTISSA_BITS = 52
_EXPONENT_BIAS = 1023
"""Exponent bias of IEEE 754's double precision."""
_LEADING_OF_BUCKET_0 = (_EXPONENT_BIAS + _HALF_BITS - 1) << _HALF_BITS
_NS_PER_US = 1000


def bucket_of(values_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of each latency; those outside the range go to the nearest bucket inside.

    Args:
        values_us: (n,) microseconds.
    """
    clipped = np.clip(values_us, 0, HIGHEST_US)
    # A float begins as a bucket does: its power of two, then where it lies between two powers.
    leading = clipped.astype(np.float64).view(np.int64) >> (_MANTISSA_BITS - _HALF_BITS)
    return np.where(clipped < _HALF, clipped, leading - _LEADING_OF_BUCKET_0)


def bucket_of_nanoseconds(spans_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of each time span, rounded to the nearest microsecond."""
    return bucket_of((spans_ns + _NS_PER_US // 2) // _NS_PER_US)


def lowest_value_us(buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest latency that falls into each bucket."""
    shift = np.maximum((buckets >> _HALF_BITS) - 1, 0)
    lowest_us: NDArray[np.int64] = (buckets - (shift << _HALF_BITS)) << shift
    return lowest_us


def highest_value_us(buckets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest whole latency that falls into each bucket."""
    return lowest_value_us(buckets + 1) - 1


def of_nanoseconds(spans_ns: NDArray[np.int64]) -> SparseHistogram:
    """Histogram of time spans, rounded to the nearest microsecond."""
    buckets, counts = np.unique(bucket_of_nanoseconds(spans_ns), return_counts=True)
    return SparseHistogram(tuple(buckets.tolist()), tuple(counts.tolist()))


def merge(histograms: Iterable[SparseHistogram]) -> SparseHistogram:
    """Add histograms up; counts are kept exactly."""
    parts = [one for one in histograms if one.buckets]
    if len(parts) == 1:
        return parts[0]
    buckets = integers(itertools.chain.from_iterable(one.buckets for one in parts))
    counts = integers(itertools.chain.from_iterable(one.counts for one in parts))
    # The sums go through floats, which hold whole numbers up to 2**53.
    sums = np.bincount(buckets, weights=counts).astype(np.int64)
    filled = np.flatnonzero(sums)
    return SparseHistogram(tuple(filled.tolist()), tuple(sums[filled].tolist()))


def integers(values: Iterable[int]) -> NDArray[np.int64]:
    """An array of Python's integers; `struct` packs them three times as fast as numpy."""
    held = tuple(values)
    return np.frombuffer(struct.pack(f"{len(held)}q", *held), dtype=np.int64)


def total(histogram: SparseHistogram) -> int:
    """How many values it holds."""
    return sum(histogram.counts)


def value_at(histogram: SparseHistogram, quantile: float) -> float | None:
    """The quantile (0 to 1) in milliseconds, at its bucket's upper edge; None where it is empty."""
    count = total(histogram)
    if not count:
        return None
    # 0.55 * 100 is a hair above 55: what floats add must not ask for one value more.
    rank = max(1, math.ceil(quantile * count * (1 - 1e-12)))
    place = int(np.searchsorted(np.cumsum(histogram.counts), rank))
    return float(highest_value_us(np.array([histogram.buckets[place]]))[0]) / _NS_PER_US


def mean_ms(histogram: SparseHistogram) -> float | None:
    """Mean in milliseconds, each value at the middle of its bucket; None where it is empty."""
    if not histogram.buckets:
        return None
    buckets = integers(histogram.buckets)
    middles_us = (lowest_value_us(buckets) + highest_value_us(buckets)) / 2
    return float(np.average(middles_us, weights=histogram.counts)) / _NS_PER_US


def encode(histogram: SparseHistogram) -> str:
    """HdrHistogram's V2 compressed form in base64."""
    full = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_FIGURES)
    lowest = lowest_value_us(np.array(histogram.buckets, dtype=np.int64)).tolist()
    for value, count in zip(lowest, histogram.counts, strict=True):
        full.record_value(value, count)
    text: str = full.encode().decode("ascii")
    return text


def decode(encoded: str) -> SparseHistogram:
    """Read what `encode` wrote, or any histogram of the same layout."""
    counts = np.array(HdrHistogram.decode(encoded).counts, dtype=np.int64)
    filled = np.flatnonzero(counts)
    return SparseHistogram(tuple(filled.tolist()), tuple(counts[filled].tolist()))

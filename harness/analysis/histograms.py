"""A window's latencies as a matrix of counts: one row per block of time, one column per value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from harness import hdr
from harness.types import SparseHistogram

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
    """(blocks, values)."""
    dropped: Floats
    """(blocks,) requests that fell due and were never sent."""

    @classmethod
    def of(
        cls, slices: Sequence[SparseHistogram], dropped: Sequence[int] = (), *, blocks: int
    ) -> Self:
        """Merge a window's slices into at most so many blocks; slices may be empty.

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
        """(blocks,) latencies, added up."""
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

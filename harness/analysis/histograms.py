"""HDR histograms as arrays: one row a time block, one column a recorded value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockCounts:
    """How often each latency was recorded in each block; blocks without requests are left out.

    A recorded value stands for a bin 0.1% wide. Quantiles are read at the bin's upper edge (the
    convention of HdrHistogram, and the cautious one), the mean at its middle.
    """

    upper_us: NDArray[np.float64]
    """(values,) ascending."""
    lower_us: NDArray[np.float64]
    counts: NDArray[np.int64]
    """(blocks, values)."""

    @classmethod
    def decode(cls, histograms: Sequence[str]) -> Self:
        """Decode histograms of one layout, in time order."""
        decoded = [HdrHistogram.decode(encoded) for encoded in histograms]
        decoded = [histogram for histogram in decoded if histogram.get_total_count()]
        if not decoded:
            return cls(np.empty(0), np.empty(0), np.empty((0, 0), dtype=np.int64))
        bins = np.stack([np.array(histogram.counts, dtype=np.int64) for histogram in decoded])
        recorded = np.flatnonzero(bins.any(axis=0))
        layout = decoded[0]
        lower = [layout.get_value_from_index(int(index)) for index in recorded]
        upper = [layout.get_highest_equivalent_value(value) for value in lower]
        return cls(np.array(upper, float), np.array(lower, float), bins[:, recorded])

    @property
    def total(self) -> int:
        """Number of requests."""
        return int(self.counts.sum())

    @property
    def block_sizes(self) -> NDArray[np.int64]:
        """(blocks,) requests of each block."""
        sizes: NDArray[np.int64] = self.counts.sum(axis=1)
        return sizes

    @property
    def block_sums_us(self) -> NDArray[np.float64]:
        """(blocks,) latencies of each block, added up."""
        sums: NDArray[np.float64] = self.counts @ ((self.lower_us + self.upper_us) / 2)
        return sums

    def value_at(self, rank: int) -> float:
        """The `rank`-th smallest latency in microseconds; ranks count from 1."""
        cumulative = self.counts.sum(axis=0).cumsum()
        return float(self.upper_us[np.searchsorted(cumulative, rank)])

    def exceedances(self, threshold_us: float) -> NDArray[np.int64]:
        """(blocks,) how many requests of each block took longer than the threshold."""
        over: NDArray[np.int64] = self.counts[:, self.upper_us > threshold_us].sum(axis=1)
        return over

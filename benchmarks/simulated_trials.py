"""Whole trials on a simulated queue: the looks, the bounds, and what they would decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from known_queues import QUANTILE, Floats, KnownQueue
from numpy.typing import NDArray

from harness import hdr
from harness.analysis.percentiles import BLOCKS, UNBOUNDED_US, BlockCounts, quantile_bounds_us
from harness.analysis.steady_state import LookSchedule
from harness.types import SparseHistogram

SLICE_S = 0.05
"""As in the harness's trials."""
_TRIALS_AT_ONCE = 50


@dataclass(frozen=True)
class Bounds:
    """The bounds of p95 that many trials of one queue saw, each at every look."""

    looks_s: Floats
    """(looks,)."""
    low_ms: Floats
    """(trials, looks)."""
    high_ms: Floats

    def decided(self, bound_ms: float) -> tuple[Floats, Floats]:
        """When each trial of `p95 < bound_ms` would have passed, and failed; infinite for never.

        A trial ends at its first decision: of the two times one at least is infinite.
        """
        passed = self._first(self.high_ms < bound_ms)
        failed = self._first(self.low_ms >= bound_ms)
        return (
            np.where(passed <= failed, passed, np.inf),
            np.where(failed < passed, failed, np.inf),
        )

    def _first(self, holds: NDArray[np.bool_]) -> Floats:
        times: Floats = np.where(holds, self.looks_s, np.inf).min(axis=1)
        return times


def run_trials(queue: KnownQueue, schedule: LookSchedule, *, trials: int, seed: int) -> Bounds:
    """Simulate trials and bound p95 at every look, as `harness.analysis.percentiles` does."""
    rng = np.random.default_rng(seed)
    seen: list[list[tuple[float, float]]] = []
    while len(seen) < trials:
        some = min(_TRIALS_AT_ONCE, trials - len(seen))
        arrivals_s, latencies_s = queue.simulate(rng, some, schedule.longest_s)
        for arrived, took in zip(arrivals_s, latencies_s, strict=True):
            slices = sliced(arrived, took, schedule.longest_s)
            seen.append(list(_at_looks(slices, schedule, is_closed=queue.is_closed)))
    bounds = np.array(seen)
    return Bounds(np.array(schedule.looks), bounds[..., 0], bounds[..., 1])


def sliced(arrivals_s: Floats, latencies_s: Floats, window_s: float) -> list[SparseHistogram]:
    """Histograms of the latencies of each slice of the window."""
    edges = np.searchsorted(arrivals_s, np.arange(round(window_s / SLICE_S) + 1) * SLICE_S)
    buckets = hdr.bucket_of(np.rint(latencies_s * 1e6).astype(np.int64))
    histograms = []
    for start, end in pairwise(edges.tolist()):
        filled, counts = np.unique(buckets[start:end], return_counts=True)
        histograms.append(SparseHistogram(tuple(filled.tolist()), tuple(counts.tolist())))
    return histograms


def _at_looks(
    slices: list[SparseHistogram], schedule: LookSchedule, *, is_closed: bool
) -> Iterator[tuple[float, float]]:
    """Bounds of p95 at each look; none where no request came."""
    for look_s in schedule.looks:
        blocks = BlockCounts.of(slices[: round(look_s / SLICE_S)], blocks=BLOCKS)
        bounds_us = UNBOUNDED_US
        if blocks.answered:
            bounds_us = quantile_bounds_us(
                blocks,
                QUANTILE,
                schedule.confidence_per_look,
                block_s=look_s / BLOCKS if is_closed else None,
            )
        yield bounds_us[0] / 1e3, bounds_us[1] / 1e3

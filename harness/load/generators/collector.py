"""What the parent knows of a running load: the processes' slices, joined as they come in."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from harness import hdr
from harness.load.engine.recorder import dense, merge_slices
from harness.load.generators.messages import LoadProgress
from harness.types import GeneratorHealth, Latencies, SparseHistogram, TimeSlice

_BUCKETS = tuple(range(1 << hdr.INDEX_BITS))
"""Every bucket index there is, once: a load of minutes holds each of them thousands of times, and
as an object of its own each time it would take twice what the slices themselves take."""


class Collector:
    """Sums the slices of several processes, and keeps how each process fares.

    Args:
        workers: indices of the processes that take part.
        start_ns: of slice 0.
        slice_ns: length of a slice.
    """

    def __init__(self, workers: Sequence[int], start_ns: int, slice_ns: int) -> None:
        self._start_ns, self._slice_ns = start_ns, slice_ns
        self._slices: dict[int, TimeSlice] = {}
        self._complete_before_ns = dict.fromkeys(workers, start_ns)
        self._progress: dict[int, list[LoadProgress]] = defaultdict(list)

    def add(self, worker: int, progress: LoadProgress) -> None:
        """Take in what a process reported."""
        known = [self._slices[one.index] for one in progress.slices if one.index in self._slices]
        for one in merge_slices([known, progress.slices]):
            self._slices[one.index] = _lean(one)
        self._complete_before_ns[worker] = progress.complete_before_ns
        # The slices are kept once, in `_slices`: a long load would hold every one of them twice.
        self._progress[worker].append(dataclasses.replace(progress, slices=()))

    def complete(self) -> list[TimeSlice]:
        """The slices of which every request has ended in every process, from slice 0 on.

        Slices that are still in flight would lack their slowest requests.
        """
        count = (min(self._complete_before_ns.values()) - self._start_ns) // self._slice_ns
        return self.until(count)

    def until(self, count: int) -> list[TimeSlice]:
        """The first so many slices, those without requests included."""
        within = [one for index, one in sorted(self._slices.items()) if index < count]
        return dense(within, max(0, count))

    def health(self, window_start_ns: int, window_end_ns: int) -> tuple[GeneratorHealth, ...]:
        """How each process fared between two instants."""
        return tuple(
            _health_of(reports, window_start_ns, window_end_ns)
            for _, reports in sorted(self._progress.items())
        )


def _lean(one: TimeSlice) -> TimeSlice:
    return dataclasses.replace(one, ok=_lean_latencies(one.ok), failed=_lean_latencies(one.failed))


def _lean_latencies(latencies: Latencies) -> Latencies:
    return Latencies({name: _lean_histogram(one) for name, one in latencies.spans.items()})


def _lean_histogram(histogram: SparseHistogram) -> SparseHistogram:
    return SparseHistogram(
        tuple([_BUCKETS[bucket] for bucket in histogram.buckets]), histogram.counts
    )


def _health_of(
    reports: Sequence[LoadProgress], window_start_ns: int, window_end_ns: int
) -> GeneratorHealth:
    """CPU between the reports nearest the window's edges, and the lag seen between them."""
    first = max((at for at, one in enumerate(reports) if one.at_ns <= window_start_ns), default=0)
    last = min(
        (at for at, one in enumerate(reports) if one.at_ns >= window_end_ns),
        default=len(reports) - 1,
    )
    before, after = reports[first], reports[last]
    elapsed_s = (after.at_ns - before.at_ns) / 1e9
    return GeneratorHealth(
        cpu_cores=(after.cpu_s - before.cpu_s) / elapsed_s if elapsed_s > 0 else 0.0,
        loop_lag=hdr.merge(one.loop_lag for one in reports[first + 1 : last + 1]),
        memory_bytes=after.memory_bytes,
    )

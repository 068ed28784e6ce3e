"""Slices of several takes, processes or machines, added up exactly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from harness import hdr
from harness.types import Latencies, SparseHistogram, StreamCounts, TimeSlice
from harness.types.streams import NO_STREAMS


def _merged(index: int, parts: Sequence[TimeSlice]) -> TimeSlice:
    if len(parts) == 1:
        return parts[0] if parts[0].index == index else replace(parts[0], index=index)
    return TimeSlice(
        index=index,
        ok=merged_latencies(one.ok for one in parts),
        failed=merged_latencies(one.failed for one in parts),
        failures=merged_failures(parts),
        dropped=sum(one.dropped for one in parts),
        completed=sum(one.completed for one in parts),
        inferences=sum(one.inferences for one in parts),
        good=sum(one.good for one in parts),
        streams=merged_streams(parts),
    )


def merged_failures(slices: Iterable[TimeSlice]) -> dict[str, int]:
    """Failures of several slices by kind."""
    failures: Counter[str] = Counter()
    for one in slices:
        failures.update(one.failures)
    return dict(failures)


def merged_streams(slices: Iterable[TimeSlice]) -> StreamCounts:
    """What was seen of the streams of several slices."""
    return sum((one.streams for one in slices if one.streams != NO_STREAMS), start=NO_STREAMS)


def merged_latencies(parts: Iterable[Latencies]) -> Latencies:
    """Each span's histograms added up: `merged_latencies(one.ok for one in slices)`."""
    by_span: defaultdict[str, list[SparseHistogram]] = defaultdict(list)
    for one in parts:
        for name, histogram in one.spans.items():
            by_span[name].append(histogram)
    return Latencies({name: hdr.merge(histograms) for name, histograms in by_span.items()})


def dense(slices: Iterable[TimeSlice], count: int) -> list[TimeSlice]:
    """The slices 0 to `count`, with empty ones in the gaps; those beyond `count` are kept."""
    known = {one.index: one for one in slices}
    end = max([count, *(index + 1 for index in known)])
    return [known.get(index) or TimeSlice(index) for index in range(end)]


_BUCKETS = tuple(range(1 << hdr.INDEX_BITS))
"""Every bucket index there is, once: a load of minutes holds each of them thousands of times, and
as its own object each time it would take twice what the slices themselves take."""


ADDED_TOGETHER = 64
"""So many slices at one place are added up: each takes a few KiB until it is in the sum."""


class SliceSums:
    """Slices of several takes, processes or machines, in any order, added up at their places.

    All must count from the same start in slices of the same length. Every count is kept exactly.
    What comes at one place is added up together, when somebody looks or when it has become much: a
    sum of many workers' slices is large, and adding them one by one would go over it each time.
    """

    def __init__(self, slices: Iterable[TimeSlice] = ()) -> None:
        self._sums: dict[int, TimeSlice] = {}
        self._added: defaultdict[int, list[TimeSlice]] = defaultdict(list)
        """What is in no sum yet, by its place."""
        self.add(slices)

    def __len__(self) -> int:
        """How many places anything was added at."""
        return len(self._sums.keys() | self._added.keys())

    def __iter__(self) -> Iterator[TimeSlice]:
        """The sums, each with its place as its index, in order."""
        return iter(self.before(self.last + 1))

    @property
    def last(self) -> int:
        """The last place that anything was added at; 0 where nothing was."""
        return max((*self._sums, *self._added), default=0)

    def before(self, place: int) -> list[TimeSlice]:
        """The sums that lie before a place, in order."""
        for earlier in [one for one in self._added if one < place]:
            self._add_up(earlier)
        return [one for at, one in sorted(self._sums.items()) if at < place]

    def add(
        self, slices: Iterable[TimeSlice], place_of: Callable[[int], int] = lambda index: index
    ) -> set[int]:
        """Add each slice to the sum at its place, which its index says.

        Returns:
            The places that changed.
        """
        changed = set()
        for one in slices:
            place = place_of(one.index)
            changed.add(place)
            self._added[place].append(one)
            if len(self._added[place]) >= ADDED_TOGETHER:
                self._add_up(place)
        return changed

    def at(self, place: int) -> TimeSlice:
        """What was added up at a place; an empty slice where nothing was."""
        self._add_up(place)
        return self._sums.get(place) or TimeSlice(place)

    def pop(self, place: int) -> TimeSlice:
        """Return what was added up at a place, and remove it."""
        self._add_up(place)
        return self._sums.pop(place, None) or TimeSlice(place)

    def forget_before(self, place: int) -> None:
        """Forget what lies before a place."""
        for kept in (self._sums, self._added):
            for earlier in [one for one in kept if one < place]:
                del kept[earlier]

    def _add_up(self, place: int) -> None:
        if added := self._added.pop(place, None):
            known = [self._sums[place]] if place in self._sums else []
            self._sums[place] = _lean(_merged(place, [*known, *added]))


def added_up(slices: Iterable[TimeSlice], index: int = 0) -> TimeSlice:
    """Slices in one, wherever they lie in time."""
    parts = list(slices)
    return _merged(index, parts) if parts else TimeSlice(index)


def _lean(one: TimeSlice) -> TimeSlice:
    return replace(one, ok=_lean_latencies(one.ok), failed=_lean_latencies(one.failed))


def _lean_latencies(latencies: Latencies) -> Latencies:
    return Latencies({name: _lean_histogram(one) for name, one in latencies.spans.items()})


def _lean_histogram(histogram: SparseHistogram) -> SparseHistogram:
    return SparseHistogram(
        tuple([_BUCKETS[bucket] for bucket in histogram.buckets]), histogram.counts
    )

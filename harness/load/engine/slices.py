"""Slices of several takes, processes or machines, added up exactly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from harness import hdr
from harness.types import Latencies, SparseHistogram, StreamCounts, TimeSlice
from harness.types.streams import NO_STREAMS


def merge_slices(parts: Iterable[Iterable[TimeSlice]]) -> list[TimeSlice]:
    """Add up the slices of several takes, processes or machines; in order of time.

    All parts must count from the same start in slices of the same length. Every count is kept
    exactly, so the order of the parts does not matter.
    """
    by_index: defaultdict[int, list[TimeSlice]] = defaultdict(list)
    for part in parts:
        for one in part:
            by_index[one.index].append(one)
    return [_merged(index, same) for index, same in sorted(by_index.items())]


def _merged(index: int, parts: Sequence[TimeSlice]) -> TimeSlice:
    if len(parts) == 1:
        return parts[0]
    failures: Counter[str] = Counter()
    for one in parts:
        failures.update(one.failures)
    return TimeSlice(
        index=index,
        ok=merged_latencies(one.ok for one in parts),
        failed=merged_latencies(one.failed for one in parts),
        failures=dict(failures),
        dropped=sum(one.dropped for one in parts),
        completed=sum(one.completed for one in parts),
        inferences=sum(one.inferences for one in parts),
        good=sum(one.good for one in parts),
        streams=merged_streams(parts),
    )


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

"""A load over time: rows of tidy tables, and a history in bounded memory.

The history's slices widen as the load goes on, so that a soak of days takes no more room than one
of minutes: where there would be more than `MOST` slices every two of them become one, twice as
long, and every count is kept exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from harness import hdr
from harness.load.engine.slices import SliceSums, dense, merged_failures, merged_streams
from harness.metrics import SHOWN_PERCENTILES
from harness.types import (
    ITL,
    RESPONSE,
    SPANS,
    TTFT,
    GeneratorHealth,
    LoadResult,
    TimeSlice,
)
from harness.types.metrics import PERCENTILES
from harness.types.streams import NO_STREAMS

_QUANTILES = {name: PERCENTILES[name] for name in SHOWN_PERCENTILES}


class Phase(StrEnum):
    """Where a stretch lies in its load."""

    WARM_UP = "warm-up"
    MEASURED = "measured"
    AFTER = "after"
    """Behind the window: what was still in flight ends here."""


def slice_rows(load: LoadResult) -> list[dict[str, object]]:
    """A row for every slice in order of time, where a second is too coarse.

    Times are in seconds since the load's start; successes are counted where they completed,
    failures and the mean response latency of successes (None without any) where they fell due.
    """
    return [
        {
            "start_s": round(one.index * load.slice_s, 6),
            "phase": str(phase),
            "completed": one.completed,
            "inferences": one.inferences,
            "mean_ms": hdr.mean_ms(one.ok.response),
            "failures": sum(one.failures.values()),
            "dropped": one.dropped,
        }
        for phase, slices in _phases(load)
        for one in slices
    ]


def series_rows(load: LoadResult) -> list[dict[str, object]]:
    """A row for every second in order of time, counted as in `slice_rows`.

    Seconds are counted from the start of each phase, so that none holds slices of two; the last of
    a phase may be shorter, and rates are per second all the same. There is a column
    `failed_<kind>` for each kind of the load, and columns such as `service_p95_ms` for each span
    that it has beside the response.
    """
    kinds = sorted({kind for one in load.slices for kind in one.failures})
    known = {name for one in load.slices for name in one.ok.spans} - {RESPONSE}
    spans = [name for name in SPANS if name in known]
    return [
        {
            "start_s": round(slices[0].index * load.slice_s, 6),
            "length_s": len(slices) * load.slice_s,
            "phase": str(phase),
            **_stretch(slices, len(slices) * load.slice_s),
            **{
                f"failed_{kind}": sum(one.failures.get(kind, 0) for one in slices) for kind in kinds
            },
            **{
                f"{span}_{name}_ms": value_ms
                for span in spans
                for name, value_ms in percentiles_ms(slices, span).items()
            },
        }
        for phase, whole in _phases(load)
        for slices in _chunks(whole, max(1, round(1 / load.slice_s)))
    ]


def _phases(load: LoadResult) -> Iterator[tuple[Phase, list[TimeSlice]]]:
    slice_ns = load.slice_s * 1e9
    first = round((load.window_start_ns - load.start_ns) / slice_ns)
    last = round((load.window_end_ns - load.start_ns) / slice_ns)
    yield Phase.WARM_UP, [one for one in load.slices if one.index < first]
    yield Phase.MEASURED, list(load.window)
    yield Phase.AFTER, [one for one in load.slices if one.index >= last]


def _chunks(slices: Sequence[TimeSlice], size: int) -> Iterator[Sequence[TimeSlice]]:
    for first in range(0, len(slices), size):
        yield slices[first : first + size]


def _stretch(slices: Sequence[TimeSlice], length_s: float) -> dict[str, Any]:
    """What tables and charts say alike of a stretch of a load."""
    response = percentiles_ms(slices, RESPONSE)
    return {
        "requests_per_s": sum(one.completed for one in slices) / length_s,
        "inferences_per_s": sum(one.inferences for one in slices) / length_s,
        **{f"{name}_ms": value_ms for name, value_ms in response.items()},
        "dropped": sum(one.dropped for one in slices),
    }


MOST = 512
POINT_S = 1.0
"""Shortest stretch of a chart's point, in seconds."""


@dataclass(frozen=True)
class StreamPoint:
    """What a stretch of a load of streams adds to its point."""

    output_tokens_per_s: float
    """By when each token arrived."""
    good_per_s: float
    """Requests scheduled in it that met every clause on a latency."""
    spans_ms: Mapping[str, Mapping[str, float | None]]
    """By span (TTFT, ITL), its percentiles of the successes scheduled in it; None without any."""


@dataclass(frozen=True)
class HistoryPoint:
    """A stretch of the load as a chart draws it."""

    start_s: float
    """Seconds since the load's start."""
    length_s: float
    requests_per_s: float
    """Successes that completed in it, as are the inferences."""
    inferences_per_s: float
    mean_ms: float | None
    """Response latency of the successes scheduled in it; None without any."""
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    failures: Mapping[str, int]
    """Failures by kind, of requests scheduled in this stretch."""
    dropped: int
    stream: StreamPoint | None = None
    """None where no answer came token by token."""


class LoadHistory:
    """Sums slices of one load as they are reported, in any order.

    Args:
        slice_s: length of a slice that is added.
    """

    def __init__(self, slice_s: float) -> None:
        self._reported_s = slice_s
        self._factor = 1
        self._slices = SliceSums()
        self._points: dict[int, HistoryPoint] = {}
        """Points of the stretches that nothing was added to since, by their place."""

    @property
    def slice_s(self) -> float:
        """Length of a slice by now."""
        return self._reported_s * self._factor

    def add(self, slices: Iterable[TimeSlice]) -> None:
        """Take in what was reported."""
        self._add(slices, self._factor)
        while self._slices.last >= MOST:
            narrow, self._slices = self._slices, SliceSums()
            self._factor *= 2
            self._points.clear()
            self._add(narrow, 2)

    def load(
        self, first_s: float, start_s: float, end_s: float, generators: Sequence[GeneratorHealth]
    ) -> LoadResult:
        """The part of the load that a trial is made of.

        Args:
            first_s: where the trial's warm-up begins.
            start_s: where its window begins; a slice that it cuts belongs to the warm-up.
            end_s: where its window ends; a slice that it cuts is behind the window.
            generators: how each process fared.
        """
        slice_s = self.slice_s
        first, last = int(first_s / slice_s), int(end_s / slice_s + 1e-6)
        start = -int(-(start_s / slice_s - 1e-6) // 1)
        whole = dense(self._slices.before(last), last)
        return LoadResult(
            start_ns=0,
            slice_s=slice_s,
            slices=tuple(replace(one, index=one.index - first) for one in whole[first:]),
            window_start_ns=round((start - first) * slice_s * 1e9),
            window_end_ns=round((max(start, last) - first) * slice_s * 1e9),
            generators=tuple(generators),
        )

    def points(self, end_s: float) -> list[HistoryPoint]:
        """All stretches that have ended by then, those without requests included."""
        count = max(1, round(POINT_S / self.slice_s))
        return [self._point(at, count) for at in range(int(end_s / (count * self.slice_s)))]

    def _add(self, slices: Iterable[TimeSlice], narrower: int) -> None:
        """Slices that are so many times narrower than those that are kept."""
        changed = self._slices.add(slices, lambda index: index // narrower)
        for place in changed:
            self._points.pop(place // max(1, round(POINT_S / self.slice_s)), None)

    def _point(self, at: int, count: int) -> HistoryPoint:
        if at not in self._points:
            within = range(at * count, (at + 1) * count)
            slices = [self._slices.at(index) for index in within]
            self._points[at] = _point_of(slices, at * count * self.slice_s, count * self.slice_s)
        return self._points[at]


def _point_of(slices: Sequence[TimeSlice], start_s: float, length_s: float) -> HistoryPoint:
    return HistoryPoint(
        start_s=start_s,
        length_s=length_s,
        mean_ms=hdr.mean_ms(hdr.merge(one.ok.response for one in slices)),
        failures=merged_failures(slices),
        stream=_stream_point(slices, length_s),
        **_stretch(slices, length_s),
    )


def _stream_point(slices: Sequence[TimeSlice], length_s: float) -> StreamPoint | None:
    if merged_streams(slices) == NO_STREAMS:
        return None
    return StreamPoint(
        output_tokens_per_s=sum(one.streams.output_tokens for one in slices) / length_s,
        good_per_s=sum(one.good for one in slices) / length_s,
        spans_ms={name: percentiles_ms(slices, name) for name in (TTFT, ITL)},
    )


def percentiles_ms(slices: Iterable[TimeSlice], span: str) -> dict[str, float | None]:
    """The percentiles that are shown, of the successes' values of a span; None without any."""
    values = hdr.merge(one.ok.of(span) for one in slices)
    return {name: hdr.value_at(values, quantile) for name, quantile in _QUANTILES.items()}

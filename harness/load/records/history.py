"""A load over time in bounded memory: slices that widen as the load goes on.

A soak of days takes no more room than one of minutes. Where there would be more than `MOST`
slices every two of them become one, twice as long; every count is kept exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness import hdr
from harness.load.engine.recorder import dense, merge_slices
from harness.types import GeneratorHealth, LoadResult, TimeSlice

MOST = 512
POINT_S = 1.0
"""A point of a chart is at least so long."""


@dataclass(frozen=True)
class HistoryPoint:
    """A stretch of the load as a chart draws it."""

    start_s: float
    """From the load's start."""
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
    """By kind, of requests scheduled in it."""
    dropped: int


class LoadHistory:
    """Sums slices of one load as they are reported, in any order.

    Args:
        slice_s: length of a slice that is added.
    """

    def __init__(self, slice_s: float) -> None:
        self._reported_s = slice_s
        self._factor = 1
        self._slices: dict[int, TimeSlice] = {}
        self._points: dict[int, HistoryPoint] = {}
        """Of stretches that nothing was added to since."""

    @property
    def slice_s(self) -> float:
        """Length of a slice by now."""
        return self._reported_s * self._factor

    def add(self, slices: Iterable[TimeSlice]) -> None:
        """Take in what was reported."""
        for one in slices:
            self._merge(one.index // self._factor, one)
        while self._slices and max(self._slices) >= MOST:
            self._widen()

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
        whole = dense((one for index, one in self._slices.items() if index < last), last)
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

    def _merge(self, index: int, one: TimeSlice) -> None:
        moved = replace(one, index=index)
        known = self._slices.get(index)
        self._slices[index] = moved if known is None else merge_slices([[known], [moved]])[0]
        self._points.pop(index // max(1, round(POINT_S / self.slice_s)), None)

    def _widen(self) -> None:
        narrow, self._slices = self._slices, {}
        self._factor *= 2
        self._points.clear()
        for index, one in narrow.items():
            self._merge(index // 2, one)

    def _point(self, at: int, count: int) -> HistoryPoint:
        if at not in self._points:
            within = range(at * count, (at + 1) * count)
            slices = [self._slices[index] for index in within if index in self._slices]
            self._points[at] = _point_of(slices, at * count * self.slice_s, count * self.slice_s)
        return self._points[at]


def _point_of(slices: Sequence[TimeSlice], start_s: float, length_s: float) -> HistoryPoint:
    response = hdr.merge(one.ok.response for one in slices)
    failures: Counter[str] = Counter()
    for one in slices:
        failures.update(one.failures)
    return HistoryPoint(
        start_s=start_s,
        length_s=length_s,
        requests_per_s=sum(one.completed for one in slices) / length_s,
        inferences_per_s=sum(one.inferences for one in slices) / length_s,
        mean_ms=hdr.mean_ms(response),
        p50_ms=hdr.value_at(response, 0.50),
        p95_ms=hdr.value_at(response, 0.95),
        p99_ms=hdr.value_at(response, 0.99),
        failures=dict(failures),
        dropped=sum(one.dropped for one in slices),
    )

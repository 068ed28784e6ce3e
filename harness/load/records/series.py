"""A load second by second and slice by slice, as rows of tidy tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from harness import hdr
from harness.types import LoadResult, TimeSlice


class Phase(StrEnum):
    """Where a second lies in its load."""

    WARM_UP = "warm-up"
    MEASURED = "measured"
    AFTER = "after"
    """Behind the window: what was still in flight ends here."""


@dataclass(frozen=True)
class SecondOfLoad:
    """One second, or what was left of its phase; rates are per second either way."""

    start_s: float
    """From the load's start."""
    length_s: float
    phase: Phase
    requests_per_s: float
    """Successes that completed in it, as are the inferences."""
    inferences_per_s: float
    p50_ms: float | None
    """Response latency of the successes scheduled in it; None without any."""
    p95_ms: float | None
    p99_ms: float | None
    failures: Mapping[str, int]
    """By kind, of requests scheduled in it."""
    dropped: int


@dataclass(frozen=True)
class SliceOfLoad:
    """One slice, where a second is too coarse: the warm-up that was cut, and what came next."""

    start_s: float
    """From the load's start."""
    phase: Phase
    completed: int
    """Successes that completed in it, as are the inferences."""
    inferences: int
    mean_ms: float | None
    """Response latency of the successes scheduled in it; None without any."""
    failures: int
    """Of requests scheduled in it."""
    dropped: int


def per_slice(load: LoadResult) -> list[SliceOfLoad]:
    """Every slice of a load, warm-up included, in order of time."""
    return [
        SliceOfLoad(
            start_s=round(one.index * load.slice_s, 6),
            phase=phase,
            completed=one.completed,
            inferences=one.inferences,
            mean_ms=hdr.mean_ms(one.ok.response),
            failures=sum(one.failures.values()),
            dropped=one.dropped,
        )
        for phase, slices in _phases(load)
        for one in slices
    ]


def slice_rows(load: LoadResult) -> list[dict[str, object]]:
    """`per_slice` as rows of a tidy table."""
    return [asdict(one) | {"phase": str(one.phase)} for one in per_slice(load)]


def per_second(load: LoadResult) -> list[SecondOfLoad]:
    """The series of a load in order of time.

    Seconds are counted from the start of each phase, so that none holds slices of two; the last of
    a phase may be shorter.
    """
    return [
        _second(load.slice_s, phase, slices)
        for phase, whole in _phases(load)
        for slices in _chunks(whole, max(1, round(1 / load.slice_s)))
    ]


def series_rows(load: LoadResult) -> list[dict[str, object]]:
    """`per_second` as rows of a tidy table: a column `failed_<kind>` for each kind of the load."""
    seconds = per_second(load)
    kinds = sorted({kind for one in seconds for kind in one.failures})
    return [_row(one, kinds) for one in seconds]


def _row(second: SecondOfLoad, kinds: Sequence[str]) -> dict[str, object]:
    row: dict[str, object] = asdict(second)
    del row["failures"]
    return (
        row
        | {"phase": str(second.phase)}
        | {f"failed_{kind}": second.failures.get(kind, 0) for kind in kinds}
    )


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


def _second(slice_s: float, phase: Phase, slices: Sequence[TimeSlice]) -> SecondOfLoad:
    length_s = len(slices) * slice_s
    response = hdr.merge(one.ok.response for one in slices)
    failures: Counter[str] = Counter()
    for one in slices:
        failures.update(one.failures)
    return SecondOfLoad(
        start_s=round(slices[0].index * slice_s, 6),
        length_s=length_s,
        phase=phase,
        requests_per_s=sum(one.completed for one in slices) / length_s,
        inferences_per_s=sum(one.inferences for one in slices) / length_s,
        p50_ms=hdr.value_at(response, 0.50),
        p95_ms=hdr.value_at(response, 0.95),
        p99_ms=hdr.value_at(response, 0.99),
        failures=dict(failures),
        dropped=sum(one.dropped for one in slices),
    )

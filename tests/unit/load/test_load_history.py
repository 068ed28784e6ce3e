"""A load over time in bounded memory: nothing is lost, and a window holds whole slices only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness import hdr
from harness.load.records.series import MOST, LoadHistory
from harness.types import SPANS, Latencies, SparseHistogram, TimeSlice

TEN_MS = hdr.of_nanoseconds(hdr.integers([10_000_000]))


def slice_at(index: int, count: int = 1) -> TimeSlice:
    response = SparseHistogram(TEN_MS.buckets, (count,))
    return TimeSlice(index, ok=Latencies(dict.fromkeys(SPANS, response)), completed=count)


@given(st.lists(st.tuples(st.integers(0, 5 * MOST), st.integers(1, 9)), min_size=1, max_size=60))
def test_every_count_is_kept_however_long_the_load(reported: list[tuple[int, int]]) -> None:
    history = LoadHistory(0.25)
    for index, count in reported:
        history.add([slice_at(index, count)])
    end_s = 6 * MOST * 0.25
    load = history.load(0.0, 0.0, end_s, ())
    assert load.completed == sum(count for _, count in reported)
    assert (history.slice_s > 0.25) == any(index >= MOST for index, _ in reported)
    points = history.points(end_s)
    assert round(sum(one.requests_per_s * one.length_s for one in points)) == load.completed


def test_a_window_leaves_out_slices_that_its_edges_cut() -> None:
    history = LoadHistory(1.0)
    history.add(slice_at(index) for index in range(10))
    load = history.load(1.0, 2.5, 8.5, ())
    assert (load.completed, load.duration_s, load.warmup_s) == (5, 5.0, 2.0)


def test_a_point_is_made_anew_when_more_is_reported_of_it() -> None:
    history = LoadHistory(0.25)
    history.add([slice_at(0)])
    assert history.points(1.0)[0].requests_per_s == 1
    history.add([slice_at(3, 4)])
    point = history.points(1.0)[0]
    assert (point.requests_per_s, point.p95_ms) == (5, hdr.value_at(TEN_MS, 0.95))

"""A load second by second: every request in exactly one row, no row of two phases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import dense
from harness.load.records.series import Phase, series_rows, slice_rows
from harness.load.transports.contract import RequestFailure
from harness.types import LoadResult

SLICE_NS = 50_000_000
START_NS = 3_000_000_000


def load_of(recorder: Recorder, *, window: tuple[int, int], count: int) -> LoadResult:
    """A load of this many slices; the window is given in slices."""
    return LoadResult(
        start_ns=START_NS,
        slice_s=SLICE_NS / 1e9,
        slices=tuple(dense(recorder.take(), count)),
        window_start_ns=START_NS + window[0] * SLICE_NS,
        window_end_ns=START_NS + window[1] * SLICE_NS,
        generators=(),
    )


def steady_load(*, window: tuple[int, int], count: int) -> LoadResult:
    """A hundred requests per second of 3 rows and 20 ms, in every slice."""
    recorder = Recorder(START_NS, SLICE_NS)
    for request in range(count * 5):
        scheduled_ns = START_NS + request * 10_000_000
        recorder.add(scheduled_ns, scheduled_ns, scheduled_ns + 20_000_000, 3)
    return load_of(recorder, window=window, count=count)


def test_seconds_start_anew_in_each_phase() -> None:
    seconds = series_rows(steady_load(window=(25, 57), count=60))
    assert [(one["phase"], one["start_s"], round(one["length_s"], 6)) for one in seconds] == [
        (Phase.WARM_UP, 0, 1),
        (Phase.WARM_UP, 1, 0.25),
        (Phase.MEASURED, 1.25, 1),
        (Phase.MEASURED, 2.25, 0.6),
        (Phase.AFTER, 2.85, 0.2),  # the last requests complete in slice 60
    ]


def test_rates_are_per_second_however_short_the_row() -> None:
    warm, *_, last, after = series_rows(steady_load(window=(20, 52), count=60))
    assert warm["requests_per_s"] == pytest.approx(98)  # the last two have not completed
    assert (last["length_s"], last["requests_per_s"]) == pytest.approx((0.6, 100))
    assert last["inferences_per_s"] == pytest.approx(300)
    assert last["p50_ms"] == last["p99_ms"] == pytest.approx(20, rel=1e-3)
    assert after["phase"] == Phase.AFTER


def test_a_second_without_requests_is_there_and_has_no_latency() -> None:
    recorder = Recorder(START_NS, SLICE_NS)
    recorder.add(START_NS, START_NS, START_NS + 1, 1)
    first, second = series_rows(load_of(recorder, window=(0, 40), count=40))
    assert (first["requests_per_s"], second["requests_per_s"]) == (1, 0)
    assert (second["p50_ms"], second["p95_ms"], second["p99_ms"]) == (None, None, None)
    assert second["dropped"] == 0
    assert list(second)[:9] == [
        "start_s", "length_s", "phase", "requests_per_s", "inferences_per_s",
        "p50_ms", "p95_ms", "p99_ms", "dropped",
    ]  # fmt: skip


def test_rows_have_a_column_for_each_kind_of_failure() -> None:
    recorder = Recorder(START_NS, SLICE_NS)
    late_ns = START_NS + 25 * SLICE_NS
    recorder.fail(START_NS, START_NS, START_NS + 1, RequestFailure("timeout", ""))
    recorder.fail(late_ns, late_ns, late_ns + 1, RequestFailure("http_503", ""))
    recorder.drop(late_ns)
    first, second = series_rows(load_of(recorder, window=(0, 40), count=40))
    assert list(first) == list(second)
    assert (first["failed_timeout"], first["failed_http_503"], first["dropped"]) == (1, 0, 0)
    assert (second["failed_timeout"], second["failed_http_503"], second["dropped"]) == (0, 1, 1)
    assert first["phase"] == "measured"


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 10**9)), max_size=40),
    st.integers(0, 50),
    st.integers(1, 50),
)
def test_no_request_is_lost_or_counted_twice(requests, first: int, length: int) -> None:
    recorder = Recorder(START_NS, SLICE_NS)
    for index, latency_ns in requests:
        scheduled_ns = START_NS + index * SLICE_NS
        recorder.add(scheduled_ns, scheduled_ns, scheduled_ns + latency_ns, 2)
    load = load_of(recorder, window=(first, first + length), count=100)
    seconds = series_rows(load)
    completed = sum(one["requests_per_s"] * one["length_s"] for one in seconds)
    assert completed == pytest.approx(len(requests))
    assert sum(one["length_s"] for one in seconds) == pytest.approx(len(load.slices) * load.slice_s)
    measured = [one for one in seconds if one["phase"] == Phase.MEASURED]
    assert sum(one["requests_per_s"] * one["length_s"] for one in measured) == pytest.approx(
        load.completed
    )


def test_every_slice_has_its_row_and_its_phase() -> None:
    rows = slice_rows(steady_load(window=(20, 50), count=60))
    assert [one["start_s"] for one in rows] == pytest.approx([0.05 * place for place in range(61)])
    assert [sum(one["phase"] == phase for one in rows) for phase in Phase] == [20, 30, 11]
    assert sum(one["completed"] for one in rows) == 300
    assert sum(one["inferences"] for one in rows) == 900
    assert rows[0]["mean_ms"] == pytest.approx(20, rel=1e-3)
    assert rows[60]["mean_ms"] is None  # what ends in it was scheduled before


def test_rows_of_slices_hold_plain_values() -> None:
    recorder = Recorder(START_NS, SLICE_NS)
    recorder.fail(START_NS, START_NS, START_NS + 5_000_000, RequestFailure("timeout", "late"))
    recorder.drop(START_NS + 1)
    (row,) = slice_rows(load_of(recorder, window=(0, 1), count=1))
    assert (row["phase"], row["failures"], row["dropped"]) == ("measured", 1, 1)
    assert row["mean_ms"] is None

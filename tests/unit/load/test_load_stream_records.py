"""What a recorder makes of streams: spans, tokens by when they arrived, goodput by all clauses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import hdr
from harness.load.engine.goodput import meets_all, own_statistic
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import SliceSums
from harness.load.generators.messages import ANSWERS, LoadProgress
from harness.load.records.requests import RecordWriter
from harness.load.transports.contract import ClientLeft, RequestFailure, StreamTokens
from harness.study.clauses import request_bounds
from harness.study.objective import parse_objective
from harness.types import SparseHistogram, StreamCounts, TimeSlice

MS = 1_000_000
SLICE_NS = 50 * MS


def of_ms(*values: float) -> SparseHistogram:
    return hdr.of_nanoseconds(hdr.integers([int(value * MS) for value in values]))


def add_stream(
    recorder: Recorder, due_ms: int, ttft_ms: int, gaps_ms: list[int], tokens: StreamTokens
) -> None:
    """A request that was sent when it was due."""
    spans = {"ttft": [ttft_ms * MS], "itl": [gap * MS for gap in gaps_ms]}
    end_ms = due_ms + ttft_ms + sum(gaps_ms)
    moments = (due_ms * MS, due_ms * MS, end_ms * MS)
    recorder.add_with_spans(*moments, 1, spans, tokens=tokens)


def only(recorder: Recorder, index: int) -> TimeSlice:
    return next(one for one in recorder.take() if one.index == index)


def test_tokens_are_counted_in_the_slice_in_which_they_arrived() -> None:
    """Due at 20 ms; tokens at 40 (two at once), 60, 120 and 121 ms."""
    recorder = Recorder(0, SLICE_NS)
    add_stream(recorder, 20, 20, [20, 60, 1], StreamTokens(7, 5))
    slices = {one.index: one for one in recorder.take()}
    tokens = {index: one.streams.output_tokens for index, one in slices.items()}
    assert tokens == {0: 2, 1: 1, 2: 2}
    assert {index: one.streams.input_tokens for index, one in slices.items()} == {0: 0, 1: 0, 2: 7}
    assert {index: one.streams.closing_ns for index, one in slices.items()} == {0: 0, 1: 0, 2: 0}
    assert slices[0].ok.of("ttft") == of_ms(20)
    assert slices[0].ok.of("itl") == of_ms(20, 60, 1)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(1, 90), st.lists(st.integers(0, 90), max_size=5)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_token_is_lost_whichever_slice_it_arrives_in(
    streams: list[tuple[int, int, list[int]]],
) -> None:
    recorder = Recorder(0, SLICE_NS)
    expected: dict[int, int] = {}
    for due, ttft, gaps in streams:
        add_stream(recorder, due, ttft, gaps, StreamTokens(1, 1 + len(gaps)))
        for at in np.cumsum([due + ttft, *gaps]).tolist():
            expected[at // 50] = expected.get(at // 50, 0) + 1
    found = {one.index: one.streams.output_tokens for one in recorder.take()}
    assert {index: count for index, count in found.items() if count} == expected


def test_irregular_answers_and_clients_that_left_are_counted_apart_from_failures() -> None:
    recorder = Recorder(0, SLICE_NS)
    add_stream(recorder, 0, 10, [5], StreamTokens(3, 2, None, ("no_usage", "no_done")))
    add_stream(recorder, 1, 10, [5], StreamTokens(3, 2, None, ("no_usage",)))
    recorder.fail(0, 0, 9 * MS, ClientLeft(3), spans_ns={"ttft": [4 * MS]})
    recorder.fail(0, 0, 9 * MS, RequestFailure("stalled", "no token in 30 s"))
    one = only(recorder, 0)
    assert one.streams == StreamCounts(6, 4, 1, {"no_usage": 2, "no_done": 1})
    assert one.failures == {"stalled": 1}
    assert recorder.first_failure == "stalled: no token in 30 s"
    assert one.failed.of("ttft") == of_ms(4)


def test_the_time_to_a_stream_s_end_counts_where_the_request_was_due() -> None:
    recorder = Recorder(0, SLICE_NS)
    add_stream(recorder, 20, 20, [60], StreamTokens(7, 2, closing_ns=3 * MS))
    add_stream(recorder, 30, 20, [60], StreamTokens(7, 2, closing_ns=4 * MS))
    assert {one.index: one.streams.closing_ns for one in recorder.take()} == {0: 7 * MS, 1: 0, 2: 0}


def test_stream_counts_add_up_and_go_over_the_wire() -> None:
    one = TimeSlice(3, good=1, streams=StreamCounts(1, 2, 3, {"no_done": 4}, 5))
    (both,) = SliceSums([one, one])
    assert both.good == 2
    assert both.streams == StreamCounts(2, 4, 6, {"no_done": 8}, 10)
    report = LoadProgress(0, 0, (both,), 0.0, SparseHistogram(), 0)
    assert ANSWERS.validate_json(ANSWERS.dump_json(report)) == report


BOTH = request_bounds(parse_objective("p95 < 100 ms, ttft p95 <= 20 ms, itl p99 < 30 ms"))


@pytest.mark.parametrize(
    ("ttft_ms", "gaps_ms", "good"),
    [
        (20, [29, 29], True),
        (21, [1], False),
        (20, [30], False),
        (10, [29, 29, 29, 29], False),
        (20, [], True),
    ],
    ids=["meets-all", "late-first-token", "one-gap-at-its-bound", "whole-answer-late", "one-token"],
)
def test_a_request_is_good_if_it_meets_every_clause(
    ttft_ms: int, gaps_ms: list[int], good: bool
) -> None:
    recorder = Recorder(0, SLICE_NS, bounds=BOTH)
    add_stream(recorder, 0, ttft_ms, gaps_ms, StreamTokens(1, 1 + len(gaps_ms)))
    assert only(recorder, 0).good == good


def test_failures_are_never_good_and_unary_requests_are_judged_by_what_they_have() -> None:
    recorder = Recorder(0, SLICE_NS, bounds=request_bounds(parse_objective("p95 < 10 ms")))
    recorder.add(0, 0, 9 * MS, 1)
    recorder.add(0, 0, 11 * MS, 1)
    recorder.fail(0, 0, 1 * MS, RequestFailure("http_500", ""))
    recorder.drop(0)
    assert only(recorder, 0).good == 1


def test_nothing_is_counted_as_good_where_no_objective_was_given() -> None:
    recorder = Recorder(0, SLICE_NS)
    recorder.add(0, 0, 1, 1)
    assert only(recorder, 0).good == 0


def test_a_request_s_own_quantile_is_its_order_statistic() -> None:
    """Of 20 values p95 is the 19th smallest; of 3 p99 is the largest; the mean is rounded."""
    request = np.array([0] * 20 + [2] * 3, dtype=np.int64)
    values = np.array([*range(20, 0, -1), 5, 9, 7], dtype=np.int64)
    for quantile, expected in ((0.95, [19, 9]), (0.99, [20, 9]), (0.5, [10, 7]), (None, [10, 7])):
        having, found = own_statistic(request, values, quantile)
        assert having.tolist() == [0, 2]
        assert found.tolist() == expected


def test_requests_without_values_meet_a_clause_on_them() -> None:
    nothing = hdr.integers(())
    assert meets_all(BOTH, 2, {"response": np.array([1, 2])}, {}).tolist() == [True, True]
    having, found = own_statistic(nothing, nothing, 0.5)
    assert (len(having), len(found)) == (0, 0)


def test_records_hold_every_gap_and_both_counts_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with RecordWriter(path) as writer:
        recorder = Recorder(0, SLICE_NS, listeners=[writer.add])
        add_stream(recorder, 0, 10, [5, 6], StreamTokens(4, 3, 5, ("usage_differs",), 0, 2_500))
        recorder.add(0, 0, MS, 1)
        recorder.fail(0, 0, MS, ClientLeft(1), b"", {"ttft": [MS]}, StreamTokens(4, 1))
        recorder.take()
    stream, unary, left = pq.read_table(path).to_pylist()
    assert (stream["ttft_ns"], stream["itl_ns"]) == ([10 * MS], [5 * MS, 6 * MS])
    columns = ("input_tokens", "output_tokens", "reported_output_tokens", "queue_us")
    assert [stream[name] for name in columns] == [4, 3, 5, 2_500]
    assert [unary[name] for name in columns] == [None, None, None, None]
    assert left["queue_us"] is None
    assert (left["status"], left["output_tokens"], left["ttft_ns"]) == ("left", 1, [MS])

"""Trace files: what is read, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.load.schedule.trace import read_trace
from harness.types import TraceUnit


def trace_file(folder: Path, *lines: str) -> Path:
    path = folder / "arrivals.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ["12.25", "12.375", "14.25"],
        ["timestamp", "12.25", "12.375", "14.25"],
        ["user, Timestamp", "a,12.25", '"b, c",12.375', "", "d,14.25", ""],
        ["2026-01-05T08:00:12.250Z", "2026-01-05T09:00:12.375+01:00", "2026-01-05 08:00:14.25"],
        ['{"timestamp": 12.25}', '{"id": 7, "timestamp": "12.375"}', '{"timestamp": 14.25}'],
        ['{"timestamp": "2026-01-05T08:00:12.250"}', '{"timestamp": "2026-01-05T08:00:12.375"}',
         '{"timestamp": "2026-01-05T08:00:14.250"}'],
        ["\ufeff12.25", "12.375", "14.25"],
        ["timestamp_ms", "12250", "12375", "14250"],
        ["user,Timestamp (µs)", "a,12250000", "b,12375000", "c,14250000"],
        ["timestamp_ns;user", "12250000000;a", "12375000000;b", "14250000000;c"],
        ["timestamp_s;user", "12,25;a", "12,375;b", "14,25;c"],
        ['{"timestamp_ms": 12250}', '{"timestamp_ms": "12375"}', '{"timestamp_ms": 14250.0}'],
        ["2026-01-05T08:00:12,250", "2026-01-05T08:00:12,375", "2026-01-05T08:00:14,250"],
        ["timestamp", "2026-01-05 08:00:12,25", "2026-01-05 08:00:12,375",
         "2026-01-05 08:00:14,25"],
        ["timestamp,user", "2026-01-05T08:00:12,25Z,a", '"2026-01-05T08:00:12,375Z",b',
         "2026-01-05T08:00:14,25Z,c"],
        ["user\ttimestamp", "a\t20260105T080012,25", "b\t20260105T080012,375",
         "c\t20260105T080014,250"],
        ["2026-01-05T23:59:59.250Z", "2026-01-05T23:59:59.375Z", "2026-01-06T00:00:01.250Z"],
        ["timestamp_s", "1.225e1", "12.375", "14.25"],
    ],
)  # fmt: skip
def test_every_form_says_the_same(tmp_path: Path, lines: list[str]) -> None:
    trace = read_trace(trace_file(tmp_path, *lines))
    assert trace.times_ns.tolist() == [0, 125_000_000, 2_000_000_000]
    assert trace.rate_per_s == 1.0
    assert trace.duration_s == 3.0


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=50, unique=True))
def test_microseconds_survive_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, stamps_us: list[int]
) -> None:
    stamps_us.sort()
    lines = [f"{1_700_000_000 + us // 10**6}.{us % 10**6:06d}" for us in stamps_us]
    trace = read_trace(trace_file(tmp_path_factory.mktemp("trace"), *lines))
    expected_ns = (np.array(stamps_us) - stamps_us[0]) * 1000
    assert (trace.times_ns == expected_ns).all()


def test_every_digit_of_a_fraction_counts(tmp_path: Path) -> None:
    lines = ["2026-01-05T08:00:00,123456789Z", "2026-01-05T08:00:01.5Z"]
    assert read_trace(trace_file(tmp_path, *lines)).times_ns.tolist() == [0, 1_376_543_211]
    lines = ["timestamp_ns", "1700000000000000001", "1700000000000000004"]
    assert read_trace(trace_file(tmp_path, *lines)).times_ns.tolist() == [0, 3]


THREE_MS = [str(1_700_000_000_000 + 3 * number) for number in range(100)]


@pytest.mark.parametrize(
    "lines",
    [
        [str(3 * number) for number in range(100)],
        ["timestamp", *THREE_MS],
        ["timestamps", *THREE_MS],
        [f'{{"timestamp": {stamp}}}' for stamp in THREE_MS],
        ["timestamp", *(f"{stamp}.0" for stamp in THREE_MS)],
        ["timestamp", *(str(3 * number + 0.5) for number in range(100))],
    ],
)
def test_a_unit_that_is_not_certain_is_asked_for(tmp_path: Path, lines: list[str]) -> None:
    path = trace_file(tmp_path, *lines)
    with pytest.raises(DataError, match="the unit of its stamps") as caught:
        read_trace(path)
    assert "0.333/s if s, 333/s if ms" in str(caught.value)
    assert "--trace-unit ms" in caught.value.next_step
    assert read_trace(path, TraceUnit.MS).rate_per_s == pytest.approx(1000 / 3)
    assert read_trace(path, TraceUnit.S).rate_per_s == pytest.approx(1 / 3)


def test_a_unit_is_not_told_twice(tmp_path: Path) -> None:
    named = trace_file(tmp_path, "timestamp_ms", "3", "6")
    assert read_trace(named, TraceUnit.MS).times_ns.tolist() == [0, 3_000_000]
    with pytest.raises(DataError, match="given as us, but its column's name says ms"):
        read_trace(named, TraceUnit.US)
    clock = trace_file(tmp_path, "2026-01-05T08:00:00Z", "2026-01-05T08:00:01Z")
    with pytest.raises(DataError, match="given as ms, but its stamps are ISO 8601"):
        read_trace(clock, TraceUnit.MS)


def test_several_arrivals_at_once_stay_several(tmp_path: Path) -> None:
    path = trace_file(tmp_path, "timestamp_ms", "5", "5", "5", "8")
    assert read_trace(path).times_ns.tolist() == [0, 0, 0, 3_000_000]


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        (["1.0", "3.0", "2.0"], 3, "'2.0' is earlier than the line before"),
        (["timestamp", "1.0", "soon"], 3, "'soon' is neither a number nor an ISO 8601 time"),
        (["when", "1.0", "2.0"], 1, "'when' is neither"),
        (["1.0", "nan"], 2, "'nan' is not a time"),
        (["1.0", "inf"], 2, "'inf' is not a time"),
        (["1.0", "1e999999999"], 2, "'1e999999999' is not a time"),
        (["-1.0", "2.0"], 1, "'-1.0' is negative"),
        (["a,b", "1,2"], 1, "names no column 'timestamp'"),
        (["user,timestamp", "a,1", "b"], 3, "has no column 2"),
        (['{"timestamp": 1}', '{"time": 2}'], 2, 'is not a JSON object with a "timestamp"'),
        (['{"timestamp": 1}', '{"timestamp": 2'], 2, 'is not a JSON object with a "timestamp"'),
        (['{"timestamp": 1}', "[2]"], 2, 'is not a JSON object with a "timestamp"'),
        (['{"timestamp": 1}', '{"timestamp": NaN}'], 2, "'nan' is not a time"),
        (['{"timestamp": 1}', '{"timestamp": true}'], 2, "'True' is neither"),
        (["[1, 2, 3]"], 1, "names no column"),
        (["timestamp_s", "1", "2000000000"], 3, "'2000000000' is over 30 years after the first"),
        (["timestamp,user", "2026-01-05T08:00:00,5,a,b"], 2, "has 4 fields for 2 columns"),
        (["timestamp", "12,250", "12,375"], 2, "has 2 fields for 1 columns"),
        (["2026-01-05T08:00:00", "20"], 2, "is a number, and the stamps before are not"),
        (["23:59:59.5", "00:00:00.5"], 1, "neither a number nor an ISO 8601 time"),
        (["timestamp_ms,timestamp_s", "1,2"], 1, "names 2 columns of stamps"),
        (["timestamp_fortnights", "1", "2"], 1, "neither a number"),
    ],
)
def test_a_line_that_is_no_arrival_is_named(
    tmp_path: Path, lines: list[str], number: int, why: str
) -> None:
    path = trace_file(tmp_path, *lines)
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line {number}: ")
    assert why in str(caught.value)
    assert "one arrival" in caught.value.next_step


@pytest.mark.parametrize("lines", [[""], ["", "  "]])
def test_an_empty_trace_is_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(DataError, match="the trace is empty"):
        read_trace(trace_file(tmp_path, *lines))


@pytest.mark.parametrize("lines", [["timestamp"], ["1.5"], ["1.5", "1.5"]])
def test_a_trace_without_a_gap_has_no_rate(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(DataError, match="needs two arrivals at different times"):
        read_trace(trace_file(tmp_path, *lines))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: no trace can be read"):
        read_trace(tmp_path / "missing.csv")
    with pytest.raises(DataError, match="no trace can be read"):
        read_trace(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="no trace can be read"):
        read_trace(tmp_path / "binary")


def test_mooncake_s_traces_count_milliseconds_unless_they_are_said_not_to(tmp_path):
    path = tmp_path / "mooncake.jsonl"
    rows = [{"timestamp": at, "input_length": 9, "hash_ids": [1]} for at in (0, 3000, 4500)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_trace(path).times_ns.tolist() == [0, 3_000_000_000, 4_500_000_000]
    assert read_trace(path, TraceUnit.S).times_ns.tolist() == [0, 3 * 10**12, 4500 * 10**9]

"""Trace files: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.load.trace import read_trace


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
    # A double holds seconds since 1970 to a quarter of a microsecond.
    assert np.abs(trace.times_ns - expected_ns).max() < 500


@pytest.mark.parametrize(
    ("lines", "number", "why"),
    [
        (["1.0", "3.0", "2.0"], 3, "'2.0' is earlier than the line before"),
        (["timestamp", "1.0", "soon"], 3, "'soon' is neither a number nor an ISO 8601 time"),
        (["when", "1.0", "2.0"], 1, "'when' is neither"),
        (["1.0", "nan"], 2, "'nan' is no time"),
        (["1.0", "inf"], 2, "'inf' is no time"),
        (["-1.0", "2.0"], 1, "'-1.0' is negative"),
        (["a,b", "1,2"], 1, "names no column 'timestamp'"),
        (["user,timestamp", "a,1", "b"], 3, "has no column 2"),
        (['{"timestamp": 1}', '{"time": 2}'], 2, 'is no JSON object with a "timestamp"'),
        (['{"timestamp": 1}', '{"timestamp": 2'], 2, 'is no JSON object with a "timestamp"'),
        (['{"timestamp": 1}', "[2]"], 2, 'is no JSON object with a "timestamp"'),
        (['{"timestamp": 1}', '{"timestamp": NaN}'], 2, "'nan' is no time"),
        (['{"timestamp": 1}', '{"timestamp": true}'], 2, "'True' is neither"),
        (["[1, 2, 3]"], 1, "names no column"),
        (["1700000000000000000", "1700000003000000000"], 2, "not in seconds"),
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


@pytest.mark.parametrize("lines", [["timestamp"], ["1.0"], ["1.0", "1.0"]])
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

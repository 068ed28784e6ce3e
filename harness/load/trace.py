"""Traces: arrival times that were recorded somewhere, to be replayed by an open loop.

A file with one arrival a line, in order of time, as CSV or as JSON lines:

    timestamp,user          12.250                      {"timestamp": 12.25}
    12.250,a                12.375                      {"timestamp": "2026-01-05T08:00:00.375Z"}
    12.375,b

CSV has a header with a column `timestamp`, or is a single column. A stamp is a number of seconds
from any origin, or an ISO 8601 time (UTC where it names no zone). Only the differences count: the
first arrival falls due at once. A trace is replayed once: where it ends, the load ends, so a trial
that is longer than its trace is refused (`harness/load/workload.py`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

COLUMN = "timestamp"
LONGEST_S = 1e9
"""30 years: beyond it the stamps are not seconds, and nanoseconds would overflow."""
_FORMS = (
    "a line holds one arrival: seconds or an ISO 8601 time, alone, in the CSV column 'timestamp', "
    'or as {"timestamp": ...}'
)


@dataclass(frozen=True)
class Trace:
    """Arrivals as they were recorded."""

    times_ns: NDArray[np.int64]
    """(n,) from the first, ascending; at least two, and not all the same."""

    @property
    def rate_per_s(self) -> float:
        """Mean rate: gaps over the time from the first arrival to the last."""
        return (len(self.times_ns) - 1) / (float(self.times_ns[-1]) / 1e9)

    @property
    def duration_s(self) -> float:
        """From the first arrival to a mean gap after the last: how long the trace can be a load."""
        return len(self.times_ns) / self.rate_per_s


def read_trace(path: Path) -> Trace:
    """Read a trace file.

    Raises:
        DataError: no such file, or the first line that is no arrival or out of order.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            stamps_s = list(_in_order(path, _stamps(path, file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no trace can be read: {error}", next_step=_FORMS) from error
    if len(stamps_s) < 2 or stamps_s[0] == stamps_s[-1]:  # noqa: PLR2004  (a gap has two ends)
        raise DataError(
            f"{path}: a trace needs two arrivals at different times, and has {len(stamps_s)}",
            next_step=_FORMS,
        )
    elapsed_s = np.array(stamps_s) - stamps_s[0]
    return Trace(np.rint(elapsed_s * 1e9).astype(np.int64))


def _stamps(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The line number and the text of every stamp."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise DataError(f"{path}: the trace is empty", next_step=_FORMS)
    everything = _chain(first, numbered)
    if first[1].lstrip().startswith("{"):
        return ((number, _of_json(path, number, line)) for number, line in everything)
    return _of_csv(path, everything)


def _chain(first: tuple[int, str], others: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from others


def _of_json(path: Path, number: int, line: str) -> str:
    try:
        stamp = json.loads(line)[COLUMN]
    except (ValueError, TypeError, KeyError) as error:
        raise _bad(path, number, f'is no JSON object with a "{COLUMN}"') from error
    return str(stamp)


def _of_csv(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    column = None
    for number, line in lines:
        # A row a line: a stamp needs no line break, so no field has one.
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        if column is None:
            names = [cell.lower() for cell in cells]
            column = names.index(COLUMN) if COLUMN in names else 0
            if COLUMN in names:
                continue
            if len(cells) > 1:
                raise _bad(path, number, f"names no column '{COLUMN}'")
        if column >= len(cells):
            raise _bad(path, number, f"has no column {column + 1}, '{COLUMN}'")
        yield number, cells[column]


def _in_order(path: Path, stamps: Iterable[tuple[int, str]]) -> Iterator[float]:
    first_s = last_s = None
    for number, text in stamps:
        stamp_s = _seconds(path, number, text)
        if first_s is None or last_s is None:
            first_s = last_s = stamp_s
        if stamp_s < last_s:
            raise _bad(path, number, f"'{text}' is earlier than the line before: sort the trace")
        if stamp_s - first_s > LONGEST_S:
            raise _bad(path, number, f"'{text}' is over 30 years after the first: not in seconds?")
        last_s = stamp_s
        yield stamp_s


def _seconds(path: Path, number: int, text: str) -> float:
    try:
        stamp_s = float(text)
    except ValueError:
        return _iso_seconds(path, number, text)
    if not isfinite(stamp_s):
        raise _bad(path, number, f"'{text}' is no time")
    if stamp_s < 0:
        raise _bad(path, number, f"'{text}' is negative")
    return stamp_s


def _iso_seconds(path: Path, number: int, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _bad(path, number, f"'{text}' is neither a number nor an ISO 8601 time") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _bad(path: Path, number: int, why: str) -> DataError:
    return DataError(f"{path}, line {number}: {why}", next_step=_FORMS)

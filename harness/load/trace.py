"""Traces: arrival times that were recorded somewhere, to be replayed by an open loop.

A file with one arrival a line, in order of time, as CSV or as JSON lines:

    timestamp,user          12.250                      {"timestamp_ms": 12250}
    12.250,a                12.375                      {"timestamp": "2026-01-05T08:00:00.375Z"}
    12.375,b

CSV (commas, semicolons or tabs) has a header with a column `timestamp`, or is a single column. A
stamp is an ISO 8601 time (UTC where it names no zone), or a number from any origin. Only the
differences count: the first arrival falls due at once. What unit a number is in is never guessed
from its size: `trace_units` says when it is known, and otherwise it is asked for. A trace is
replayed once: where it ends, the load ends, so a trial that is longer than its trace is refused
(`harness/load/workload.py`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.trace_lines import FORMS, Stamp, bad_line, read_stamps
from harness.load.trace_units import NS_PER_UNIT, unit_of_numbers
from harness.types import TraceUnit

LONGEST_NS = 10**18
"""30 years: beyond it the stamps are in another unit, and 64 bits would overflow."""
MOST_DIGITS = 30
"""Before the point: an epoch in nanoseconds has 19; decimals of a million digits cannot be counted
with."""
_FRACTION = re.compile(r"[.,](\d+)")


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


@dataclass(frozen=True)
class _Moment:
    """A stamp, read: in its own unit, which for a time of day is the second."""

    stamp: Stamp
    value: Decimal
    is_clock: bool
    """An ISO 8601 time, not a number."""


def read_trace(path: Path, unit: TraceUnit | None = None) -> Trace:
    """Read a trace file.

    Args:
        path: the file.
        unit: of its numbers, where the person knows it; None takes what the file says.

    Raises:
        DataError: no such file, the first line that is no arrival or out of order, numbers whose
            unit nobody states, or a unit that the file contradicts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            moments = list(_in_order(path, read_stamps(path, file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no trace can be read: {error}", next_step=FORMS) from error
    if len(moments) < 2 or moments[0].value == moments[-1].value:  # noqa: PLR2004  (a gap has two ends)
        raise DataError(
            f"{path}: a trace needs two arrivals at different times, and has {len(moments)}",
            next_step=FORMS,
        )
    if moments[0].is_clock:
        _check_no_unit(path, unit)
        unit = TraceUnit.S
    else:
        named = moments[0].stamp.unit
        unit = unit_of_numbers(path, [one.value for one in moments], named=named, told=unit)
    return Trace(_elapsed_ns(path, moments, NS_PER_UNIT[unit]))


def _check_no_unit(path: Path, told: TraceUnit | None) -> None:
    if told is not None:
        raise DataError(
            f"{path}: the trace's unit is said to be {told}, and its stamps are ISO 8601 times",
            next_step="leave the unit out: such times have none to be told",
        )


def _elapsed_ns(path: Path, moments: list[_Moment], ns_per_unit: int) -> NDArray[np.int64]:
    first = moments[0].value
    for one in moments:
        if (one.value - first) * ns_per_unit > LONGEST_NS:
            text = one.stamp.text
            raise bad_line(path, one.stamp.number, f"'{text}' is over 30 years after the first")
    elapsed = (round((one.value - first) * ns_per_unit) for one in moments)
    return np.fromiter(elapsed, np.int64, len(moments))


def _in_order(path: Path, stamps: Iterable[Stamp]) -> Iterator[_Moment]:
    first = last = None
    for stamp in stamps:
        moment = _moment(path, stamp)
        if first is None or last is None:
            first = last = moment
        _check_alike(path, moment, first)
        if moment.value < last.value:
            why = f"'{stamp.text}' is earlier than the line before: sort the trace"
            raise bad_line(path, stamp.number, why)
        last = moment
        yield moment


def _check_alike(path: Path, moment: _Moment, first: _Moment) -> None:
    """Numbers and times do not lie on one line of time."""
    if moment.is_clock != first.is_clock:
        kind = "an ISO 8601 time" if moment.is_clock else "a number"
        why = f"'{moment.stamp.text}' is {kind}, and the stamps before are not"
        raise bad_line(path, moment.stamp.number, why)


def _moment(path: Path, stamp: Stamp) -> _Moment:
    try:
        value = Decimal(stamp.text)
    except InvalidOperation:
        return _clock_moment(path, stamp)
    if not value.is_finite() or value.adjusted() > MOST_DIGITS:
        raise bad_line(path, stamp.number, f"'{stamp.text}' is no time")
    if value < 0:
        raise bad_line(path, stamp.number, f"'{stamp.text}' is negative")
    return _Moment(stamp, value, is_clock=False)


def _clock_moment(path: Path, stamp: Stamp) -> _Moment:
    """An ISO 8601 time, to the last digit of its fraction."""
    fraction = _FRACTION.search(stamp.text)
    digits = fraction[1] if fraction else ""
    # Read by the library with six digits: where a fraction may stand is its to say.
    text = _FRACTION.sub(f".{digits[:6]:0<6}", stamp.text, count=1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        why = f"'{stamp.text}' is neither a number nor an ISO 8601 time"
        raise bad_line(path, stamp.number, why) from error
    whole = moment.replace(microsecond=0, tzinfo=moment.tzinfo or UTC)
    seconds = Decimal(round(whole.timestamp())) + Decimal(f"0.{digits or 0}")
    return _Moment(stamp, seconds, is_clock=True)

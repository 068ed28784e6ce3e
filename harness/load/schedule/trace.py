"""Traces: arrival times that were recorded somewhere, read in their unit and replayed.

Told by the person, by the column's name (`timestamp_ms`, `timestamp (us)`), or certain from the
stamps themselves: those with a fraction that are seconds since 1970, or that come at least once a
second if they are seconds, are seconds. Whole numbers are never certain: a trace of 333 requests a
second in milliseconds would be one of 0.333 in seconds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.load.schedule.shapes import MOST_PER_S
from harness.types import TraceUnit
from harness.words.numbers import number

NS_PER_UNIT = {
    TraceUnit.S: 10**9,
    TraceUnit.MS: 10**6,
    TraceUnit.US: 10**3,
    TraceUnit.NS: 1,
}
_SPELLINGS = {
    TraceUnit.S: ("s", "sec", "secs", "second", "seconds"),
    TraceUnit.MS: ("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"),
    TraceUnit.US: (
        "us", "\u00b5s", "\u03bcs", "usec", "usecs", "micro", "micros", "microsecond",
        "microseconds",
    ),
    TraceUnit.NS: ("ns", "nsec", "nsecs", "nano", "nanos", "nanosecond", "nanoseconds"),
}  # fmt: skip
_BY_SPELLING = {word: unit for unit, words in _SPELLINGS.items() for word in words}
_NAME = re.compile(r"timestamp(?:[ _\-.]*[\[(]?\s*([a-z\u00b5\u03bc]+)\s*[\])]?)?")
_PLURAL = "timestamps"
"""It ends in no unit."""
_SINCE_1970 = (Decimal(10) ** 9, Decimal(10) ** 10)
"""Seconds of the years 2001 to 2286: ten digits."""


def unit_in_name(name: str) -> tuple[bool, TraceUnit | None]:
    """Whether a column's name is that of the stamps, and the unit that it states."""
    name = name.strip().lower()
    match = _NAME.fullmatch(name)
    if match is None:
        return False, None
    if match[1] is None or name == _PLURAL:
        return True, None
    unit = _BY_SPELLING.get(match[1])
    return unit is not None, unit


def unit_of_numbers(
    path: Path, values: Sequence[Decimal], *, named: TraceUnit | None, told: TraceUnit | None
) -> TraceUnit:
    """The unit of a trace's numbers.

    Args:
        path: of the trace.
        values: its numbers, ascending; the last is larger than the first.
        named: what the column's name states.
        told: what the person states.

    Raises:
        DataError: nobody does, or both do and differ.
    """
    if named and told and named is not told:
        raise DataError(
            f"{path}: the trace's unit is given as {told}, but its column's name says {named}",
            next_step="leave the unit out, or rename the column",
        )
    known = told or named
    if known is not None:
        return known
    if _are_certainly_seconds(values):
        return TraceUnit.S
    shown = ", ".join(str(one) for one in values[:3])
    raise DataError(
        f"{path}: the unit of its stamps ({shown}, ...) is not certain: {_readings(values)}",
        next_step="say which: --trace-unit ms (in a study, trace_unit: ms), or name the column "
        "timestamp_ms; s, us and ns likewise",
    )


def _are_certainly_seconds(values: Sequence[Decimal]) -> bool:
    earliest, latest = _SINCE_1970
    if earliest <= values[0] and values[-1] < latest and any(map(_has_a_point, values)):
        return True
    whole = all(one == one.to_integral_value() for one in values)
    return not whole and _rate_per_s(values, TraceUnit.S) >= 1


def _has_a_point(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent < 0


def _rate_per_s(values: Sequence[Decimal], unit: TraceUnit) -> float:
    return (len(values) - 1) / float((values[-1] - values[0]) * NS_PER_UNIT[unit]) * 1e9


def _readings(values: Sequence[Decimal]) -> str:
    """What rate each unit would make of it: `333/s if ms, 0.333/s if s`; what nobody sends last."""
    rates = {unit: _rate_per_s(values, unit) for unit in NS_PER_UNIT}
    likely = {unit: rate for unit, rate in rates.items() if rate <= MOST_PER_S} or rates
    return ", ".join(f"{number(rate)}/s if {unit}" for unit, rate in likely.items())


FORMS = (
    "a line holds one arrival: a number or an ISO 8601 time, alone, in the CSV column 'timestamp' "
    '(or timestamp_s, _ms, _us, _ns), or as {"timestamp": ...}'
)
_TO_THE_SECOND = re.compile(r".*\d\d(:?)\d\d\1\d\d")
_LONG_FRACTION = re.compile(r"\d+ ?(Z|[+-]\d\d:?\d\d)?")
_HEADERLESS_FRACTION = re.compile(r"(\d{3}|\d{6}|\d{9}) ?(Z|[+-]\d\d:?\d\d)?")
"""Where no header says that there is one column: the digits that clocks write."""


@dataclass(frozen=True)
class Stamp:
    """One arrival as it stands in the file."""

    number: int
    """Number of the line, from 1."""
    text: str
    unit: TraceUnit | None
    """The unit that its column's name says; None where that names none."""


def read_stamps(path: Path, lines: Iterable[str]) -> Iterator[Stamp]:
    """Every stamp of a file, in its order.

    Raises:
        DataError: an empty file, or the first line without a stamp.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise DataError(f"{path}: the trace is empty", next_step=FORMS)
    everything = chain([first], numbered)
    if first[1].lstrip().startswith("{"):
        return _of_json(path, everything)
    return _of_csv(path, everything)


def bad_line(path: Path, number: int, why: str) -> DataError:
    """An error that names the line."""
    return DataError(f"{path}, line {number}: {why}", next_step=FORMS)


def _of_json(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Stamp]:
    key = None
    for at, line in lines:
        try:
            # Text as it stands: a double holds an epoch in nanoseconds to a quarter of a thousand.
            row = json.loads(line, parse_float=str, parse_int=str)
            names = [name for name in row if unit_in_name(name)[0]] if isinstance(row, dict) else []
        except ValueError:
            row, names = {}, []
        if key is None and len(names) == 1:
            key = names[0]
        if key is None or key not in names:
            raise bad_line(path, at, f'is not a JSON object with a "{key or "timestamp"}"')
        yield Stamp(at, str(row[key]).strip(), unit_in_name(key)[1])


def _of_csv(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Stamp]:
    first = next(lines)
    delimiter = delimiter_of(first[1])
    # One row per line: a stamp needs no line break, so no field has one.
    names = _cells(first[1], delimiter)
    found = [(place, unit_in_name(name)) for place, name in enumerate(names)]
    ours = [(place, unit) for place, (is_ours, unit) in found if is_ours]
    if len(ours) > 1:
        raise bad_line(path, first[0], f"names {len(ours)} columns of stamps")
    if ours:
        (column, unit), width, fraction = ours[0], len(names), _LONG_FRACTION
    else:
        column, unit, width, fraction = 0, None, 1, _HEADERLESS_FRACTION
        lines = chain([first], lines)
    for at, line in lines:
        cells = _with_fraction(_cells(line, delimiter), column, width, fraction)
        if not ours and len(cells) > 1:
            raise bad_line(path, at, "names no column 'timestamp'")
        if column >= len(cells):
            raise bad_line(path, at, f"has no column {column + 1}, '{names[column]}'")
        if len(cells) > width and any(cells[width:]):
            why = f"has {len(cells)} fields for {width} columns: what holds a comma is quoted"
            raise bad_line(path, at, why)
        yield Stamp(at, decimal_point(cells[column], delimiter), unit)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _with_fraction(
    cells: list[str], column: int, width: int, fraction: re.Pattern[str]
) -> list[str]:
    """Cells of a row in which the comma before a time's fraction (ISO 8601) separates nothing."""
    if len(cells) != width + 1 or not _TO_THE_SECOND.fullmatch(cells[column]):
        return cells
    if not fraction.fullmatch(cells[column + 1]):
        return cells
    joined = f"{cells[column]},{cells[column + 1]}"
    return [*cells[:column], joined, *cells[column + 2 :]]


def delimiter_of(line: str) -> str:
    """What separates the fields of a CSV, by its first line: a tab, a semicolon or a comma."""
    return next((one for one in "\t;" if one in line), ",")


def decimal_point(cell: str, delimiter: str) -> str:
    """A number whose fraction follows a comma, which only other separators leave certain."""
    is_number = delimiter != "," and re.fullmatch(r"\d+,\d+", cell)
    return cell.replace(",", ".") if is_number else cell


LONGEST_NS = 10**18
"""30 years: beyond it the stamps are in another unit, and 64 bits would overflow."""
MOST_DIGITS = 30
"""Most digits before the point: an epoch in nanoseconds has 19, and decimals of a million digits
cannot be counted with."""
_FRACTION = re.compile(r"[.,](\d+)")


@dataclass(frozen=True)
class Trace:
    """Arrivals as they were recorded."""

    times_ns: NDArray[np.int64]
    """(n,) from the first, ascending; at least two, and not all the same."""
    first_unix_s: float | None = None
    """Unix time of the first; None where the stamps do not say it."""

    @property
    def rate_per_s(self) -> float:
        """Mean rate: gaps over the time from the first arrival to the last."""
        return (len(self.times_ns) - 1) / (float(self.times_ns[-1]) / 1e9)

    @property
    def duration_s(self) -> float:
        """How long the trace lasts as a load: until one mean gap after its last arrival."""
        return len(self.times_ns) / self.rate_per_s


@dataclass(frozen=True)
class _Moment:
    """A stamp, read: in its own unit, which for a time of day is the second."""

    stamp: Stamp
    value: Decimal
    is_clock: bool
    """Whether it is an ISO 8601 time rather than a number."""


def read_trace(path: Path, unit: TraceUnit | None = None) -> Trace:
    """Read a trace file.

    Args:
        path: the file.
        unit: of its numbers, where the person knows it; None takes what the file says. Mooncake's
            traces are known by their `hash_ids`, and count milliseconds.

    Raises:
        DataError: no such file, the first line that is not an arrival or out of order, numbers
            whose unit nobody states, or a unit that the file contradicts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if unit is None and _is_mooncake(next((line for line in file if line.strip()), "")):
                unit = TraceUnit.MS
            file.seek(0)
            return trace_of(path, read_stamps(path, file), unit)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no trace can be read: {error}", next_step=FORMS) from error


def _is_mooncake(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and {"timestamp", "hash_ids"} <= row.keys()


def trace_of(path: Path, stamps: Iterable[Stamp], unit: TraceUnit | None) -> Trace:
    """The trace that stamps are.

    Args:
        path: of the file that they stand in.
        stamps: at least two, in order and not all the same.
        unit: of numbers, where the person knows it; None takes what the file says.

    Raises:
        DataError: as `read_trace`.
    """
    moments = list(_in_order(path, stamps))
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
    first_s = moments[0].value * NS_PER_UNIT[unit] / NS_PER_UNIT[TraceUnit.S]
    earliest, latest = _SINCE_1970
    is_known = moments[0].is_clock or earliest <= first_s < latest
    times_ns = _elapsed_ns(path, moments, NS_PER_UNIT[unit])
    return Trace(times_ns, float(first_s) if is_known else None)


def _check_no_unit(path: Path, told: TraceUnit | None) -> None:
    if told is not None:
        raise DataError(
            f"{path}: the trace's unit is given as {told}, but its stamps are ISO 8601 times",
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
        raise bad_line(path, stamp.number, f"'{stamp.text}' is not a time")
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

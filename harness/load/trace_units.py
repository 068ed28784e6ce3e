"""In what unit a trace's numbers are: known, or asked for with what each unit would mean.

Told by the person, by the column's name (`timestamp_ms`, `timestamp (us)`), or certain from the
stamps themselves: those with a fraction that are seconds since 1970, or that come at least once a
second if they are seconds, are seconds. Whole numbers are never certain: a trace of 333 requests a
second in milliseconds would be one of 0.333 in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from harness.errors import DataError
from harness.load.shapes import MOST_PER_S
from harness.types import TraceUnit

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
_SINCE_1970 = (Decimal(10) ** 9, Decimal(10) ** 10)
"""Seconds of the years 2001 to 2286: ten digits."""


def unit_in_name(name: str) -> tuple[bool, TraceUnit | None]:
    """Whether a column's name is that of the stamps, and the unit that it states."""
    match = _NAME.fullmatch(name.strip().lower())
    if match is None:
        return False, None
    if match[1] is None:
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
            f"{path}: the trace's unit is said to be {told}, and its column's name says {named}",
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
    return ", ".join(f"{rate:,.3g}/s if {unit}" for unit, rate in likely.items())

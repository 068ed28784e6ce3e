"""The lines of a trace file: where each stamp stands, as CSV or as JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from harness.errors import DataError
from harness.load.trace_units import unit_in_name
from harness.types import TraceUnit

FORMS = (
    "a line holds one arrival: a number or an ISO 8601 time, alone, in the CSV column 'timestamp' "
    '(or timestamp_s, _ms, _us, _ns), or as {"timestamp": ...}'
)
_TO_THE_SECOND = re.compile(r".*\d\d(:?)\d\d\1\d\d")
_FRACTION = re.compile(r"\d+ ?(Z|[+-]\d\d:?\d\d)?")
_HEADERLESS_FRACTION = re.compile(r"(\d{3}|\d{6}|\d{9}) ?(Z|[+-]\d\d:?\d\d)?")
"""Where no header says that there is one column: the digits that clocks write."""


@dataclass(frozen=True)
class Stamp:
    """One arrival as it stands in the file."""

    number: int
    """Of the line."""
    text: str
    unit: TraceUnit | None
    """As its column is named; None where that names none."""


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
    for number, line in lines:
        try:
            # Text as it stands: a double holds an epoch in nanoseconds to a quarter of a thousand.
            row = json.loads(line, parse_float=str, parse_int=str)
            names = [name for name in row if unit_in_name(name)[0]] if isinstance(row, dict) else []
        except ValueError:
            row, names = {}, []
        if key is None and len(names) == 1:
            key = names[0]
        if key is None or key not in names:
            raise bad_line(path, number, f'is no JSON object with a "{key or "timestamp"}"')
        yield Stamp(number, str(row[key]).strip(), unit_in_name(key)[1])


def _of_csv(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Stamp]:
    first = next(lines)
    delimiter = next((one for one in "\t;" if one in first[1]), ",")
    # A row a line: a stamp needs no line break, so no field has one.
    names = _cells(first[1], delimiter)
    found = [(place, unit_in_name(name)) for place, name in enumerate(names)]
    ours = [(place, unit) for place, (is_ours, unit) in found if is_ours]
    if len(ours) > 1:
        raise bad_line(path, first[0], f"names {len(ours)} columns of stamps")
    if ours:
        (column, unit), width, fraction = ours[0], len(names), _FRACTION
    else:
        column, unit, width, fraction = 0, None, 1, _HEADERLESS_FRACTION
        lines = chain([first], lines)
    for number, line in lines:
        cells = _with_fraction(_cells(line, delimiter), column, width, fraction)
        if not ours and len(cells) > 1:
            raise bad_line(path, number, "names no column 'timestamp'")
        if column >= len(cells):
            raise bad_line(path, number, f"has no column {column + 1}, '{names[column]}'")
        if len(cells) > width and any(cells[width:]):
            why = f"has {len(cells)} fields for {width} columns: what holds a comma is quoted"
            raise bad_line(path, number, why)
        yield Stamp(number, _decimal_point(cells[column], delimiter), unit)


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


def _decimal_point(cell: str, delimiter: str) -> str:
    """A number whose fraction follows a comma, which only other separators leave certain."""
    is_number = delimiter != "," and re.fullmatch(r"\d+,\d+", cell)
    return cell.replace(",", ".") if is_number else cell

"""Demand over time: rates in equal steps, from a file of arrivals or rates, or made up.

Files that are known by what they say: arrivals as `trace.py` reads them (Azure's LLM inference
traces of 2023 and 2024 among them, whose column is `TIMESTAMP`), Mooncake's JSON lines (arrivals
in milliseconds), a CSV with a column of times and one of rates or counts, and Azure's functions
trace of 2019 (invocations of each function by minute, which are added up). Commas, semicolons or
tabs may separate the fields. Nothing that looks like rates is taken for arrivals.

Azure: https://github.com/Azure/AzurePublicDataset
Mooncake: https://github.com/kvcache-ai/Mooncake
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, UsageError
from harness.load.schedule.trace import (
    Stamp,
    Trace,
    bad_line,
    decimal_point,
    delimiter_of,
    read_trace,
    trace_of,
    unit_in_name,
)
from harness.types import TraceUnit
from harness.types.autoscaling import RateTrace
from harness.words.numbers import asked, number, whole

RATE_NAMES = ("rate", "rate_per_s", "requests_per_s", "rps", "qps")
COUNT_NAMES = ("requests", "count", "invocations")
SHAPES = ("diurnal", "flash-crowd")
SHORTEST_STEP_S, LONGEST_STEP_S = 1.0, 2 * 3600.0
"""Between two rows of rates: minutes in milliseconds that are read as seconds are no demand over
time, and a scaler decides within minutes."""
_GAP_STEPS = 1.5
"""Steps between two rows beyond which one is missing."""
_JITTER = 0.01
"""Share of a step by which rows may be off."""
_MOST_BINS = 1440
_LONGEST_BIN_S = 60.0
_MINUTES = 1440
_DAY_S = 86400.0
_FEWEST_ROWS = 4
"""With fewer rows, even steps may be chance."""
_OF_ONE_REQUEST = ("token", "length", "prompt", "model", "user", "session")
"""What stands in the names of columns that rates do not have."""
_SILENCE_GAPS = 30
"""Mean gaps without an arrival that are worth a word: by chance once in e^30."""


def read_demand(path: Path, unit: TraceUnit | None = None) -> RateTrace:
    """Read a file of arrivals or rates.

    Args:
        path: the file.
        unit: of its numbers, where the person knows it; None takes what the file says.

    Raises:
        DataError: no such file, a line that cannot be read, rows that are missing or out of order,
            numbers whose unit nobody states, steps that only another unit would explain, or rates
            in a form or under a name that is not known.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no trace can be read: {error}") from error
    is_json = head.lstrip().startswith("{")
    names = _keys(head) if is_json else _cells(head)
    if "hashfunction" in names and str(_MINUTES) in names:
        return _of_functions(path)
    if _value_column(names) is not None and any(unit_in_name(name)[0] for name in names):
        if is_json:
            raise DataError(f"{path}: rates as JSON lines are not read", next_step=_RATES)
        return _of_rates(path, names, unit, delimiter_of(head))
    return _of_arrivals(path, names, unit)


def _cells(head: str) -> list[str]:
    row = next(csv.reader([head], delimiter=delimiter_of(head)), [])
    return [name.strip().lower() for name in row]


def _keys(head: str) -> list[str]:
    """The keys of a JSON object; none where `trace.py` will say what is wrong with it."""
    try:
        return [name.strip().lower() for name in json.loads(head)]
    except ValueError:
        return []


def _value_column(names: Sequence[str]) -> int | None:
    return next(
        (place for place, name in enumerate(names) if name in RATE_NAMES + COUNT_NAMES), None
    )


_RATES = (
    "write a CSV with a column 'timestamp' (or timestamp_s, _ms, ...) and one of rates "
    "(rate_per_s) or of counts (requests)"
)


def _of_arrivals(path: Path, names: Sequence[str], unit: TraceUnit | None) -> RateTrace:
    trace = read_trace(path, unit)
    times_s = trace.times_ns / 1e9
    _check_arrivals(path, names, times_s)
    if trace.duration_s < SHORTEST_STEP_S:
        raise DataError(
            f"{path}: {len(times_s)} arrivals within {asked(trace.duration_s)} s are no demand "
            "over time: is the unit right?",
            next_step="name the unit of the times: --trace-unit ms (or s, us, ns)",
        )
    step_s = min(_LONGEST_BIN_S, max(SHORTEST_STEP_S, math.ceil(trace.duration_s / _MOST_BINS)))
    bins = max(1, math.floor(trace.duration_s / step_s))
    counts, _ = np.histogram(times_s, bins=bins, range=(0.0, bins * step_s))
    silences = np.diff(times_s)
    longest = int(np.argmax(silences))
    notes = []
    if silences[longest] > max(_SILENCE_GAPS / trace.rate_per_s, 2 * step_s):
        notes.append(
            f"{path.name}: no arrivals for {whole(silences[longest])} s, from "
            f"{whole(times_s[longest])} s on; taken as no traffic"
        )
    return RateTrace(
        str(path), step_s, _tuple(counts / step_s), tuple(notes), _time_of_day_s(trace)
    )


def _check_arrivals(path: Path, names: Sequence[str], times_s: NDArray[np.float64]) -> None:
    """Refuse rows in equal steps whose other columns say nothing of one request: they are rates."""
    others = [name for name in names if not unit_in_name(name)[0]]
    of_requests = any(part in name for name in others for part in _OF_ONE_REQUEST)
    if len(others) in {0, len(names)} or of_requests or len(times_s) < _FEWEST_ROWS:
        return
    gaps_s = np.diff(times_s)
    step_s = float(np.median(gaps_s))
    if step_s >= SHORTEST_STEP_S and float(np.abs(gaps_s - step_s).max()) <= _JITTER * step_s:
        raise DataError(
            f"{path}: a row every {asked(step_s)} s, and no column that is known to hold rates or "
            f"counts: {', '.join(others)}",
            next_step=f"{_RATES}; for arrivals leave the column of the times alone",
        )


def _time_of_day_s(trace: Trace) -> float | None:
    """When a trace's first arrival came, in seconds of the UTC day; None where it does not say."""
    return None if trace.first_unix_s is None else trace.first_unix_s % _DAY_S


def _of_rates(
    path: Path, names: Sequence[str], unit: TraceUnit | None, delimiter: str
) -> RateTrace:
    time_at = next(place for place, name in enumerate(names) if unit_in_name(name)[0])
    value_at = _value_column(names)
    assert value_at is not None  # noqa: S101  (the caller has found it)
    named = unit_in_name(names[time_at])[1]
    stamps, values = [], []
    for at, cells in _rows(path, delimiter):
        if len(cells) <= max(time_at, value_at):
            raise bad_line(path, at, f"has no column '{names[max(time_at, value_at)]}'")
        if len(cells) > len(names) and any(cells[len(names) :]):
            why = f"has {len(cells)} fields for {len(names)} columns: what holds a comma is quoted"
            raise bad_line(path, at, why)
        told, value = (decimal_point(cells[one].strip(), delimiter) for one in (time_at, value_at))
        stamps.append(Stamp(at, told, named))
        values.append(_value(path, at, value, names[value_at]))
    trace = trace_of(path, stamps, unit)
    at_s = (trace.times_ns / 1e9).tolist()
    step_s = even_step_s(at_s, lambda place: f"{path}, line {stamps[place].number}", "row")
    per_s = np.array(values) / (step_s if names[value_at] in COUNT_NAMES else 1.0)
    return RateTrace(str(path), step_s, _tuple(per_s), begins_s=_time_of_day_s(trace))


def even_step_s(at_s: Sequence[float], where: Callable[[int], str], what: str) -> float:
    """The step of times that come in equal steps.

    Args:
        at_s: times in ascending order, at least two.
        where: how a place among them is called.
        what: what stands at each: a row, a sample.

    Raises:
        DataError: one is missing or comes twice, the steps differ, or no rates have such steps.
    """
    gaps = [later - sooner for sooner, later in pairwise(at_s)]
    step_s = median(gaps)
    for place, gap in enumerate(gaps, start=1):
        if gap <= 0:
            raise DataError(f"{where(place)}: the same time as the {what} before")
        if gap > _GAP_STEPS * step_s:
            raise DataError(
                f"{where(place)}: a gap of {asked(gap)} s, where {what}s come every "
                f"{asked(step_s)} s",
                next_step=f"fill it (0 where there was no traffic), or cut the trace there: a "
                f"missing {what} is not known to be no traffic",
            )
        if abs(gap - step_s) > _JITTER * step_s:
            raise DataError(
                f"{where(place)}: {asked(gap)} s after the {what} before, where the others are "
                f"{asked(step_s)} s apart",
                next_step="write the rates in equal steps",
            )
    if not SHORTEST_STEP_S <= step_s <= LONGEST_STEP_S:
        raise DataError(
            f"{where(1)}: {what}s every {asked(step_s)} s are no rates over time: is the unit "
            "right?",
            next_step="name the unit of the times: --trace-unit ms (or s, us, ns)",
        )
    return step_s


def _of_functions(path: Path) -> RateTrace:
    total = np.zeros(_MINUTES)
    first = 0
    for at, cells in _rows(path):
        first = first or len(cells) - _MINUTES
        if first < 0 or len(cells) != first + _MINUTES:
            raise bad_line(path, at, f"has {len(cells)} fields, and not a column per minute")
        try:
            counts = np.array([float(cell or 0) for cell in cells[first:]])
        except ValueError as error:
            raise bad_line(path, at, f"holds a count that is none: {error}") from error
        is_count = (counts >= 0) & (counts < math.inf)
        if not is_count.all():
            wrong = cells[first + int(np.argmin(is_count))]
            raise bad_line(path, at, f"holds a count that is none: '{wrong}'")
        total += counts
    return RateTrace(str(path), 60.0, _tuple(total / 60.0))


def _rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Every row under the header, with its line's number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            rows = ((reader.line_num, cells) for cells in reader if any(cells))
            next(rows, None)
            yield from rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no trace can be read: {error}") from error


def _value(path: Path, number: int, cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        why = f"'{cell}' in column '{name}' is no number: where there was no traffic, write 0"
        raise bad_line(path, number, why) from error
    if not 0 <= value < math.inf:
        raise bad_line(
            path, number, f"'{cell}' in column '{name}' is no rate: it must be 0 or more"
        )
    return value


def made_demand(shape: str, rate_per_s: float, peak_factor: float) -> RateTrace:
    """A day, or a crowd that comes at once.

    - diurnal: 24 h from midnight, lowest then and highest at noon; `rate_per_s` is its mean.
    - flash-crowd: 2 h at `rate_per_s`, but from minute 30 on it rises to the peak within one
      minute, stays for 15, and then halves every 5.

    Args:
        shape: one of `SHAPES`.
        rate_per_s: above 0.
        peak_factor: the highest rate over `rate_per_s`, at least 1.

    Raises:
        UsageError: no such shape, or a peak too high for a day of that mean.
    """
    if shape not in SHAPES:
        raise UsageError(f"no shape '{shape}'", next_step=f"name a file or: {', '.join(SHAPES)}")
    step_s = 60.0 if shape == "diurnal" else 15.0
    factors = _diurnal(peak_factor) if shape == "diurnal" else _flash_crowd(peak_factor, step_s)
    words = f"{shape}, {asked(rate_per_s)}/s, peak {asked(peak_factor)} times that"
    begins_s = 0.0 if shape == "diurnal" else None
    return RateTrace(words, step_s, _tuple(rate_per_s * factors), begins_s=begins_s)


_NIGHT = 0.2
"""Lowest rate of a day as a share of the mean, unless its peak is so low that it never falls so
far."""


_SHARPEST = 8000.0
"""Exponent of the sharpest peak, which a minute at noon still holds but for a percent."""


def _diurnal(peak: float) -> NDArray[np.float64]:
    """Factors by minute with a mean of 1: low + (peak - low) ((1 - cos) / 2)^k."""
    hump = (1 - np.cos(2 * np.pi * (np.arange(_MINUTES) + 0.5) / _MINUTES)) / 2
    low = max(_NIGHT, 2.0 - peak)
    if peak <= 2.0 - _NIGHT:
        return np.asarray(low + (peak - low) * hump)
    sharpest, flattest = _SHARPEST, 0.5
    least = low + (peak - low) * float((hump**sharpest).mean())
    if least > 1 + _JITTER:
        raise UsageError(
            f"a day whose busiest minutes have {asked(peak)} times its mean rate is not made up: "
            f"with a minute for each step it would have {number(least)} times the mean",
            next_step="name a lower --peak, another shape, or a file of your own",
        )
    for _ in range(60):
        middle = math.sqrt(sharpest * flattest)
        mean = low + (peak - low) * float((hump**middle).mean())
        sharpest, flattest = (middle, flattest) if mean < 1 else (sharpest, middle)
    return np.asarray(low + (peak - low) * hump**sharpest)


def _flash_crowd(peak: float, step_s: float) -> NDArray[np.float64]:
    minutes = (np.arange(round(7200 / step_s)) + 0.5) * step_s / 60
    rise = np.clip(minutes - 30, 0.0, 1.0)
    fall = 0.5 ** (np.maximum(minutes - 45, 0.0) / 5)
    return np.asarray(1 + (peak - 1) * rise * fall)


def scaled_to(trace: RateTrace, mean_per_s: float) -> RateTrace:
    """The same demand over time, scaled to another mean rate.

    Raises:
        UsageError: the trace is empty of requests.
    """
    if not trace.peak_per_s:
        raise UsageError(
            f"{trace.source} has no requests at all", next_step="name a trace with traffic"
        )
    factor = mean_per_s / trace.mean_per_s
    note = f"the trace's rates times {number(factor)}, for a mean of {asked(mean_per_s)}/s"
    return replace(
        trace,
        rates_per_s=tuple(factor * one for one in trace.rates_per_s),
        notes=(*trace.notes, note),
    )


def _tuple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(one) for one in values)

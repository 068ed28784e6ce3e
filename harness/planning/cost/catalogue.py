"""Instance types and their prices: the snapshot that ships, and the user's own file over it.

`instances.csv` is a dated snapshot of on-demand prices of Linux machines in one region of each
cloud, with spot prices where the source has them; each row names its date and its source.
`scripts/refresh_prices.py` makes it anew. A price is checked before it is used: none is zero, none
lies outside what machines cost, and a spot price that is a bid floor is no price.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources
from pathlib import Path

from harness.errors import UsageError
from harness.words.numbers import asked, asked_percent, number, things

SHIPPED = "instances.csv"
COLUMNS = (
    "cloud", "name", "accelerator", "accelerators", "vcpu", "memory_gb",
    "on_demand_usd_per_hour", "spot_usd_per_hour", "region", "date", "source",
)  # fmt: skip
REQUIRED = ("name", "on_demand_usd_per_hour", "date")
OF_THE_MACHINE = ("cloud", "accelerator", "accelerators", "vcpu", "memory_gb", "region")
"""What a file of one's own need not repeat of a type that the snapshot has."""
OLD = timedelta(days=180)
"""Prices older than this are noted."""
USD_PER_VCPU_HOUR = (0.002, 0.5)
"""What an hour of one virtual CPU costs on a machine without accelerator, least and most. The
snapshot's lie between 0.03 and 0.06."""
USD_PER_ACCELERATOR_HOUR = (0.05, 40.0)
"""Plausible prices of one accelerator with its share of the machine. The snapshot's lie between 0.5
and 13."""
LEAST_SPOT_SHARE = 0.05
"""A spot price is at least this share of the on-demand price: the clouds advertise discounts of at
most 90 or 91%, and what lies far below is the least that may be bid, not what is paid."""
NAMES_SHOWN = 5


@dataclass(frozen=True)
class InstanceType:
    """A machine that a cloud rents out, and its price."""

    cloud: str
    name: str
    accelerator: str
    """The accelerator's name; empty for a machine with CPUs alone."""
    accelerators: int
    vcpu: int
    memory_gb: float | None
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None
    """Spot price; None where the source has none."""
    region: str
    date: date
    """Date of the price."""
    source: str

    def usd_per_hour(self, *, spot: bool) -> float:
        """The price per hour.

        Raises:
            UsageError: the spot price was asked for, and is not known.
        """
        if not spot:
            return self.on_demand_usd_per_hour
        if self.spot_usd_per_hour is None:
            raise UsageError(
                f"the spot price of {self.name} is not known",
                next_step="name it in a file of your own, column spot_usd_per_hour: --prices FILE",
            )
        return self.spot_usd_per_hour


@dataclass(frozen=True)
class Catalogue:
    """Instance types by name."""

    types: tuple[InstanceType, ...]
    by_name: Mapping[str, InstanceType] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {one.name.lower(): one for one in self.types})

    def named(self, name: str) -> InstanceType:
        """An instance type by its name; case does not matter.

        Raises:
            UsageError: there is none, with the nearest names.
        """
        found = self.by_name.get(name.lower())
        if found is not None:
            return found
        raise UsageError(
            f"unknown instance type '{name}'{_nearest(name, self.by_name.values())}",
            next_step="name one that the catalogue has, or give its price: --prices FILE with the "
            f"columns {', '.join(REQUIRED)}, vcpu",
        )


def _nearest(name: str, known: Iterable[InstanceType]) -> str:
    """The names that look most like it, Azure's also without their first word."""
    spellings = {
        spelling.lower(): one.name
        for one in known
        for spelling in (one.name, one.name.removeprefix("Standard_"))
    }
    close = difflib.get_close_matches(name.lower(), spellings, n=NAMES_SHOWN, cutoff=0.5)
    names = list(dict.fromkeys(spellings[one] for one in close))
    return f": did you mean {', '.join(names)}?" if names else ""


def read_catalogue(own: Path | None = None, *, today: date) -> Catalogue:
    """The shipped snapshot, with the rows of the user's own file in place of those of their name.

    Args:
        own: a CSV file with at least the columns of `REQUIRED`, any others of `COLUMNS`; a type
            that the snapshot does not have needs its `vcpu` and accelerators too.
        today: no price is of a later day.

    Raises:
        UsageError: the file cannot be read, or a row cannot be; every problem with its line.
    """
    text = resources.files(__package__ or "").joinpath(SHIPPED).read_text(encoding="utf-8")
    rows = {one.name.lower(): one for one in parse_prices(text, SHIPPED, today=today)}
    if own is not None:
        mine = parse_prices(_read(own), str(own), today=today, known=rows)
        rows |= {one.name.lower(): one for one in mine}
    return Catalogue(tuple(rows.values()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"the prices in {path} cannot be read: {reason}",
            next_step=f"a CSV file with the columns {', '.join(REQUIRED)}",
        ) from error


def parse_prices(
    text: str, source: str, *, today: date, known: Mapping[str, InstanceType] | None = None
) -> tuple[InstanceType, ...]:
    """The rows of a price file.

    Args:
        text: the file.
        source: what it is called.
        today: no price is of a later day.
        known: types by their name in lower case, whose machines need no description.

    Raises:
        UsageError: every problem, each with its line.
    """
    reader = csv.DictReader(io.StringIO(text))
    problems = list(_header_problems(reader.fieldnames or ()))
    found: dict[str, tuple[int, InstanceType]] = {}
    for row in () if problems else reader:
        line = reader.line_num
        parsed, wrong = _parse(_described(row, known or {}), source, today)
        problems += [f"line {line}: {one}" for one in wrong]
        if parsed is None:
            continue
        first, _ = found.setdefault(parsed.name.lower(), (line, parsed))
        if first != line:
            problems.append(f"line {line}: {parsed.name} stands in line {first} already")
    if not (found or problems):
        problems.append("no row below the line of the columns")
    if problems:
        count = things(len(problems), "problem")
        listed = "\n".join(f"  - {one}" for one in problems)
        raise UsageError(
            f"{source}: {count}\n{listed}",
            next_step=f"prices are US dollars per hour; columns: {', '.join(COLUMNS)}",
        )
    return tuple(one for _, one in found.values())


def _described(
    row: dict[str, str | None], known: Mapping[str, InstanceType]
) -> Mapping[str, str | None]:
    """The row; of a known type with what it does not say of the machine."""
    found = known.get((row.get("name") or "").strip().lower())
    if found is None:
        return row
    said = {column: cell for column, cell in row.items() if str(cell or "").strip()}
    kept = {one: str(getattr(found, one) or "") for one in OF_THE_MACHINE}
    if (said.get("accelerator") or found.accelerator).strip() != found.accelerator:
        del kept["accelerators"]  # that is how many of the other kind there are
    return row | kept | said


def _header_problems(columns: Sequence[str]) -> Iterator[str]:
    missing = [one for one in REQUIRED if one not in columns]
    if missing:
        yield f"line 1: no column {', '.join(missing)} (it has {', '.join(columns) or 'none'})"
    foreign = [one for one in columns if one not in COLUMNS]
    if foreign:
        yield f"line 1: unknown column {', '.join(foreign)}; known are {', '.join(COLUMNS)}"


def _parse(
    row: Mapping[str, str | None], source: str, today: date
) -> tuple[InstanceType | None, list[str]]:
    """A row's instance type; None where something is wrong, and what."""
    cells = _Cells(row)
    accelerator = cells.text("accelerator")
    made = InstanceType(
        cloud=cells.text("cloud"),
        name=cells.text("name", required=True),
        accelerator=accelerator,
        accelerators=cells.whole("accelerators", default=1.0 if accelerator else 0.0),
        vcpu=cells.whole("vcpu", least=1.0),
        memory_gb=cells.optional("memory_gb"),
        on_demand_usd_per_hour=cells.price("on_demand_usd_per_hour", required=True) or math.nan,
        spot_usd_per_hour=cells.price("spot_usd_per_hour"),
        region=cells.text("region"),
        date=cells.day("date", today),
        source=cells.text("source") or source,
    )
    if None in row:
        cells.problems.append("more cells than columns")
    if not cells.problems:
        cells.problems += _implausible(made)
    return (None if cells.problems else made), cells.problems


def _implausible(made: InstanceType) -> Iterator[str]:
    """What a row says that no machine costs."""
    if bool(made.accelerator) is not (made.accelerators > 0):
        yield (
            f"{made.name} has {made.accelerators} accelerators of the kind "
            f"'{made.accelerator}': name both or neither"
        )
        return
    per, unit, (least, most) = made.vcpu, "vCPU", USD_PER_VCPU_HOUR
    if made.accelerator:
        per, unit, (least, most) = made.accelerators, "accelerator", USD_PER_ACCELERATOR_HOUR
    each = made.on_demand_usd_per_hour / per
    if not least <= each <= most:
        yield (
            f"on_demand_usd_per_hour of {made.name} is {number(each)} USD per {unit} and hour, "
            f"where {asked(least)} to {asked(most)} is plausible"
        )
    spot = made.spot_usd_per_hour
    if spot is None:
        return
    if spot > made.on_demand_usd_per_hour:
        yield f"spot_usd_per_hour of {made.name} is {asked(spot)}, more than on demand"
    elif spot < LEAST_SPOT_SHARE * made.on_demand_usd_per_hour:
        yield (
            f"spot_usd_per_hour of {made.name} is {asked(spot)}, less than "
            f"{asked_percent(LEAST_SPOT_SHARE)} of on demand: that is a bid floor, not a price"
        )


class _Cells:
    """A row's cells as values; what is wrong with them is gathered in `problems`."""

    def __init__(self, row: Mapping[str, str | None]) -> None:
        self._row = row
        self.problems: list[str] = []

    def text(self, column: str, *, required: bool = False) -> str:
        """A cell without the white space around it; empty where there is none."""
        found = (self._row.get(column) or "").strip()
        if required and not found:
            self.problems.append(f"{column} is empty")
        return found

    def optional(self, column: str) -> float | None:
        """A number above 0; None where the cell is empty."""
        return self.number(column, least=math.ulp(0.0)) if self.text(column) else None

    def number(self, column: str, *, least: float = 0.0, default: float | None = None) -> float:
        """A finite number; `default`, if there is one, where the cell is empty."""
        found = self.text(column)
        if not found and default is not None:
            return default
        try:
            value = float(found)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.problems.append(f"{column} is '{found}', which is no number")
            return 0.0
        if value < least:
            self.problems.append(f"{column} is {found}, which is too small")
        return value

    def whole(self, column: str, *, least: float = 0.0, default: float | None = None) -> int:
        """A whole number; a part of an accelerator has no rule by which it scales."""
        value = self.number(column, least=least, default=default)
        if not value.is_integer():
            self.problems.append(f"{column} is {self.text(column)}, which is no whole number")
        return int(value)

    def price(self, column: str, *, required: bool = False) -> float | None:
        """US dollars per hour, above 0; None where the cell is empty."""
        if not self.text(column, required=required):
            return None
        before = len(self.problems)
        value = self.number(column, least=-math.inf)
        if value <= 0 and len(self.problems) == before:
            said = "zero is no price" if value == 0 else "a price is not negative"
            self.problems.append(f"{column} is {self.text(column)}: {said}")
        return value

    def day(self, column: str, today: date) -> date:
        """A date, not after today."""
        found = self.text(column)
        try:
            day = date.fromisoformat(found)
        except ValueError:
            self.problems.append(f"{column} is '{found}', which is no date like 2026-07-20")
            return today
        if day > today:
            self.problems.append(f"{column} is {found}, which is still to come")
        return day


def age_notes(types: Iterable[InstanceType], today: date) -> tuple[str, ...]:
    """A note for each day of prices that are older than `OLD`."""
    old: dict[date, list[str]] = {}
    for one in types:
        if today - one.date > OLD:
            old.setdefault(one.date, []).append(one.name)
    return tuple(
        f"the price of {', '.join(dict.fromkeys(names))} is {(today - day).days} days old "
        f"({day.isoformat()}): look it up, and give today's with --prices FILE"
        for day, names in sorted(old.items())
    )

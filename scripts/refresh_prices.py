"""Make the snapshot of prices anew from gpuhunt's catalogue: harness/planning/cost/instances.csv.

gpuhunt needs an environment of its own, because its wheel installs a top-level package `tests`:

    python -m venv /tmp/prices && /tmp/prices/bin/pip install 'gpuhunt<0.2' platformdirs
    export PYTHONPATH=.
    /tmp/prices/bin/python scripts/refresh_prices.py        # as published, over the network

Of files (aws.csv, azure.csv and gcp.csv in a folder) it has to be told the day:

    export GPUHUNT_CATALOG_DIR=DIR
    /tmp/prices/bin/python scripts/refresh_prices.py --date 2026-08-19

The rows stay the same machines in the same regions; their prices, virtual CPUs, memory, date and
source change. A row that the catalogue lacks keeps its old price with its old date, and is named.
An on-demand price of zero changes nothing; a spot price of zero, or one that is a bid floor,
becomes an empty cell. The file is written only if what is to be written reads as a catalogue.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Protocol

import harness.planning.cost
from harness.errors import UsageError
from harness.planning.cost.catalogue import (
    COLUMNS,
    LEAST_SPOT_SHARE,
    SHIPPED,
    InstanceType,
    parse_prices,
)
from harness.planning.cost.scaling import accelerator_kinds
from harness.system.storage import replace_text

SNAPSHOT = Path(harness.planning.cost.__file__).parent / SHIPPED
CLOUDS = ("aws", "azure", "gcp")
MEMORY_SLACK_GB = 8.0
"""Some count what the driver leaves: 22.4 of an A10G's 24."""
LOCAL = "GPUHUNT_CATALOG_DIR"
SOURCE = "github.com/dstackai/gpuhunt"


def main(arguments: Sequence[str]) -> int:
    """Refresh a snapshot; 0 where every row was found, 1 where some kept their old price."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--file", type=Path, default=SNAPSHOT, help="the snapshot to refresh")
    parser.add_argument(
        "--date",
        type=date.fromisoformat,
        help="day of the prices; needed for files, and the day it is for the published catalogue",
    )
    asked = parser.parse_args(arguments)
    path: Path = asked.file
    if asked.date is None and LOCAL in os.environ:
        parser.error(f"--date is needed: the files of {LOCAL} do not say which day they are of")
    today = datetime.now(UTC).date()
    day: date = asked.date or today
    known = parse_prices(path.read_text(encoding="utf-8"), str(path), today=today)
    fresh, told = refreshed(known, offers(), day)
    text = as_csv(fresh)
    parse_prices(text, f"the new {path.name}", today=today)  # refuses what does not read
    replace_text(path, text)
    for line in told:
        print(line)
    kept = [one.name for one in fresh if (one.date, one.source) != (day, SOURCE)]
    print(f"{path}: {len(fresh) - len(kept)} of {len(fresh)} prices are of {day}")
    return 1 if kept else 0


class Offer(Protocol):
    """What is read of a `gpuhunt.CatalogItem`."""

    provider: str
    instance_name: str
    location: str
    price: float
    """US dollars per hour."""
    cpu: int
    memory: float
    """GB."""
    gpu_count: int
    gpu_name: str | None
    gpu_memory: float | None
    """GB of each."""
    spot: bool


def offers() -> Sequence[Offer]:
    """All offers of the three clouds: of local files where GPUHUNT_CATALOG_DIR names a folder."""
    import gpuhunt  # only here: it is installed in an environment of its own

    catalog = gpuhunt.Catalog(balance_resources=False, auto_reload=False)
    if LOCAL not in os.environ:
        catalog.load()
    return list(catalog.query(provider=list(CLOUDS)))


def refreshed(
    known: Iterable[InstanceType], found: Sequence[Offer], day: date
) -> tuple[list[InstanceType], list[str]]:
    """The rows with the prices of `day`, and what is to be said of those that could not be."""
    rows, told = [], []
    for one in known:
        same = [item for item in found if _is_of(item, one)]
        on_demand = [item for item in same if not item.spot and item.price > 0]
        if not on_demand:
            told.append(f"{one.name}: no on-demand price above zero found; kept that of {one.date}")
            rows.append(one)
            continue
        # Zones of a region cost the same; where they do not, none is cheaper than said.
        best = max(on_demand, key=lambda item: item.price)
        price = best.price
        told += _new_shape(one, best)
        spots = [item.price for item in same if item.spot and item.price > 0]
        spot = statistics.median(spots) if spots else None
        if spot is not None and not LEAST_SPOT_SHARE * price <= spot <= price:
            told.append(f"{one.name}: spot price {spot:g} beside {price:g} on demand left out")
            spot = None
        rows.append(
            replace(
                one,
                vcpu=best.cpu,
                memory_gb=float(best.memory),
                on_demand_usd_per_hour=price,
                spot_usd_per_hour=spot,
                date=day,
                source=SOURCE,
            )
        )
    return rows, told


def _new_shape(one: InstanceType, item: Offer) -> Iterator[str]:
    if (one.vcpu, one.memory_gb) != (item.cpu, item.memory):
        yield (
            f"{one.name}: {item.cpu} vCPUs and {item.memory:g} GB, where the file had {one.vcpu} "
            f"and {one.memory_gb or 0:g}"
        )


def _is_of(item: Offer, one: InstanceType) -> bool:
    """Whether an offer is of this machine; spot prices may be of a zone of its region."""
    if (item.provider, item.instance_name) != (one.cloud, one.name):
        return False
    if not item.location.startswith(one.region) or item.gpu_count != one.accelerators:
        return False
    return not one.accelerator or _same_kind(item, one.accelerator)


def _same_kind(item: Offer, accelerator: str) -> bool:
    """Two of one family differ in memory: A100-40GB and A100-80GB are both A100 there."""
    family, _, _ = accelerator.partition("-")
    memory = accelerator_kinds()[accelerator].memory_gb
    named = (item.gpu_name or "").removesuffix("NVL")
    told = item.gpu_memory or memory
    return named == family and abs(told - memory) <= MEMORY_SLACK_GB


def as_csv(rows: Iterable[InstanceType]) -> str:
    """The rows as the snapshot has them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in rows:
        writer.writerow([_cell(value) for value in astuple(one)])
    return text.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.8g}" if isinstance(value, float) else value


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as problem:
        sys.exit(f"error: {problem}")

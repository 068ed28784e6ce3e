"""What every benchmark does: a small table for people, JSON for programs, one way out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table

from harness.errors import HarnessError

Row = Mapping[str, str | int | float]


def show(title: str, rows: Sequence[Row], json_file: Path | None = None) -> None:
    """Print the rows and, where a file is named, write them."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column, value in rows[0].items():
        side: JustifyMethod = "left" if isinstance(value, str) else "right"
        table.add_column(column, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*map(cell, row.values()))
    # As wide as it is: a cut-off number is worse than a line that the terminal wraps.
    Console(width=1000).print(table)
    write_rows(rows, json_file)


def write_rows(rows: Sequence[Row], json_file: Path | None) -> None:
    """Write the rows as JSON, where a file is named."""
    if json_file is not None:
        known = [{key: _known(value) for key, value in row.items()} for row in rows]
        json_file.write_text(json.dumps(known, indent=2, allow_nan=False) + "\n", "utf-8")


def _known(value: str | float | None) -> str | float | None:
    """JSON has no way to say `not a number`."""
    return None if isinstance(value, float) and math.isnan(value) else value


def cell(value: str | float | None) -> str:
    """A value as tables show it; a dash where there is none."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"  # noqa: PLR2004  (digits shown)


def skip(who: str, reason: Exception) -> None:
    """Say in one line on standard error that somebody is left out, and why."""
    first_line = (str(reason).splitlines() or ["no reason given"])[0]
    print(f"skipped: {who}: {first_line}", file=sys.stderr)


def run_as_command(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark's `main` as its process: an error of the harness is a line, not a trace."""
    try:
        sys.exit(main())
    except HarnessError as error:
        print(f"{error}\nnext: {error.next_step}", file=sys.stderr)
        sys.exit(error.exit_code)

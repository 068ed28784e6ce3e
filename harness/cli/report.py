"""harness report: rebuild the tables and the report of a run, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import print_line
from harness.report.build import build_report
from harness.runs.folder import read_run
from harness.runs.tables import write_tables


def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
) -> None:
    """Rebuild the tables, report.html and report.md of a run from its journal."""
    run = read_run(run_folder)
    write_tables(run, run_folder)
    html, markdown = build_report(run, run_folder)
    print_line(f"{html}\n{markdown}")

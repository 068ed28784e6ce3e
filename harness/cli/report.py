"""harness report and track: a run that exists, written up again, or sent to a tracker."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.console import print_line
from harness.cli.options import RunPath
from harness.tracking.trackers import Tracker, check_trackers


def report(
    run_folder: RunPath,
) -> None:
    """Rebuild the tables, report.html and report.md of a run from its journal."""
    from harness.report.build import build_report
    from harness.runs.folder import read_run
    from harness.runs.tables import write_tables

    run = read_run(run_folder)
    write_tables(run, run_folder)
    html, markdown = build_report(run, run_folder)
    print_line(f"{html}\n{markdown}")


def track(
    run: RunPath,
    to: Annotated[
        list[Tracker], typer.Option(help="The tracker; may be repeated.", show_default=False)
    ],
) -> None:
    """Send a finished run to Weights & Biases or MLflow."""
    from harness.tracking.record import track as tell

    check_trackers(to)
    for tracker in to:
        print_line(f"{tracker}: {tell(run, tracker)}")

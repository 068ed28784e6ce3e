"""harness track: tell a tracker of a run that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import print_line
from harness.tracking.record import Tracker, check_trackers
from harness.tracking.record import track as tell


def track(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    to: Annotated[
        list[Tracker], typer.Option(help="The tracker; may be repeated.", show_default=False)
    ],
) -> None:
    """Send a finished run to Weights & Biases or MLflow."""
    check_trackers(to)
    for tracker in to:
        print_line(f"{tracker}: {tell(run, tracker)}")

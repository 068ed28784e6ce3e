"""harness compare: a run against an earlier one, metric by metric, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import print_blocks, print_json, print_line
from harness.cli.options import AsJson
from harness.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_UNDECIDED
from harness.planning.review.differences import parse_tolerance
from harness.types import Decision

_EXITS = {Decision.FAIL: EXIT_OBJECTIVE_NOT_MET, Decision.PASS: EXIT_OK}


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE",
            help="The earlier run folder.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    after: Annotated[
        Path,
        typer.Argument(
            metavar="AFTER",
            help="The later run folder.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    tolerate: Annotated[
        list[str] | None,
        typer.Option(
            help="How much worse is allowed, of the earlier value: 5%, or accuracy=1% for one "
            "metric. May be repeated.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Compare this metric alone. May be repeated.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page; default: the later run's.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Compare two runs: what got better, what got worse, what could not be told.

    Exit code: 0 nothing got worse, 3 something got worse beyond its interval (or beyond
    --tolerate), 4 not decided: something may be worse by more than is tolerated, or could not be
    compared.
    """
    from harness.flow.review.releases import compare_runs
    from harness.report.review.comparison import build_comparison
    from harness.report.terminal.review import comparison_blocks
    from harness.system.storage import storage_errors

    tolerance = parse_tolerance(tolerate or [])
    comparison = compare_runs(before, after, tolerance=tolerance, only=metric or ())
    folder = out or after
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    html, markdown = build_comparison(comparison, folder)
    if as_json:
        print_json({"decision": comparison.decision, **vars(comparison)})
    else:
        print_blocks(*comparison_blocks(comparison, folder))
        print_line(f"{html}\n{markdown}")
    return _EXITS.get(comparison.decision, EXIT_UNDECIDED)

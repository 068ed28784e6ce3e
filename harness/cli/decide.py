"""harness decide: the page that a technical review signs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import print_blocks, print_json, print_line
from harness.cli.options import AsJson
from harness.errors import EXIT_OBJECTIVE_NOT_MET, EXIT_OK, EXIT_UNDECIDED
from harness.types import Decision


def decide(
    run_folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Rank by these weights, for example accuracy=2,throughput=1; default: the "
            "study's, else no ranking.",
            show_default=False,
        ),
    ] = None,
    kpi: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric that decides dominance; default: all that are known. May be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page; default: the last run's.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Weigh the variants of runs: hard limits, Pareto front, ranking by weights, risks.

    Exit code: 0 every family has a recommendation, 3 a family keeps its teacher, 4 undecided.
    """
    from harness.flow.review.decisions import review_runs
    from harness.flow.review.page import write_decision
    from harness.planning.review.ranking import parse_weights
    from harness.report.terminal.review import decision_blocks

    asked = parse_weights(weights) if weights is not None else None
    review = review_runs(run_folders, weights=asked, kpis=kpi or ())
    folder = out or run_folders[-1]
    written = write_decision(review, folder)
    if as_json:
        print_json(review)
    else:
        print_blocks(*decision_blocks(review, folder))
        print_line(f"{written.html}\n{written.markdown}\n{written.document}")
    decisions = {matrix.decision for matrix in review.matrices}
    if Decision.FAIL in decisions:
        return EXIT_OBJECTIVE_NOT_MET
    return EXIT_OK if decisions == {Decision.PASS} else EXIT_UNDECIDED

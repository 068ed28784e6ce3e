"""harness route: the threshold below which the teacher answers, with a guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.console import (
    ProgressDisplay,
    print_blocks,
    print_json,
    print_line,
    say,
    warn,
)
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Repository,
    RunPath,
    parse_share,
    with_option_groups,
)
from harness.cli.session import EXIT_CODES
from harness.cli.typed import refuse_without, typed_options
from harness.errors import EXIT_OK
from harness.types.routing import Route, RoutePoint
from harness.words.numbers import (
    MISSING,
    asked_percent,
    confidence,
    count,
    milliseconds,
    number,
    percent,
    points,
    threshold,
)


@dataclass(frozen=True)
class Pair:
    """Who answers first, and who answers the rest."""

    student: Annotated[
        str, typer.Option(help="Variant that answers first; default: the recommended one.")
    ] = ""
    teacher: Annotated[
        str, typer.Option(help="Variant that answers below the threshold; default: the first.")
    ] = ""
    student_cost: Annotated[
        float | None, typer.Option(help="US dollars per million inferences of the student.", min=0)
    ] = None
    teacher_cost: Annotated[
        float | None, typer.Option(help="US dollars per million inferences of the teacher.", min=0)
    ] = None


@dataclass(frozen=True)
class Guarantee:
    """What is kept of the teacher's accuracy, and how surely."""

    keep: Annotated[
        str, typer.Option(help="Share of the teacher's accuracy that is kept at least.")
    ] = "95%"
    confidence_level: Annotated[
        str, typer.Option("--confidence", help="Confidence with which it is kept.")
    ] = "95%"
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the split into calibration and held-out rows; default: the study's."
        ),
    ] = None


@with_option_groups
def route(
    context: typer.Context,
    run_folder: RunPath,
    *,
    guarantee: Guarantee,
    pair: Pair,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Deploy the chosen point as one Triton model, score it and load-test it.",
        ),
    ] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> int:
    """Route to the teacher what the student is unsure of, keeping a share of its accuracy.

    With --serve the exit code is the router's own verdict: 0 it meets the objective, 3 it does
    not, 4 undecided.
    """
    typed = typed_options(context)
    refuse_without(typed, "--teacher-cost", ("--student-cost",), "--teacher-cost 0.40")
    refuse_without(typed, "--student-cost", ("--teacher-cost",), "--student-cost 0.10")
    keep = parse_share(guarantee.keep, "--keep")
    level = parse_share(guarantee.confidence_level, "--confidence")
    from harness.flow.options import RunSettings
    from harness.flow.router import deploy_route
    from harness.flow.routing import ROUTE, RouteRequest, route_run
    from harness.flow.run import write_results
    from harness.report.routing.words import deployed_words
    from harness.runs.documents import write_document

    found = route_run(
        run_folder,
        RouteRequest(
            keep,
            level,
            pair.student,
            pair.teacher,
            pair.student_cost,
            pair.teacher_cost,
            guarantee.seed,
        ),
    )
    if serve:
        with ProgressDisplay() as progress:
            settings = RunSettings(repository, progress=progress, warn=warn)
            found = deploy_route(run_folder, found, settings)
    path = write_document(run_folder, ROUTE, found)
    write_results(run_folder)
    if as_json:
        print_json(found)
    else:
        print_blocks(curve_table(found))
        print_line(route_words(found))
        if found.deployed is not None:
            print_line(deployed_words(found, found.deployed))
        say(f"route: {path}\nreport: {run_folder / 'report.html'}#router")
    return EXIT_CODES[found.deployed.decision] if found.deployed is not None else EXIT_OK


def curve_table(found: Route) -> Table:
    """A row per threshold, the chosen one among them."""
    from harness.report.terminal.run import plain_table

    table = plain_table(
        f"{found.student}, and {found.teacher} below a confidence: {count(found.held_out_rows)} "
        "rows that the threshold was not chosen on, 95% intervals"
    )
    for title in (
        "Below",
        "To the teacher",
        "Accuracy",
        "Of the teacher's",
        "Gain of it",
        "Mean ms",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("USD/1M", justify="right", no_wrap=True)
    shown = {one.threshold: one for one in (*found.curve, found.at)}
    for below in sorted(shown):
        style = "bold" if below == found.at.threshold else ""
        table.add_row(*_row(shown[below], chosen=bool(style)), style=style)
    return table


def route_words(found: Route) -> str:
    """What was chosen, and what it promises."""
    from harness.report.routing.words import share_words

    chosen, at = found.chosen, found.at
    asked_of = "No row needs the teacher: the student alone is enough."
    if at.routed.value:
        asked_of = (
            f"Below a confidence of {threshold(chosen.threshold)} the teacher answers: "
            f"{percent(at.routed.value)} of the rows."
        )
    return (
        f"{asked_of} With {confidence(chosen.confidence)} confidence "
        f"the router keeps at least {asked_percent(chosen.keep)} of the teacher's accuracy "
        f"({count(chosen.rows)} calibration rows); on the rows held out it keeps "
        f"{share_words(at.kept)}."
    )


def _row(point: RoutePoint, *, chosen: bool) -> list[str]:
    from harness.report.routing.words import share_words

    everything = point.threshold > 1
    mark = " *" if chosen else ""
    return [
        "all" if everything else f"{threshold(point.threshold)}{mark}",
        share_words(point.routed),
        share_words(point.accuracy),
        share_words(point.kept),
        points(point.gained - point.lost),
        milliseconds(point.latency_ms),
        number(point.usd_per_million) if point.usd_per_million is not None else MISSING,
    ]

"""harness route: the threshold below which the teacher answers, with a guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.cli.console import print_blocks, print_json, print_line, say
from harness.cli.options import AsJson
from harness.errors import UsageError
from harness.flow.routing import RouteRequest, route_run
from harness.planning.routing.curve import Route, RoutePoint
from harness.report.terminal.run import plain_table
from harness.runs.documents import write_document
from harness.types.estimates import Interval
from harness.words.numbers import (
    MISSING,
    asked_percent,
    confidence,
    count,
    milliseconds,
    number,
    percent,
    points,
    span,
)

_OF_ALL = 100.0


def route(
    run_folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    keep: Annotated[
        str, typer.Option(help="Share of the teacher's accuracy that is kept at least.")
    ] = "95%",
    confidence_level: Annotated[
        str, typer.Option("--confidence", help="Confidence with which it is kept.")
    ] = "95%",
    student: Annotated[
        str, typer.Option(help="Variant that answers first; default: the recommended one.")
    ] = "",
    teacher: Annotated[
        str, typer.Option(help="Variant that answers below the threshold; default: the first.")
    ] = "",
    student_cost: Annotated[
        float | None, typer.Option(help="US dollars per million inferences of the student.", min=0)
    ] = None,
    teacher_cost: Annotated[
        float | None, typer.Option(help="US dollars per million inferences of the teacher.", min=0)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split of the rows; default: the study's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Route to the teacher what the student is unsure of, keeping a share of its accuracy."""
    request = RouteRequest(
        parse_share(keep, "--keep"),
        parse_share(confidence_level, "--confidence"),
        student,
        teacher,
        student_cost,
        teacher_cost,
        seed,
    )
    found = route_run(run_folder, request)
    path = write_document(run_folder, "route", found)
    if as_json:
        print_json(found)
        return
    print_blocks(curve_table(found))
    print_line(route_words(found))
    say(str(path))


def parse_share(text: str, option: str) -> float:
    """`95%` or `0.95`.

    Raises:
        UsageError: it is neither.
    """
    number_text, is_percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number_text) / (_OF_ALL if is_percent else 1.0)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        raise UsageError(f"{option} {text}: a share is above 0% and below 100%, such as 95%")
    return share


def curve_table(found: Route) -> Table:
    """A row per threshold, the chosen one among them."""
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
    for threshold in sorted(shown):
        style = "bold" if threshold == found.at.threshold else ""
        table.add_row(*_row(shown[threshold], chosen=bool(style)), style=style)
    return table


def route_words(found: Route) -> str:
    """What was chosen, and what it promises."""
    chosen, at = found.chosen, found.at
    asked_of = "No row needs the teacher: the student alone is enough."
    if at.routed.value:
        asked_of = (
            f"Below a confidence of {_threshold(chosen.threshold)} the teacher answers: "
            f"{percent(at.routed.value)} of the rows."
        )
    return (
        f"{asked_of} With {confidence(chosen.confidence)} confidence "
        f"the router keeps at least {asked_percent(chosen.keep)} of the teacher's accuracy "
        f"({count(chosen.rows)} calibration rows); on the rows held out it keeps "
        f"{_share(at.kept)}."
    )


def _row(point: RoutePoint, *, chosen: bool) -> list[str]:
    everything = point.threshold > 1
    mark = " *" if chosen else ""
    return [
        "all" if everything else f"{_threshold(point.threshold)}{mark}",
        _share(point.routed),
        _share(point.accuracy),
        _share(point.kept),
        points(point.gained - point.lost),
        milliseconds(point.latency_ms),
        number(point.usd_per_million) if point.usd_per_million is not None else MISSING,
    ]


def _threshold(value: float) -> str:
    return f"{value:.4g}"


def _share(interval: Interval | None) -> str:
    if interval is None:
        return MISSING
    return f"{percent(interval.value)} ({span(percent(interval.low), percent(interval.high))})"

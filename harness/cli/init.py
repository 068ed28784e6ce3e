"""harness init: a commented study from checkpoints and a data file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import print_line, say
from harness.errors import UsageError
from harness.flow.first_study import FirstStudy, write_first_study


def init(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|HUB-NAME...", help="Checkpoints: the teacher and its students."
        ),
    ],
    data: Annotated[Path, typer.Option(help="CSV or JSON lines file with the test split.")],
    out: Annotated[
        Path, typer.Option(help="The study file to write; it must not exist yet.")
    ] = Path("study.yaml"),
    teacher: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint that is the teacher; default: the one with the most parameters.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="KEY=COLUMN",
            help="Which column is which, as in text=body or label=topic; default: found by name "
            "and content. May be repeated.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Class names in the order of the models' outputs, if the checkpoints have none.",
            show_default=False,
        ),
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            help="The objective; default: p95 and 90% of the teacher.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a commented study of your own models, from checkpoints and a data file.

    Before it is written, the file goes through the same checks as in `harness run`.
    """
    study, text = write_first_study(
        FirstStudy(
            checkpoints=tuple(checkpoints),
            data=data,
            out=out,
            teacher=teacher,
            columns=_columns(columns or []),
            labels=tuple(filter(None, (one.strip() for one in (labels or "").split(",")))),
            objective=slo,
        )
    )
    print_line(text.rstrip())
    say(f"written: {out} (study {study.name}); next: harness run {out}")


def _columns(given: list[str]) -> dict[str, str]:
    found = {}
    for one in given:
        key, equals, column = one.partition("=")
        if not (key and equals and column):
            raise UsageError(
                f"--column {one}: it is not KEY=COLUMN", next_step="write it as text=body"
            )
        found[key] = column
    return found

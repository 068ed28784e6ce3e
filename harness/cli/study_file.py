"""harness init and schema: a commented study to begin with, and what a study file may say."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from harness.cli.console import print_json, print_line, say
from harness.cli.options import with_option_groups
from harness.errors import UsageError
from harness.flow.first_study.asked import FirstStudy
from harness.words.metrics import as_markdown


@dataclass(frozen=True)
class Corrections:
    """What `init` would find otherwise, said by hand."""

    teacher: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint that is the teacher; default: the one with the most parameters.",
            show_default=False,
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="KEY=COLUMN",
            help="Which column is which, as in text=body or label=topic; default: found by name "
            "and content. May be repeated.",
            show_default=False,
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another key of the study's task, as in pooling=mean or threshold=0.3. May be "
            "repeated.",
            show_default=False,
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="Class names in the order of the models' outputs, if the checkpoints have none.",
            show_default=False,
        ),
    ] = None
    slo: Annotated[
        str | None,
        typer.Option(
            help="The objective; default: p95 and 90% of the teacher.", show_default=False
        ),
    ] = None

    def first_study(self, checkpoints: Sequence[str], data: Path, out: Path) -> FirstStudy:
        """What the study is written from.

        Raises:
            UsageError: a column or setting that is no pair.
        """
        settings = _pairs(self.settings or [], "--set", "KEY=VALUE", "pooling=mean")
        return FirstStudy(
            checkpoints=tuple(checkpoints),
            data=data,
            out=out,
            teacher=self.teacher,
            columns=_pairs(self.columns or [], "--column", "KEY=COLUMN", "text=body"),
            settings={key: _setting(value) for key, value in settings.items()},
            labels=tuple(filter(None, (one.strip() for one in (self.labels or "").split(",")))),
            objective=self.slo,
        )


@with_option_groups
def init(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|HUB-NAME...", help="Checkpoints: the teacher and its students."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="The test split: a CSV, JSON lines or CoNLL file; of sentence encoders also a "
            "folder with a retrieval set in BEIR's files."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The study file to write; it must not exist yet.")
    ] = Path("study.yaml"),
    *,
    corrections: Corrections,
) -> None:
    """Write a commented study of your own models, from checkpoints and a data file.

    Before it is written, the file goes through the same checks as in `harness run`.
    """
    from harness.flow.first_study.write import write_first_study

    study, text = write_first_study(corrections.first_study(checkpoints, data, out))
    print_line(text.rstrip())
    say(f"written: {out} (study {study.name}); next: harness run {shlex.quote(str(out))}")


def _pairs(given: list[str], option: str, form: str, example: str) -> dict[str, str]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not (key and equals and value):
            raise UsageError(
                f"{option} {one}: it is not {form}", next_step=f"write it as {example}"
            )
        found[key] = value
    return found


def _setting(text: str) -> Any:
    """A value as the study's file would have it.

    A sign that YAML makes nothing of (`|`, `,`, `#`), as a separator may be, is itself.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    nothing = value is None or value == ""
    return text if nothing and not any(map(str.isalnum, text)) else value


def schema(
    *,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Print the metrics for an objective instead, as Markdown."),
    ] = False,
) -> None:
    """Print the study file's JSON Schema, for editors."""
    from harness.study import study_schema

    if metrics:
        typer.echo(as_markdown(), nl=False)
    else:
        print_json(study_schema())

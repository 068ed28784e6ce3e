"""harness schema: the study's JSON Schema, and the metrics that its objective may name."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.console import print_json
from harness.metrics import as_markdown
from harness.study import study_schema


def schema(
    *,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Print the metrics for an objective instead, as Markdown."),
    ] = False,
) -> None:
    """Print the study file's JSON Schema, for editors."""
    if metrics:
        typer.echo(as_markdown(), nl=False)
    else:
        print_json(study_schema())

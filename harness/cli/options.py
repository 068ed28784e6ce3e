"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyFile = Annotated[
    Path, typer.Argument(help="The study file.", exists=True, dir_okay=False, show_default=False)
]
Out = Annotated[
    Path | None,
    typer.Option(help="Run folder; default: runs/<study>-<UTC time>.", show_default=False),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with --out, or with the study's latest run.")
]
Repository = Annotated[
    Path, typer.Option(help="Triton model repository that export writes.", file_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DEFAULT_REPOSITORY = Path("model_repository")
RUNS = Path("runs")

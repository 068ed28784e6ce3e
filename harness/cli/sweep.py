"""harness sweep: the scripted sweep for CI, with the objective on the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.cli.options import StudyFile, with_option_groups
from harness.cli.session import RunOptions, run_to_verdict
from harness.study import Study
from harness.study.file import load_study
from harness.study.objective import parse_objective


@with_option_groups
def sweep(
    study_file: StudyFile,
    slo: Annotated[
        str | None, typer.Option(help="Objective; default: the study's.", show_default=False)
    ] = None,
    search: Annotated[
        Literal["bisect", "grid"] | None,
        typer.Option(help="Search; default: the study's.", show_default=False),
    ] = None,
    *,
    options: RunOptions,
) -> int:
    """Run a study with another objective or search; the exit code is the verdict."""
    return run_to_verdict(override(load_study(study_file), slo, search), options)


def override(study: Study, slo: str | None, search: str | None) -> Study:
    """The study with the objective of every family, and the search, replaced.

    Raises:
        ObjectiveError: the objective does not parse.
        StudyError: it names a metric that a family's task does not have.
    """
    objective = None if slo is None else parse_objective(slo)
    return study.asked_otherwise(objective=objective, search=search)

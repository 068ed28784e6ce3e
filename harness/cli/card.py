"""harness card: the report card, teacher beside students, in process and through the server."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, warn
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    Out,
    Repository,
    Resume,
    StudyFile,
    read_study,
)
from harness.cli.session import kept_when_cut_short, open_folder
from harness.types.card import CardPlan


def card(
    study_file: StudyFile,
    samples: Annotated[
        int, typer.Option(min=20, help="Timed calls at batch 1 per model.")
    ] = CardPlan.samples,
    out: Out = None,
    resume: Resume = False,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Measure each model by itself, in process and served: size, memory, quality and speed.

    With --resume on a finished run, its scores are kept and the card is added to its report.
    """
    study = read_study(study_file)
    from harness.flow.input_checks import check_driven, check_inputs
    from harness.flow.inputs import StudyInputs
    from harness.flow.options import RunSettings
    from harness.flow.run import card_study
    from harness.report.card.values import cards_of
    from harness.report.terminal.run import card_table, has_warnings, warning_lines
    from harness.runs.folder import read_run

    plan = dataclasses.replace(CardPlan(), samples=samples)
    inputs = StudyInputs()
    check_driven(study)
    check_inputs(study, inputs)
    with ProgressDisplay() as progress, open_folder(study, out, resume=resume) as folder:
        settings = RunSettings(repository, progress=progress, warn=warn, inputs=inputs)
        with kept_when_cut_short(folder):
            card_study(study, folder, settings, plan)
    run = read_run(folder.path)
    if as_json:
        rows = [row for one in cards_of(run) for row in one.rows]
        print_json({"run": str(folder.path), "card": rows, "failed": run.failed})
        return
    print_blocks(card_table(run), *([warning_lines(run)] if has_warnings(run) else []))
    print_line(f"report card: {folder.path / 'card.html'}")

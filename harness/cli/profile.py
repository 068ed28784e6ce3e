"""harness profile: where a variant's time goes, what bounds it, and where its batches level off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import ProgressDisplay, output, print_json, print_line, warn
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    RUNS,
    AsJson,
    Repository,
    StudyFile,
    read_study,
    variant_missing,
)
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.study import Study


def profile(
    study_file: StudyFile,
    variant: Annotated[
        str | None, typer.Option(help="Variant of the study; required.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=2, max=512, help="Also profile at this batch size, in addition to 1.")
    ] = 16,
    least_growth: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.9,
            help="Stop growing the batch when doubling it adds less than this share of throughput.",
        ),
    ] = 0.1,
    measure_roofline: Annotated[
        bool,
        typer.Option("--measure-roofline", help="Measure this machine's peak rates again."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write the profile into; default: "
            "runs/<study>-<UTC time>-profile-<variant>.",
            show_default=False,
        ),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Profile a variant and its checkpoint: operators, roofline, batch scaling."""
    study = read_study(study_file)
    if variant is None:
        raise _no_variant(study)
    study.family_of(variant)
    from harness.flow.options import RunSettings
    from harness.flow.profile import ProfilePlan, profile_variant
    from harness.report.profile.page import profile_summary
    from harness.runs.folder import new_run_path

    start = new_run_path(RUNS, study)
    folder = out or start.with_name(f"{start.name}-profile-{variant}")
    with ProgressDisplay() as progress:
        found = profile_variant(
            study,
            variant,
            folder,
            RunSettings(repository, progress=progress, warn=warn),
            ProfilePlan(batch_size, least_growth, measure_roofline),
        )
    if as_json:
        print_json(found)
        return
    output.print(profile_summary(found))
    print_line(f"profile: {folder / 'profile.html'}")


def _no_variant(study: Study) -> UsageError:
    """What is said where none was named; plans of TensorRT are not profiled in process."""
    from harness.study import plans_of, variant_names

    plans = {name for family in study.families for name in plans_of(family)}
    problem, next_step = variant_missing([one for one in variant_names(study) if one not in plans])
    return UsageError(problem, next_step=next_step)

"""harness run, demo and sweep: the whole job, on the user's study or on the embedded default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli.options import (
    DEFAULT_REPOSITORY,
    GeneratorOptions,
    Repository,
    StudyFile,
    Verbose,
    read_study,
    with_option_groups,
)
from harness.cli.session import FolderOptions, NoSaturation, RunOptions, run_to_verdict
from harness.system.storage import bundled
from harness.types.estimates import Demand

if TYPE_CHECKING:
    from harness.study import Study

_QUICK: Mapping[str, Mapping[str, Any]] = {
    "traffic": {
        "concurrencies": [1, 8],
        "duration_s": 1.0,
        "warmup_s": 0.3,
        "saturation_shares": [0.4, 0.8],
    },
    "serving": {"queue_delays_us": [0], "instance_counts": [1]},
}
"""What a first look measures."""
DEMO_DEMAND = Demand(rate_per_s=2000.0, peak_factor=3.0)


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
    return run_to_verdict(override(read_study(study_file), slo, search), options)


def override(
    study: Study, slo: str | None, search: str | None = None, only: str | None = None
) -> Study:
    """The study with the objective of its families, and the search, replaced.

    Args:
        study: as its file says.
        slo: the objective; None: each family's own.
        search: how the best load is looked for; None: as the study says.
        only: a variant, where the objective is asked of its family alone.

    Raises:
        ObjectiveError: the objective does not parse.
        StudyError: it names a metric that a family's task does not have.
    """
    from harness.study.objective import parse_objective

    objective = None if slo is None else parse_objective(slo)
    return study.asked_otherwise(objective=objective, search=search, only=only)


@with_option_groups
def demo(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter trials at fewer points; a first look.")
    ] = False,
    folder: FolderOptions,
    generators: GeneratorOptions,
    repository: Repository = DEFAULT_REPOSITORY,
    no_saturation: NoSaturation = False,
    verbose: Verbose = False,
) -> int:
    """Train, distil, export, serve and measure small example models, decide, and plan.

    The plan is for an example demand, 2,000 requests/s and 3 times that at the peak; harness plan
    answers for another one.
    """
    from harness.flow.card import DEMO as CARD_DEMO
    from harness.flow.card import QUICK as CARD_QUICK
    from harness.flow.plan import PlanQuestion

    study = read_study(bundled("studies/reference.yaml"))
    if quick:
        study = quick_study(study)
    options = RunOptions(
        folder=folder,
        generators=generators,
        repository=repository,
        no_saturation=no_saturation,
        verbose=verbose,
    )
    card = CARD_QUICK if quick else CARD_DEMO
    return run_to_verdict(study, options, card, PlanQuestion(DEMO_DEMAND))


def quick_study(study: Study) -> Study:
    """The study with the same models, a coarser sweep and shorter trials."""
    from harness.study.file import parse_study

    document = study.model_dump(mode="json")
    for part in (document, *document["families"]):
        for section, coarser in _QUICK.items():
            if part[section] is not None:
                part[section] |= _no_longer(part[section], coarser)
    return parse_study(document, source="--quick")


def _no_longer(section: Mapping[str, Any], coarser: Mapping[str, Any]) -> dict[str, Any]:
    """Of a coarser section what leaves less to measure than there was: fewer points, less time."""
    return {
        key: value
        for key, value in coarser.items()
        if (len(value) < len(section[key]) if isinstance(value, list) else value < section[key])
    }


@with_option_groups
def run(study_file: StudyFile, options: RunOptions) -> int:
    """Run a whole study: export, serve, score, sweep, decide, report."""
    return run_to_verdict(read_study(study_file), options)

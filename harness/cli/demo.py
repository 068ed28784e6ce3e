"""harness demo: the whole flow on the embedded default."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import DEFAULT_REPOSITORY, Repository, Verbose, with_option_groups
from harness.cli.run_options import GeneratorOptions
from harness.cli.session import FolderOptions, RunOptions, run_to_verdict
from harness.flow.card import DEMO as CARD_DEMO
from harness.flow.card import QUICK as CARD_QUICK
from harness.study import Study
from harness.study.file import load_study, parse_study
from harness.system.storage import bundled


@with_option_groups
def demo(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter trials at fewer points; a first look.")
    ] = False,
    folder: FolderOptions,
    generators: GeneratorOptions,
    repository: Repository = DEFAULT_REPOSITORY,
    verbose: Verbose = False,
) -> int:
    """Train, distil, export, serve and measure small example models, and decide."""
    study = load_study(bundled("studies/reference.yaml"))
    if quick:
        study = quick_study(study)
    options = RunOptions(
        folder=folder, generators=generators, repository=repository, verbose=verbose
    )
    return run_to_verdict(study, options, CARD_QUICK if quick else CARD_DEMO)


def quick_study(study: Study) -> Study:
    """The same models with a coarser sweep of shorter trials."""
    document = study.model_dump(mode="json")
    document["traffic"] |= {"concurrencies": [1, 8], "duration_s": 1.0, "warmup_s": 0.3}
    document["serving"] |= {"queue_delays_us": [0], "instance_counts": [1]}
    return parse_study(document, source="--quick")

"""harness batch: machines and cost of a job of many documents by a deadline."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, warn
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    MeasuredOn,
    OwnPrices,
    Repository,
    RunPath,
    Spot,
    parse_share,
    with_option_groups,
)
from harness.cli.typed import as_typed, typed_options
from harness.errors import EXIT_OK, UsageError
from harness.planning.capacity.demand import parse_seconds
from harness.planning.offline.asked import parse_deadline, parse_documents
from harness.types.offline import OfflineTerms


@dataclass(frozen=True)
class JobOptions:
    """Options that describe the offline job."""

    documents: Annotated[
        str, typer.Option(help="Documents of one job: 10M, 250k.", show_default=False)
    ]
    deadline: Annotated[
        str,
        typer.Option(
            help="Longest time from ordering the machines until all is done: 6h, 90min.",
            show_default=False,
        ),
    ]
    rows_per_document: Annotated[
        float, typer.Option(help="Inferences per document, where long ones are cut.")
    ] = 1.0
    jobs_per_day: Annotated[
        float, typer.Option(help="Such jobs per day, for the cost per month.")
    ] = 1.0
    chance: Annotated[str, typer.Option(help="Chance with which the deadline is to be kept.")] = (
        "95%"
    )
    start_time: Annotated[
        str | None,
        typer.Option(
            help="Time from ordering a machine until it works; default: the model's cold start in "
            "the run.",
            show_default=False,
        ),
    ] = None
    spread: Annotated[
        str | None,
        typer.Option(
            help="Coefficient of variation of the machines' times, as 10%; default: as the run's "
            "trials vary.",
            show_default=False,
        ),
    ] = None
    least_growth: Annotated[
        str, typer.Option(help="What doubling the batch has to bring for a larger one.")
    ] = "10%"

    def terms(self) -> OfflineTerms:
        """The job as values.

        Raises:
            UsageError: a number, a time or a share that is none.
        """
        return OfflineTerms(
            documents=parse_documents(self.documents),
            deadline_s=parse_deadline(self.deadline),
            rows_per_document=self.rows_per_document,
            jobs_per_day=self.jobs_per_day,
            chance=parse_share(self.chance, "--chance"),
            start_s=None if self.start_time is None else parse_seconds(self.start_time),
            spread=None
            if self.spread is None
            else parse_share(self.spread, "--spread", usual="10%"),
            least_growth=parse_share(self.least_growth, "--least-growth", usual="10%"),
        )


@dataclass(frozen=True)
class JobMachines:
    """Options for the machines that the job runs on."""

    instance: Annotated[
        list[str],
        typer.Option(
            help="Instance type; may be repeated. Default: the one that was measured.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    measured_on: MeasuredOn = ""
    spot: Spot = False
    prices: OwnPrices = None


@dataclass(frozen=True)
class BatchMeasuring:
    """Options for what is measured before the job is planned."""

    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="First double the batch in process and on the embedded server, some minutes per "
            "variant; goes on where it was interrupted.",
        ),
    ] = False
    variant: Annotated[
        list[str],
        typer.Option(help="Measure only this variant; may be repeated.", show_default=False),
    ] = field(default_factory=list)

    def only(self) -> tuple[str, ...]:
        """The variants that are measured; none: all.

        Raises:
            UsageError: some are named, and nothing is measured.
        """
        if self.variant and not self.measure:
            raise UsageError(
                "--variant says what --measure measures",
                next_step="add --measure, or leave --variant out: every variant is shown",
            )
        return tuple(self.variant)


@with_option_groups
def batch(
    context: typer.Context,
    run_folder: RunPath,
    slo: Annotated[
        str | None,
        typer.Option(help="Objective whose quality has to pass; default: the study's."),
    ] = None,
    *,
    job: JobOptions,
    machines: JobMachines,
    measuring: BatchMeasuring,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> int:
    """Count the machines that a job of many documents needs by its deadline, and its cost.

    Without --measure nothing is measured: the rates are those of the run's trials. The answer is
    kept in the run folder as batch.json, and shown in its report.
    """
    terms, only = job.terms(), measuring.only()
    from harness.flow.offline.job import BatchQuestion, plan_batch
    from harness.flow.options import RunSettings
    from harness.planning.cost.catalogue import read_catalogue
    from harness.report.terminal.offline import curves_table, offline_notes, offline_table
    from harness.study.objective import parse_objective

    today = datetime.now(UTC).date()
    again = as_typed(typed_options(context), without=("--measure", "--json"))
    question = BatchQuestion(
        terms=terms,
        catalogue=read_catalogue(machines.prices, today=today),
        today=today,
        instances=tuple(machines.instance),
        measured_on=machines.measured_on,
        spot=machines.spot,
        slo=None if slo is None else parse_objective(slo),
        measured=only,
        asked_again=shlex.join(again),
    )
    with ProgressDisplay() as progress:
        settings = RunSettings(repository, progress=progress, warn=warn)
        found, path = plan_batch(run_folder, question, settings, measure=measuring.measure)
    if as_json:
        print_json(found)
        return EXIT_OK
    curves = [curves_table(found)] if measuring.measure else []
    print_blocks(*curves, offline_table(found), offline_notes(found))
    print_line(f"batch: {path}\nreport: {run_folder / 'report.html'}#batch")
    return EXIT_OK

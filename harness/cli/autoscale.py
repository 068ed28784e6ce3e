"""harness autoscale: scaling policies on a trace of demand, simulated from a run's trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.autoscale_options import (
    LiveOptions,
    ManifestOptions,
    QueryOptions,
    ReplicaPrice,
    ScalerOptions,
    TraceOptions,
)
from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line
from harness.cli.options import DEFAULT_REPOSITORY, AsJson, Repository, RunPath, with_option_groups
from harness.cli.typed import Typed, refuse_without, typed_options
from harness.errors import EXIT_OK, UsageError
from harness.planning.capacity.demand import parse_peak, parse_rate
from harness.types.autoscaling import (
    AutoscalePlan,
    RateTrace,
)
from harness.types.capacity import CapacityPlan

_PROMETHEUS = "prometheus"
"""The trace that a Prometheus is asked for."""


@with_option_groups
def autoscale(
    context: typer.Context,
    run_folder: RunPath,
    slo: Annotated[
        str | None, typer.Option(help="Objective; default: the run's.", show_default=False)
    ] = None,
    variant: Annotated[
        str, typer.Option(help="The variant that is scaled; default: the recommended one.")
    ] = "",
    *,
    course: TraceOptions,
    query: QueryOptions,
    scaler: ScalerOptions,
    price: ReplicaPrice,
    manifests: ManifestOptions,
    live: LiveOptions,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> int:
    """Simulate autoscaling policies on a trace of demand, from the trials of a run.

    Without --live nothing is measured: replicas are simulated as the run's trials show them. The
    answer is kept in the run folder as autoscale.json, with the chosen policy's manifests for KEDA
    and for an HPA beside it, and shown in its report.
    """
    typed = typed_options(context)
    _check_together(typed, course)
    if live.resume:
        return _show(run_folder, *_resumed(run_folder, repository), as_json=as_json)
    length_s = live.length_s
    terms, demand = scaler.terms(live=length_s is not None), course.shaped()
    from harness.flow.autoscaling import AutoscaleQuestion
    from harness.flow.autoscaling import autoscale as autoscale_run
    from harness.study.objective import parse_objective

    question = AutoscaleQuestion(
        trace=_trace(run_folder, course, query),
        terms=terms,
        start_is_given=scaler.start_time is not None,
        max_is_given=scaler.max_replicas is not None or length_s is not None,
        demand=demand,
        slo=parse_objective(slo) if slo is not None else None,
        variant=variant,
        price=price.question(),
        usd_per_hour=price.usd_per_hour,
        scaled=manifests.scaled(),
    )
    with ProgressDisplay() as progress:
        if length_s is None:
            found, path = autoscale_run(run_folder, question, progress)
        else:
            from harness.flow.live_scaling import scale_live

            question = replace(question, own_machines=live.own_machines)
            found, path = scale_live(run_folder, question, length_s, repository, progress)
    return _show(run_folder, found, path, as_json=as_json)


_OF_PROMETHEUS = (
    "--prometheus", "--prometheus-header", "--query", "--since", "--until", "--step",
)  # fmt: skip
_WITH_RESUME = ("--resume", "--repository", "--json")


def _check_together(typed: Typed, course: TraceOptions) -> None:
    """Refuse what would do nothing beside, or without, what else was typed.

    Raises:
        UsageError: there is some.
    """
    others = [flag for flag in typed if flag not in _WITH_RESUME]
    if "--resume" in typed and others:
        raise UsageError(
            "--resume goes on with what the interrupted run was asked",
            next_step=f"leave {', '.join(others)} out",
        )
    of_prometheus = [flag for flag in typed if flag in _OF_PROMETHEUS]
    if of_prometheus and course.trace != _PROMETHEUS:
        raise UsageError(
            f"{', '.join(of_prometheus)}: of --trace prometheus alone",
            next_step="write --trace prometheus, or leave that out",
        )
    refuse_without(typed, "--live", ("--own-machines",), "--live 3min")
    refuse_without(typed, "--instance", ("--measured-on", "--prices"), "--instance c7i.xlarge")


def _resumed(run_folder: Path, repository: Path) -> tuple[AutoscalePlan, Path]:
    from harness.flow.live_scaling import resume_live

    with ProgressDisplay() as progress:
        return resume_live(run_folder, repository, progress)


def _show(run_folder: Path, found: AutoscalePlan, path: Path, *, as_json: bool) -> int:
    from harness.report.terminal.autoscaling import autoscale_notes, autoscale_table, live_table

    if as_json:
        print_json(found)
        return EXIT_OK
    live = [live_table(found.live, found.terms.machine)] if found.live else []
    print_blocks(autoscale_table(found), autoscale_notes(found), *live)
    for name in found.manifests:
        print_line(f"manifest: {path.with_suffix(f'.{name}')}")
    print_line(f"policies: {path}\nreport: {run_folder / 'report.html'}#autoscaling")
    return EXIT_OK


def _trace(folder: Path, course: TraceOptions, query: QueryOptions) -> RateTrace:
    """The demand over time, from wherever it was asked to come.

    Raises:
        UsageError: options that do not belong together, or a query without data.
        DataError: a file that cannot be read.
    """
    from harness.load.schedule.demand import SHAPES, read_demand, scaled_to

    name = course.trace
    if name is None:
        raise UsageError(
            "no trace of demand",
            next_step=f"name a file, prometheus, or one of: --trace {', '.join(SHAPES)}",
        )
    mean = parse_rate(course.demand) if course.demand else None
    if course.trace_unit is not None and name in {*SHAPES, _PROMETHEUS}:
        raise UsageError(
            f"--trace-unit {course.trace_unit} is of a file's times, and the trace is {name}",
            next_step="leave it out, or name a file: --trace rates.csv",
        )
    if name in SHAPES:
        return _made(folder, course, mean)
    if course.peak is not None:
        raise UsageError(
            "--peak is of a made-up trace: a recorded one has its own",
            next_step=f"leave it out, or name one of: {', '.join(SHAPES)}",
        )
    if name == _PROMETHEUS:
        found = query.given()
    elif Path(name).is_file():
        found = read_demand(Path(name), course.trace_unit)
    else:
        raise UsageError(
            f"--trace {name}: no such file",
            next_step=f"name a file, prometheus, or one of: {', '.join(SHAPES)}",
        )
    return scaled_to(found, mean) if mean else found


def _made(folder: Path, course: TraceOptions, mean: float | None) -> RateTrace:
    from harness.flow.plan import PLAN
    from harness.load.schedule.demand import made_demand
    from harness.runs.documents import read_document

    plan = read_document(folder, PLAN, CapacityPlan) if mean is None and folder.is_dir() else None
    if mean is None and plan is None:
        raise UsageError(
            f"--trace {course.trace} needs its mean rate",
            next_step="say it: --demand 2000/s; of a run that was planned, the plan's is taken",
        )
    default = plan.demand.peak_factor if plan else 3.0
    factor = parse_peak(course.peak) if course.peak is not None else default
    return made_demand(
        course.trace or "", mean or (plan.demand.rate_per_s if plan else 0.0), factor
    )

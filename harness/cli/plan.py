"""harness plan: replicas for a demand, predicted from a run's trials."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line
from harness.cli.cost import print_costs
from harness.cli.options import AsJson
from harness.errors import EXIT_OK, UsageError
from harness.flow.costing import price_run
from harness.flow.plan import PlanQuestion, plan_capacity
from harness.planning.capacity.demand import parse_peak, parse_rate, parse_seconds, parse_share
from harness.planning.capacity.plan import Surroundings
from harness.planning.cost.catalogue import read_catalogue
from harness.planning.cost.costs import CostQuestion
from harness.report.terminal.capacity import plan_notes, plan_table
from harness.study.objective import parse_objective
from harness.types.estimates import Demand
from harness.types.workloads import check_mix, parse_arrivals, parse_mix


def plan(
    run_folder: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    demand: Annotated[
        str,
        typer.Option(help="Mean rate of requests: 2000/s, 120k/min, 5M/day.", show_default=False),
    ],
    peak: Annotated[str, typer.Option(help="Peak over the mean.")] = "1x",
    slo: Annotated[
        str | None, typer.Option(help="Objective; default: the run's.", show_default=False)
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Rows per request, or a mix by weight: 1:0.7,8:0.3.")
    ] = "1",
    arrivals: Annotated[
        str, typer.Option(help="Arrivals at a constant rate: poisson, constant or gamma:CV.")
    ] = "poisson",
    zones: Annotated[int, typer.Option(min=1, help="Zones that the replicas are spread over.")] = 3,
    max_unavailable: Annotated[
        str, typer.Option(help="Replicas that a rolling update takes away at a time.")
    ] = "25%",
    ramp: Annotated[
        str, typer.Option(help="How long the demand takes from its mean to its peak.")
    ] = "10min",
    queue_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Requests that may wait in a replica; default: any number."),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Only this variant; may be repeated.")
    ] = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(
            help="Also price the plan on this instance type, as harness cost does; may be repeated."
        ),
    ] = None,
    measured_on: Annotated[
        str, typer.Option(help="Instance type that the run was measured on; default: as detected.")
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Predict how many replicas a demand takes, with headroom, from the trials of a run.

    Nothing is measured: each variant's replica is simulated at other rates. The plan is kept in
    the run folder as plan.json, and shown in its report.
    """
    question = PlanQuestion(
        demand=Demand(
            rate_per_s=parse_rate(demand),
            peak_factor=parse_peak(peak),
            arrivals=parse_arrivals(arrivals),
            batch_mix=_mix(batch),
        ),
        surroundings=Surroundings(zones, parse_share(max_unavailable), parse_seconds(ramp)),
        slo=parse_objective(slo) if slo is not None else None,
        variants=tuple(variant or ()),
        queue_limit=queue_limit,
    )
    today = datetime.now(UTC).date()
    catalogue = read_catalogue(today=today)
    types = tuple(catalogue.named(one).name for one in instance or ())
    with ProgressDisplay() as progress:
        found, path = plan_capacity(run_folder, question, progress)
    if as_json:
        print_json(found)
        return EXIT_OK
    print_blocks(plan_table(found), plan_notes(found))
    if types:
        asked = CostQuestion(
            today=today, instances=types, measured_on=measured_on, slo=question.slo
        )
        print_costs(price_run(run_folder, found.demand, catalogue, asked)[0])
    print_line(f"plan: {path}\nreport: {run_folder / 'report.html'}#capacity")
    return EXIT_OK


def _mix(text: str) -> tuple[tuple[int, float], ...]:
    """Rows per request: one number, or sizes by weight."""
    if ":" in text:
        return parse_mix(text)
    try:
        mix = ((int(text), 1.0),)
    except ValueError as error:
        raise UsageError(
            f"'{text}' is no number of rows per request",
            next_step="write it as --batch 8, or as a mix by weight: --batch 1:0.7,8:0.3",
        ) from error
    check_mix("--batch", mix)
    return mix

"""harness plan: replicas for a demand, predicted from a run's trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line
from harness.cli.cost import print_costs
from harness.cli.options import AsJson, MeasuredOn, RunPath, with_option_groups
from harness.cli.typed import refuse_without, typed_options
from harness.errors import EXIT_OK, UsageError
from harness.planning.capacity.demand import (
    parse_peak,
    parse_rate,
    parse_seconds,
    parse_unavailable,
)
from harness.types import ServiceLevelObjective
from harness.types.estimates import Demand
from harness.types.workloads import check_mix, parse_arrivals, parse_mix

if TYPE_CHECKING:
    from harness.planning.cost.catalogue import Catalogue
    from harness.planning.cost.costs import CostQuestion


@dataclass(frozen=True)
class PlannedTraffic:
    """The demand that the replicas carry."""

    demand: Annotated[
        str,
        typer.Option(help="Mean rate of requests: 2000/s, 120k/min, 5M/day.", show_default=False),
    ]
    peak: Annotated[str, typer.Option(help="Peak over the mean.")] = "1x"
    batch: Annotated[
        str, typer.Option(help="Rows per request, or a mix by weight: 1:0.7,8:0.3.")
    ] = "1"
    arrivals: Annotated[
        str, typer.Option(help="Arrivals at a constant rate: poisson, constant or gamma:CV.")
    ] = "poisson"
    ramp: Annotated[
        str, typer.Option(help="How long the demand takes from its mean to its peak.")
    ] = "10min"

    def parsed(self) -> Demand:
        """The demand, without its ramp.

        Raises:
            UsageError: a rate, a factor, a mix or arrivals that are none.
        """
        return Demand(
            rate_per_s=parse_rate(self.demand),
            peak_factor=parse_peak(self.peak),
            arrivals=parse_arrivals(self.arrivals),
            batch_mix=parse_rows(self.batch),
        )


@dataclass(frozen=True)
class PlannedDeployment:
    """What the replicas run in."""

    zones: Annotated[int, typer.Option(min=1, help="Zones that the replicas are spread over.")] = 3
    max_unavailable: Annotated[
        str, typer.Option(help="Replicas that a rolling update takes away at a time.")
    ] = "25%"
    queue_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Requests that may wait in a replica; default: any number."),
    ] = None
    variant: Annotated[
        list[str], typer.Option(help="Only this variant; may be repeated.", show_default=False)
    ] = field(default_factory=list)


@dataclass(frozen=True)
class PlanPrices:
    """The machines that the plan is priced on, if it is."""

    instance: Annotated[
        list[str],
        typer.Option(
            help="Also price the plan on this instance type, as harness cost does; may be "
            "repeated. With --json the costs are in cost.json alone.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    measured_on: MeasuredOn = ""

    def question(self, slo: ServiceLevelObjective | None) -> tuple[Catalogue, CostQuestion] | None:
        """What is to be priced, and by which prices; None where no type is named.

        Raises:
            UsageError: a type that the catalogue does not have.
        """
        from harness.planning.cost.catalogue import read_catalogue
        from harness.planning.cost.costs import CostQuestion

        today = datetime.now(UTC).date()
        catalogue = read_catalogue(today=today)
        for name in (*self.instance, *filter(None, [self.measured_on])):
            catalogue.named(name)
        if not self.instance:
            return None
        return catalogue, CostQuestion(
            today=today, instances=tuple(self.instance), measured_on=self.measured_on, slo=slo
        )


@with_option_groups
def plan(
    context: typer.Context,
    run_folder: RunPath,
    slo: Annotated[
        str | None, typer.Option(help="Objective; default: the run's.", show_default=False)
    ] = None,
    *,
    traffic: PlannedTraffic,
    deployment: PlannedDeployment,
    prices: PlanPrices,
    as_json: AsJson = False,
) -> int:
    """Predict how many replicas a demand takes, with headroom, from the trials of a run.

    Nothing is measured: each variant's replica is simulated at other rates. The plan is kept in
    the run folder as plan.json, and shown in its report.
    """
    refuse_without(
        typed_options(context), "--instance", ("--measured-on",), "--instance c7i.xlarge"
    )
    demand = traffic.parsed()
    unavailable, ramp_s = parse_unavailable(deployment.max_unavailable), parse_seconds(traffic.ramp)
    from harness.flow.costing import price_run
    from harness.flow.plan import PlanQuestion, plan_capacity
    from harness.planning.capacity.headroom import Surroundings
    from harness.report.terminal.capacity import plan_notes, plan_table
    from harness.study.objective import parse_objective

    question = PlanQuestion(
        demand=demand,
        surroundings=Surroundings(deployment.zones, unavailable, ramp_s),
        slo=parse_objective(slo) if slo is not None else None,
        variants=tuple(deployment.variant),
        queue_limit=deployment.queue_limit,
    )
    priced = prices.question(question.slo)
    with ProgressDisplay() as progress:
        found, path = plan_capacity(run_folder, question, progress)
    if as_json:
        print_json(found)
    else:
        print_blocks(plan_table(found), plan_notes(found))
    if priced is not None:
        costs, _ = price_run(run_folder, found.demand, *priced)
        if not as_json:
            print_costs(costs)
    if not as_json:
        print_line(f"plan: {path}\nreport: {run_folder / 'report.html'}#capacity")
    return EXIT_OK


def parse_rows(text: str) -> tuple[tuple[int, float], ...]:
    """Rows per request, each with its weight: from one number, or from sizes by weight.

    Raises:
        UsageError: neither.
    """
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

"""harness cost: what a run's variants cost to serve, the teacher beside its students."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import typer

from harness.cli.console import print_blocks, print_json, print_line, warn
from harness.cli.options import AsJson, MeasuredOn, OwnPrices, RunPath, Spot, with_option_groups
from harness.cli.typed import refuse_without, typed_options
from harness.planning.capacity.demand import parse_peak, parse_rate
from harness.types.costs import HORIZON_MONTHS, CostReport
from harness.types.estimates import Demand


@dataclass(frozen=True)
class MachineOptions:
    """Options for the machine that answers are priced on."""

    instance: Annotated[
        list[str],
        typer.Option(
            help="Instance type to price; may be repeated. Default: the one that was measured, and "
            "the cheapest comparable one of each cloud.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    measured_on: MeasuredOn = ""
    spot: Spot = False
    prices: OwnPrices = None


@dataclass(frozen=True)
class DemandOptions:
    """Options for the traffic to carry."""

    demand: Annotated[
        str | None,
        typer.Option(
            help="Mean rate of requests: 2000/s, 120k/min, 5M/day; default: the newest plan's.",
            show_default=False,
        ),
    ] = None
    peak: Annotated[
        str, typer.Option(help="The busiest minutes' rate over the mean rate, such as 3x.")
    ] = "1x"
    rows_per_request: Annotated[
        int, typer.Option(min=1, help="Inferences that a request of the demand carries.")
    ] = 1

    def given(self) -> Demand | None:
        """The demand; None where none was given.

        Raises:
            UsageError: it is no rate, or the peak is no factor of at least 1.
        """
        if self.demand is None:
            return None
        return Demand(
            parse_rate(self.demand),
            peak_factor=parse_peak(self.peak),
            batch_mix=((self.rows_per_request, 1.0),),
        )


@dataclass(frozen=True)
class InvestmentOptions:
    """What the distillation cost, and what else money is counted in."""

    training_cost: Annotated[float, typer.Option(help="USD that training the students cost.")] = 0.0
    engineering_cost: Annotated[
        float, typer.Option(help="USD of engineering for the distillation.")
    ] = 0.0
    horizon: Annotated[float, typer.Option(help="Months over which the return is counted.")] = (
        HORIZON_MONTHS
    )
    tokens_per_inference: Annotated[
        float | None,
        typer.Option(
            help="Tokens of one row, for the cost per million tokens; default: the mean of what "
            "was sent, where the run kept it.",
            show_default=False,
        ),
    ] = None


@with_option_groups
def cost(
    context: typer.Context,
    run_folder: RunPath,
    slo: Annotated[
        str | None,
        typer.Option(help="Objective to meet; default: the study's.", show_default=False),
    ] = None,
    *,
    machine: MachineOptions,
    traffic: DemandOptions,
    invested: InvestmentOptions,
    as_json: AsJson = False,
) -> None:
    """Price a run's variants at the highest load that meets the objective."""
    refuse_without(
        typed_options(context), "--demand", ("--peak", "--rows-per-request"), "--demand 2000/s"
    )
    demand = traffic.given()
    from harness.flow.costing import price_run
    from harness.planning.cost.catalogue import read_catalogue
    from harness.planning.cost.costs import CostQuestion
    from harness.study.objective import parse_objective

    today = datetime.now(UTC).date()
    question = CostQuestion(
        today=today,
        instances=tuple(machine.instance),
        measured_on=machine.measured_on,
        spot=machine.spot,
        tokens_per_inference=invested.tokens_per_inference,
        training_usd=invested.training_cost,
        engineering_usd=invested.engineering_cost,
        horizon_months=invested.horizon,
        slo=None if slo is None else parse_objective(slo),
    )
    catalogue = read_catalogue(machine.prices, today=today)
    found, written = price_run(run_folder, demand, catalogue, question)
    if as_json:
        print_json(found)
        return
    print_costs(found)
    print_line(f"costs: {written}\nreport: {run_folder / 'report.html'}#cost")


def print_costs(found: CostReport) -> None:
    """The tables of costs and savings, then what has none and what to know, on standard error."""
    from harness.report.terminal.cost import (
        cost_table,
        savings_table,
        streams_table,
        tokens_table,
    )

    tokens = any(one.usd_per_million_tokens for one in found.costs)
    streams = any(one.usd_per_million_output_tokens for one in found.costs)
    print_blocks(
        cost_table(found),
        *([tokens_table(found)] if tokens else []),
        *([streams_table(found)] if streams else []),
        *([savings_table(found)] if found.savings else []),
    )
    for one in found.unpriced:
        on = f" on {one.instance}" if one.instance else ""
        warn(f"{one.variant} has no cost{on}: {one.reason}; {one.next_step}")
    for note in found.notes:
        warn(note)

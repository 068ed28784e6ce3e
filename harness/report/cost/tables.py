"""A run's costs as tables: per million and per month, and what a student saves."""

from __future__ import annotations

from harness.report.cost.words import basis, bounds, paid_back
from harness.report.tables.model import Cell, Column, Table, numeric, trial_anchor, words
from harness.types.costs import BreakEven, CostReport, MachineFleet, Saving, VariantCost
from harness.types.estimates import Interval
from harness.words.numbers import MISSING, asked, number, percent, whole


def costs_table(report: CostReport) -> Table:
    """A row per variant and instance type; of a variant the cheapest first."""
    tokens = any(one.usd_per_million_tokens for one in report.costs)
    streams = any(one.usd_per_million_output_tokens for one in report.costs)
    monthly = report.demand is not None
    ordered = sorted(report.costs, key=lambda one: (one.family, one.variant))
    return Table(
        caption="Cost at the highest load that meets the objective",
        columns=(
            Column("Variant", numeric=False),
            Column("Instance type", numeric=False),
            Column("Throughput", "inferences/s"),
            Column("Per million inferences", "USD"),
            *((Column("Per million tokens", "USD"),) if tokens else ()),
            *(_STREAMS if streams else ()),
            *((Column("Machines"), Column("Per month", "USD")) if monthly else ()),
        ),
        rows=tuple(_row(one, tokens=tokens, streams=streams, monthly=monthly) for one in ordered),
        note=_note(report) + (f" {_TOKENS_NOTE}" if streams else ""),
        sortable=True,
    )


_STREAMS = (
    Column("Per million output tokens", "USD"),
    Column("Per million input tokens", "USD"),
)
_TOKENS_NOTE = (
    "Per million output tokens: the whole machine's cost over the tokens that it writes, the "
    "reading of their prompts included; per million input tokens: the same over the tokens that it "
    "reads. They are two views of one cost, not to be added up. A stream is one inference."
)


def _row(one: VariantCost, *, tokens: bool, streams: bool, monthly: bool) -> tuple[Cell, ...]:
    price = (
        f"{basis(is_estimate=one.is_estimate)}; {asked(one.pricing.usd_per_hour)} USD/h\n"
        f"{one.region or 'own price'}, {one.price_date}"
    )
    extra: list[Cell] = []
    if tokens:
        extra.append(_amount(one.usd_per_million_tokens))
    if streams:
        extra.append(_amount(one.usd_per_million_output_tokens))
        extra.append(_amount(one.usd_per_million_input_tokens))
    if monthly:
        extra += _fleet(one.fleet)
    return (
        Cell(one.variant, link=f"#{trial_anchor(one.trial_id)}"),
        words(one.instance, price),
        _amount(one.inferences_per_s),
        _amount(one.usd_per_million_inferences),
        *extra,
    )


def _fleet(fleet: MachineFleet | None) -> tuple[Cell, Cell]:
    """Machines, and what they cost per month."""
    if fleet is None:
        return Cell(MISSING), Cell(MISSING)
    many = fleet.machines
    return numeric(whole(many.value), many.value, bounds(many, whole)), _amount(fleet.usd_per_month)


def _amount(amount: Interval | None) -> Cell:
    if amount is None:
        return Cell(MISSING)
    return numeric(number(amount.value), amount.value, bounds(amount))


def _note(report: CostReport) -> str:
    said = (
        f"Measured on {report.measured_on.title}. Each variant at its own best trial that meets "
        "the objective (on the page its name leads there), on a machine that is always at that "
        "load; in small type the interval, with the bounds of the estimate where there is one."
    )
    demand = report.demand
    if demand is None:
        return said
    peak = f", {asked(demand.peak_factor)} times that at the peak" if demand.peak_factor > 1 else ""
    many = "those of the plan, headroom included" if report.planned else "as many as the peak fills"
    return (
        f"{said} Per month of 730 hours, for {asked(demand.rate_per_s)} requests/s on average"
        f"{peak}; machines are {many}."
    )


def rules_of(report: CostReport) -> tuple[str, ...]:
    """How the throughput on each type that was not measured was estimated, once for each."""
    rules = (f"{one.instance}: {one.pricing.rule}" for one in report.costs if one.is_estimate)
    return tuple(dict.fromkeys(rules))


def savings_table(report: CostReport) -> Table:
    """A row per student and instance type."""
    monthly = report.demand is not None
    paid = any(one.break_even for one in report.savings)
    first = next((one.break_even for one in report.savings if one.break_even), None)
    invested = f" {asked(first.invested_usd)} USD were invested." if first else ""
    horizon = f"over {asked(first.horizon_months)} months" if first else ""
    return Table(
        caption="Saved by a student in the teacher's place",
        columns=(
            Column("Student", numeric=False),
            Column("Teacher", numeric=False),
            Column("Instance type", numeric=False),
            Column("Saved", "of the cost per million"),
            *((Column("Saved", "USD per month"),) if monthly else ()),
            *((Column("Paid back after"), Column("Return", horizon)) if paid else ()),
        ),
        rows=tuple(_saved(one, monthly=monthly, paid=paid) for one in report.savings),
        note="Beside the teacher's cheapest variant that meets the objective, because quantising "
        "the teacher costs less than a distillation. The share is that of the measured throughputs "
        "(another type is taken to be as much faster for both); bounds combine the least and the "
        f"most favourable of both, so they are wide.{invested}",
    )


def _saved(one: Saving, *, monthly: bool, paid: bool) -> tuple[Cell, ...]:
    extra: list[Cell] = []
    if monthly:
        extra.append(_amount(one.usd_per_month))
    if paid:
        extra += _paid_back(one.break_even)
    return (
        words(one.student),
        words(one.teacher),
        words(one.instance, basis(is_estimate=one.is_estimate)),
        numeric(percent(one.share.value), one.share.value, bounds(one.share, percent)),
        *extra,
    )


def _paid_back(one: BreakEven | None) -> tuple[Cell, Cell]:
    """Months, and the return on what was invested."""
    if one is None:
        return Cell(MISSING), Cell(MISSING)
    months, ends = paid_back(one)
    gained = one.return_on_investment
    return (
        numeric(months, one.months, ends),
        Cell(MISSING)
        if gained is None
        else numeric(percent(gained.value), gained.value, bounds(gained, percent)),
    )

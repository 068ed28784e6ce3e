"""What serving costs, on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table

from harness.types.costs import BreakEven, CostReport, VariantCost
from harness.types.estimates import Interval
from harness.words.numbers import MISSING, number, percent, span

ESTIMATE, MEASURED, NEVER = "estimate", "measured", "never"


def cost_table(report: CostReport) -> Table:
    """A row for each variant on each instance type; of a variant the cheapest first."""
    table = _table("Cost at the highest load that meets the objective", "variant", "instance")
    heads = ["USD/h", "inferences/s", "USD per 1M"]
    tokens = any(one.usd_per_million_tokens for one in report.costs)
    if tokens:
        heads.append("per 1M tokens")
    if report.demand is not None:
        heads += ["machines", "USD/month"]
        table.caption = "machines: as many as the peak fills, unless a plan says how many"
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    ordered = sorted(report.costs, key=lambda one: (one.family, one.variant))
    for number_of, one in enumerate(ordered, start=1):
        last = number_of == len(ordered) or ordered[number_of].variant != one.variant
        table.add_row(*_row(one, report, tokens=tokens), end_section=last)
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _row(one: VariantCost, report: CostReport, *, tokens: bool) -> list[str]:
    cells = [
        one.variant,
        _place(one.instance, is_estimate=one.is_estimate),
        f"{one.pricing.usd_per_hour:,.4g}",
        interval(one.inferences_per_s),
        interval(one.usd_per_million_inferences),
    ]
    if tokens:
        cells.append(interval(one.usd_per_million_tokens))
    if report.demand is not None:
        fleet = one.fleet
        cells += (
            [MISSING, MISSING]
            if fleet is None
            else [_bounded(fleet.machines, "{:,.0f}".format), interval(fleet.usd_per_month)]
        )
    return cells


def savings_table(report: CostReport) -> Table:
    """A row for each student in the teacher's place."""
    table = _table("Saved by a student in the teacher's place", "student", "instance")
    monthly = report.demand is not None
    paid = any(one.break_even for one in report.savings)
    heads = ["share saved", *(["USD/month"] if monthly else []), *(["paid back"] if paid else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for one in report.savings:
        cells = [one.student, _place(one.instance, is_estimate=one.is_estimate)]
        cells.append(_bounded(one.share, percent))
        if monthly:
            cells.append(interval(one.usd_per_month))
        if paid:
            cells.append(MISSING if one.break_even is None else paid_back(one.break_even))
        table.add_row(*cells)
    return table


def _place(instance: str, *, is_estimate: bool) -> str:
    return f"{instance}\n{ESTIMATE if is_estimate else MEASURED}"


def interval(amount: Interval | None) -> str:
    """A value, and its bounds below it where it has any width."""
    return MISSING if amount is None else _bounded(amount, number)


def _bounded(amount: Interval, read: Callable[[float], str]) -> str:
    if amount.low == amount.high:
        return read(amount.value)
    return f"{read(amount.value)}\n{span(read(amount.low), read(amount.high))}"


def paid_back(one: BreakEven) -> str:
    """Months until savings have paid for what was invested; `never` where nothing is saved."""
    if one.earliest_months is None:
        return NEVER
    value = NEVER if one.months is None else f"{one.months:.1f} months"
    if one.earliest_months == one.latest_months:
        return value
    latest = NEVER if one.latest_months is None else f"{one.latest_months:.1f}"
    return f"{value}\n{one.earliest_months:.1f} to {latest}"

"""What serving costs, on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from harness.report.cost.words import basis, bounds, paid_back
from harness.types.costs import CostReport, VariantCost
from harness.types.estimates import Interval
from harness.words.numbers import MISSING, asked, number, percent, whole


def cost_table(report: CostReport) -> Table:
    """A row for each variant on each instance type; of a variant the cheapest first."""
    table = _table("Cost at the highest load that meets the objective", "variant", "instance")
    heads = ["USD/h", "inferences/s", "USD per 1M"]
    if report.demand is not None:
        heads += ["machines", "USD/month"]
        table.caption = (
            "machines: the plan's replicas, headroom included"
            if report.planned
            else "machines: as many as the peak fills, none spare; harness plan counts headroom"
        )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    ordered = sorted(report.costs, key=lambda one: (one.family, one.variant))
    for number_of, one in enumerate(ordered, start=1):
        last = number_of == len(ordered) or ordered[number_of].variant != one.variant
        table.add_row(*map(Text, _row(one, report)), end_section=last)
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _row(one: VariantCost, report: CostReport) -> list[str]:
    cells = [
        one.variant,
        _place(one.instance, is_estimate=one.is_estimate),
        f"{asked(one.pricing.usd_per_hour)}",
        _bounded(one.inferences_per_s),
        _bounded(one.usd_per_million_inferences),
    ]
    if report.demand is not None:
        fleet = one.fleet
        cells += (
            [MISSING, MISSING]
            if fleet is None
            else [_bounded(fleet.machines, whole), _bounded(fleet.usd_per_month)]
        )
    return cells


def tokens_table(report: CostReport) -> Table:
    """A row for each variant whose tokens are known, on each instance type."""
    table = _table("Cost per million tokens", "variant", "instance")
    for head in ("tokens per inference", "USD per 1M tokens"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in report.costs:
        if one.usd_per_million_tokens is not None:
            place = _place(one.instance, is_estimate=one.is_estimate)
            cost = _bounded(one.usd_per_million_tokens)
            cells = (one.variant, place, number(one.tokens_per_inference), cost)
            table.add_row(*map(Text, cells))
    return table


def streams_table(report: CostReport) -> Table:
    """A row for each variant that writes, on each instance type: its cost by tokens."""
    table = _table("Cost per million tokens of streams", "variant", "instance")
    for head in ("USD per 1M output", "USD per 1M input"):
        table.add_column(head, justify="right", no_wrap=True)
    table.caption = (
        "the whole machine over the tokens written, and over those read: not to be added"
    )
    for one in report.costs:
        if one.usd_per_million_output_tokens is not None:
            place = _place(one.instance, is_estimate=one.is_estimate)
            costs = (one.usd_per_million_output_tokens, one.usd_per_million_input_tokens)
            table.add_row(*map(Text, (one.variant, place, *map(_bounded, costs))))
    return table


def savings_table(report: CostReport) -> Table:
    """A row for each student in the teacher's place."""
    table = _table("Saved by a student in the teacher's place", "student", "teacher", "instance")
    monthly = report.demand is not None
    paid = any(one.break_even for one in report.savings)
    heads = ["share saved", *(["USD/month"] if monthly else []), *(["paid back"] if paid else [])]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for one in report.savings:
        place = _place(one.instance, is_estimate=one.is_estimate)
        cells = [one.student, one.teacher, place]
        cells.append(_bounded(one.share, percent))
        if monthly:
            cells.append(_bounded(one.usd_per_month))
        if paid:
            cells.append(MISSING if one.break_even is None else _lines(*paid_back(one.break_even)))
        table.add_row(*map(Text, cells))
    return table


def _place(instance: str, *, is_estimate: bool) -> str:
    return f"{instance}\n{basis(is_estimate=is_estimate)}"


def _bounded(amount: Interval | None, read: Callable[[float], str] = number) -> str:
    """A value, and its bounds below it where it has any width."""
    return MISSING if amount is None else _lines(read(amount.value), bounds(amount, read))


def _lines(value: str, below: str) -> str:
    return f"{value}\n{below}" if below else value

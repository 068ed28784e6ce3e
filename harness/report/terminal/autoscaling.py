"""Autoscaling policies on the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.report.autoscaling.section import notes_of
from harness.report.autoscaling.tables import (
    chosen_words,
    measured_table,
    policies_table,
    terms_words,
    trace_words,
)
from harness.report.terminal.review import rich_table
from harness.types.autoscaling import AutoscalePlan, LiveOutcome, SharedMachine


def autoscale_table(plan: AutoscalePlan) -> Table:
    """A table with one row per policy."""
    return rich_table(policies_table(plan))


def live_table(live: LiveOutcome, machine: SharedMachine | None) -> Table:
    """Measured beside predicted; by what was known of the machine that all replicas shared."""
    table = rich_table(found := measured_table(live, machine))
    table.caption, table.caption_justify = found.note, "left"
    return table


def autoscale_notes(plan: AutoscalePlan) -> Group:
    """What was simulated, which policy to take, and what to know."""
    style = "bold green" if plan.chosen else "bold yellow"
    return Group(
        Text(f"{plan.variant} for {plan.objective}; {trace_words(plan.trace)}", style="dim"),
        Text(terms_words(plan), style="dim"),
        *(Text(f"note: {line}", style="dim") for line in notes_of(plan)),
        Text(chosen_words(plan), style=style),
    )

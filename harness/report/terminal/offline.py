"""A job with a deadline on the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from harness.report.offline import tables
from harness.report.offline.section import left_out_words, notes_of
from harness.report.terminal.review import rich_table
from harness.types.offline import OfflinePlan


def offline_table(plan: OfflinePlan) -> Table:
    """A row per variant and instance type."""
    return rich_table(tables.needs_table(plan, brief=True))


def curves_table(plan: OfflinePlan) -> Table:
    """A row per variant and batch size."""
    return rich_table(tables.curves_table(plan))


def offline_notes(plan: OfflinePlan) -> Group:
    """What the numbers rest on, what to know, and what to take."""
    return Group(
        *(Text(tables.variant_words(one), style="dim") for one in plan.variants),
        *(Text(f"without machines: {line}", style="yellow") for line in left_out_words(plan)),
        *(Text(f"note: {line}", style="dim") for line in notes_of(plan)),
        *(Text(line) for line in tables.beside_teacher(plan)),
        *(
            Text(
                tables.choice_words(plan, one),
                style="bold green" if one.variant else "bold yellow",
            )
            for one in plan.choices
        ),
    )

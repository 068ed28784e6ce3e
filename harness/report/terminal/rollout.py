"""A rollout on the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from harness.report.rollout.section import changes_table as changes_of
from harness.report.rollout.words import sizes_words
from harness.report.terminal.run import plain_table
from harness.types.rollout import RolloutRecord


def changes_table(record: RolloutRecord) -> Table:
    """The decisions, a row each."""
    found = changes_of(record)
    table = plain_table(f"{record.plan.student} in place of {record.plan.teacher}")
    for column in found.columns:
        table.add_column(column.title, justify="right" if column.numeric else "left")
    for row in found.rows:
        table.add_row(*(Text(cell.plain) for cell in row))
    return table


def planned_lines(record: RolloutRecord) -> tuple[str, ...]:
    """Planned sizes, and what the rollout is not held to."""
    return (*sizes_words(record), *record.notes)

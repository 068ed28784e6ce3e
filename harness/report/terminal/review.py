"""What `harness decide` and `harness compare` print."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.review.comparison import comparison_table, summary_words
from harness.report.review.tables import matrix_table, ranking_tables
from harness.report.tables.model import Cell
from harness.report.tables.model import Table as DataTable
from harness.report.terminal.run import plain_table
from harness.types.review import DecisionReview, RunComparison
from harness.words.labels import SIGNS

_TONES = {"pass": "green", "fail": "red", "undecided": "yellow", "invalid": "dim"}


def rich_table(data: DataTable) -> Table:
    """A table of the report as the terminal has it, what stands in small type below its value."""
    table = plain_table(data.caption)
    for column in data.columns:
        title = f"{column.title}\n{column.unit}" if column.unit else column.title
        table.add_column(title, justify="right" if column.numeric else "left", overflow="fold")
    for row in data.rows:
        table.add_row(*map(_text, row))
    return table


def _text(cell: Cell) -> Text:
    text = Text(f"{cell.symbol} {cell.text}".strip(), style=_TONES.get(cell.tone, ""))
    return text.append(f"\n{cell.detail}", style="dim") if cell.detail else text


def comparison_blocks(comparison: RunComparison, folder: Path) -> list[RenderableType]:
    """A table per family, the notes, and the outcome."""
    families = dict.fromkeys(one.family for one in comparison.metrics)
    tables = [rich_table(comparison_table(comparison, name, folder)) for name in families]
    notes = [Text(f"note: {note}", style="dim") for note in comparison.notes]
    sign = SIGNS[comparison.decision]
    outcome = Text(f"{sign.symbol} {summary_words(comparison)}", style=f"bold {_TONES[sign.tone]}")
    return [*tables, *([Group(*notes)] if notes else []), outcome]


def decision_blocks(review: DecisionReview, folder: Path) -> list[RenderableType]:
    """Every family: the recommendation, the matrix, the ranking, the risks."""
    blocks: list[RenderableType] = []
    for matrix in review.matrices:
        sign = SIGNS[matrix.decision]
        head = Text(f"{sign.symbol} {sign.word}", style=f"bold {_TONES[sign.tone]}")
        head.append(f"  {matrix.family}: {matrix.objective}", style="bold default")
        lines = [Text(matrix.sentence)]
        lines += [Text(f"next: {matrix.next_step}")] if matrix.next_step else []
        lines += [Text(f"risk ({one.kind}): {one.text}", style="yellow") for one in matrix.risks]
        blocks += [
            rich_table(matrix_table(matrix, folder)),
            *map(rich_table, ranking_tables(matrix)),
            Group(head, *(Padding(line, (0, 0, 0, 2)) for line in lines)),
        ]
    return blocks

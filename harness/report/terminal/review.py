"""What `harness decide` and `harness compare` print."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.report.review.comparison import WORDS, comparison_table, summary_words
from harness.report.review.tables import matrix_table, ranking_tables
from harness.report.tables.model import Cell
from harness.report.tables.model import Table as DataTable
from harness.report.terminal.run import plain_table
from harness.types.review import Change, ComparedMetric, DecisionReview, RunComparison
from harness.words.labels import SIGNS
from harness.words.numbers import metric_title

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
    """A table per family of what changed, what could not be compared, the notes, the outcome.

    What shows no difference is counted only: the page has it.
    """
    blocks: list[RenderableType] = []
    for name in dict.fromkeys(one.family for one in comparison.metrics):
        own = tuple(one for one in comparison.metrics if one.family == name)
        shown = tuple(one for one in own if one.change not in _NOT_IN_THE_TABLE)
        if shown:
            told = dataclasses.replace(comparison, metrics=shown)
            blocks.append(_changes(comparison_table(told, name, folder)))
        lines = list(_not_compared(own))
        if same := sum(one.change is Change.SAME for one in own):
            lines.append(f"{name}: {same} of {len(own)} show no difference")
        if lines:
            blocks.append(Group(*(Text(line, style="dim") for line in lines)))
    notes = [Text(f"note: {note}", style="dim") for note in comparison.notes]
    sign = SIGNS[comparison.decision]
    said = f"{sign.symbol} {WORDS[comparison.decision]}: {summary_words(comparison)}"
    outcome = Text(said, style=f"bold {_TONES[sign.tone]}")
    return [*blocks, *([Group(*notes)] if notes else []), outcome]


_NOT_IN_THE_TABLE = frozenset({Change.SAME, Change.NOT_COMPARABLE})


def _changes(data: DataTable) -> Table:
    """The changes in words, the change itself first."""
    variant, metric, before, after, difference, change, _ = range(len(data.columns))
    order = (change, variant, metric, before, after, difference)
    return rich_table(
        dataclasses.replace(
            data,
            columns=tuple(data.columns[place] for place in order),
            rows=tuple(tuple(row[place] for place in order) for row in data.rows),
        )
    )


def _not_compared(metrics: Sequence[ComparedMetric]) -> Iterator[str]:
    """A line for each reason, with everything that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for one in metrics:
        if one.change is Change.NOT_COMPARABLE:
            metric = metric_title(one.metric) if one.metric else "everything"
            whose = f"of {one.variant}" if one.variant else "of the recommended configuration"
            by_reason.setdefault(one.reason, []).append(f"{metric} {whose}")
    for reason, names in by_reason.items():
        yield f"⊘ not comparable, because {reason}: {', '.join(names)}"


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

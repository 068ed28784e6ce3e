"""What the terminal's tables have in common."""

from __future__ import annotations

from rich.table import Table

from harness.report.labels import relative_value
from harness.report.numbers import span
from harness.types import QualityScore


def plain_table(title: str) -> Table:
    """Without lines, under its title."""
    return Table(
        title=title,
        title_justify="left",
        title_style="dim",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def relative_words(score: QualityScore) -> tuple[str, str]:
    """A score over the teacher's, and its interval."""
    low = relative_value(score.metric, score.relative_low)
    high = relative_value(score.metric, score.relative_high)
    return relative_value(score.metric, score.relative_to_teacher), span(low, high)

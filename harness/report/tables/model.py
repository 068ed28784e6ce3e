"""A table as data: the same rows become HTML, Markdown and a table on the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types import Decision
from harness.words.labels import SIGNS
from harness.words.numbers import MISSING


@dataclass(frozen=True)
class Column:
    """A column: its unit stands in the header, so cells hold bare numbers."""

    title: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell: text, further lines in small, and what it is sorted by."""

    text: str
    detail: str = ""
    sort: float | str | None = None
    """Value to sort by; None sorts last, whatever the direction."""
    tone: str = ""
    """CSS class of a decision, or `code` for a digest."""
    symbol: str = ""
    link: str = ""
    """Address, relative to the page, of where it came from."""
    anchor: str = ""
    """Name that links use for the row; in the row's first cell."""

    @property
    def missing(self) -> bool:
        """Whether nothing was measured."""
        return self.text == MISSING

    @property
    def sort_key(self) -> str:
        """What the page sorts by, empty for nothing."""
        if self.sort is not None:
            return str(self.sort)
        return "" if self.missing else self.text

    @property
    def plain(self) -> str:
        """One line: symbol, text, detail."""
        text = f"{self.symbol} {self.text}".strip()
        detail = self.detail.replace("\n", ", ")
        return f"{text} ({detail})" if detail else text


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    sortable: bool = False


def numeric(text: str, value: float | None, detail: str = "") -> Cell:
    """A number: sorted by its value, not by how it is written."""
    return Cell(text, detail=detail, sort=value)


def lines(*parts: str) -> str:
    """A cell's detail, a line for each part that says something."""
    return "\n".join(part for part in parts if part)


def words(text: str, detail: str = "") -> Cell:
    """A text; nothing known reads as an en dash."""
    return Cell(text or MISSING, detail=detail)


def trial_anchor(trial_id: str) -> str:
    """What links call a trial's row in a report."""
    return f"trial-{trial_id}"


def model_anchor(variant: str) -> str:
    """What links call a variant's row in a report."""
    return f"model-{variant}"


def decision_cell(decision: Decision | None, detail: str = "") -> Cell:
    """A decision by word and symbol."""
    if decision is None:
        return Cell(MISSING, detail=detail)
    sign = SIGNS[decision]
    return Cell(sign.word, detail=detail, tone=sign.tone, symbol=sign.symbol)

"""A run against an earlier one: `compare.html`, `compare.md`, and the table on the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness.report.findings import Setting
from harness.report.markdown import facts_list, table_blocks, text
from harness.report.page import render_page
from harness.report.review.figures import (
    difference_words,
    figure_cell,
    model_link,
    ratio_words,
)
from harness.report.tables.model import Cell, Column, Table, words
from harness.system.storage import replace_text
from harness.types import Decision
from harness.types.review import Change, ComparedMetric, RunComparison
from harness.words.labels import SIGNS, Sign
from harness.words.numbers import MISSING, heading

_TONES = {
    Change.BETTER: ("pass", "✓"),
    Change.WORSE: ("fail", "✕"),
    Change.TOLERATED: ("undecided", "↘"),
    Change.SAME: ("", "="),
    Change.UNDECIDED: ("undecided", "?"),
    Change.NOT_COMPARABLE: ("invalid", "⊘"),
}
WORDS = {
    Decision.PASS: "Nothing got worse",
    Decision.FAIL: "Something got worse",
    Decision.UNDECIDED: "Not decided",
}


@dataclass(frozen=True)
class ComparisonPage:
    """Everything that the comparison's page shows."""

    title: str
    sign: Sign
    facts: tuple[Setting, ...]
    summary: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]

    @property
    def plots(self) -> dict[str, object]:
        """No plots: every difference is a row of a table."""
        return {}


def comparison_page(comparison: RunComparison, page_folder: Path) -> ComparisonPage:
    """Choose and word everything.

    Args:
        comparison: of two runs.
        page_folder: where the page will lie, which its links start from.
    """
    sign = SIGNS[comparison.decision]
    facts = (
        Setting("Earlier run", comparison.before),
        Setting("Later run", comparison.after),
        Setting("Tolerated", comparison.tolerance or "nothing beyond its interval"),
    )
    families = dict.fromkeys(one.family for one in comparison.metrics)
    return ComparisonPage(
        title=f"{Path(comparison.after).name} against {Path(comparison.before).name}",
        sign=Sign(WORDS[comparison.decision], sign.symbol, sign.tone),
        facts=facts,
        summary=summary_words(comparison),
        tables=tuple(comparison_table(comparison, name, page_folder) for name in families),
        notes=comparison.notes,
    )


def summary_words(comparison: RunComparison) -> str:
    """How many metrics changed in which way, the worst first."""
    if not comparison.metrics:
        return "Nothing was compared: the runs have no metric in common."
    counts = Counter(one.change for one in comparison.metrics)
    order = (
        Change.WORSE, Change.UNDECIDED, Change.TOLERATED, Change.NOT_COMPARABLE, Change.BETTER,
        Change.SAME,
    )  # fmt: skip
    return f"{', '.join(f'{counts[one]} {one.value}' for one in order if counts[one])}."


def comparison_table(comparison: RunComparison, family: str, page_folder: Path) -> Table:
    """A row per metric of a family, what got worse first."""
    order = [Change.WORSE, Change.UNDECIDED]
    own = [one for one in comparison.metrics if one.family == family]
    own.sort(key=lambda one: order.index(one.change) if one.change in order else len(order))
    return Table(
        caption=family,
        columns=(
            Column("Variant", numeric=False),
            Column("Metric", numeric=False),
            Column("Before"),
            Column("After"),
            Column("Difference", "95% interval"),
            Column("Change", numeric=False),
            Column("How", numeric=False),
        ),
        rows=tuple(_row(one, comparison, page_folder) for one in own),
        note="Before and after are linked to where they were measured. Differences are after less "
        "before.",
    )


def _row(one: ComparedMetric, comparison: RunComparison, page_folder: Path) -> tuple[Cell, ...]:
    tone, symbol = _TONES[one.change]
    value, interval = ("", "") if not one.metric else difference_words(one.metric, one.difference)
    ratio = ratio_words(one.before, one.after) if one.difference else ""
    return (
        words(one.variant or ("recommended" if one.metric else "all"), one.point),
        words(heading(one.metric) if one.metric else MISSING),
        _figure(one, comparison.before, page_folder, later=False),
        _figure(one, comparison.after, page_folder, later=True),
        Cell(
            value or MISSING,
            detail="\n".join(part for part in (interval, ratio) if part),
            sort=one.difference.value if one.difference else None,
        ),
        Cell(one.change.value, tone=tone, symbol=symbol),
        words(one.reason),
    )


def _figure(one: ComparedMetric, run: str, page_folder: Path, *, later: bool) -> Cell:
    figure = one.after if later else one.before
    cell = figure_cell(figure, page_folder)
    if figure is None or figure.trial_id or not one.variant:
        return cell
    link = model_link(run, one.variant, page_folder)
    return Cell(cell.text, detail=cell.detail, sort=cell.sort, link=link)


def build_comparison(comparison: RunComparison, folder: Path) -> tuple[Path, Path]:
    """Write compare.html and compare.md into a folder, replacing older ones.

    Returns:
        Their paths, in that order.

    Raises:
        StorageError: they cannot be written.
    """
    page = comparison_page(comparison, folder)
    html, markdown = folder / "compare.html", folder / "compare.md"
    replace_text(html, render_page("comparison.html.j2", page, plots=False))
    replace_text(markdown, comparison_markdown(page))
    return html, markdown


def comparison_markdown(page: ComparisonPage) -> str:
    """The page as GitHub-flavoured Markdown."""
    blocks = [f"# {text(page.title)}: {page.sign.symbol} {page.sign.word}", facts_list(page.facts)]
    blocks.append(text(page.summary))
    for table in page.tables:
        blocks += [f"## {text(table.caption)}", *table_blocks(table)]
    if page.notes:
        blocks += ["## Notes", "\n".join(f"- {text(note)}" for note in page.notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"

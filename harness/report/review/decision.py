"""The page of a technical review: `decision.html` and `decision.md`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.report.findings import Setting
from harness.report.markdown import facts_list, table_blocks, text
from harness.report.page import render_page
from harness.report.plots.base import Plot
from harness.report.review.plots import pareto_plots
from harness.report.review.tables import (
    fact_tables,
    limits_table,
    matrix_table,
    ranking_tables,
    risks_table,
)
from harness.report.tables.model import Table
from harness.system.storage import replace_text
from harness.types.review import DecisionMatrix, DecisionReview
from harness.words.labels import SIGNS, Sign


@dataclass(frozen=True)
class MatrixPage:
    """A family's part of the page."""

    name: str
    anchor: str
    sign: Sign
    objective: str
    sentence: str
    next_step: str
    matrix: Table
    limits: Table
    ranking: tuple[Table, ...]
    facts: tuple[Table, ...]
    risks: Table
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class DecisionPage:
    """Everything that the decision's page shows."""

    title: str
    facts: tuple[Setting, ...]
    families: tuple[MatrixPage, ...]

    @property
    def plots(self) -> dict[str, object]:
        """What plotly draws for every plot, by key."""
        return {plot.key: plot.figure for one in self.families for plot in one.plots}


def decision_page(review: DecisionReview, page_folder: Path) -> DecisionPage:
    """Choose and word everything.

    Args:
        review: every family's matrix.
        page_folder: where the page will lie, which its links start from.
    """
    runs = tuple(dict.fromkeys(run for one in review.matrices for run in one.runs))
    return DecisionPage(
        title=", ".join(Path(run).name for run in runs),
        facts=tuple(Setting("Run", run) for run in runs),
        families=tuple(
            _matrix_page(matrix, number, page_folder)
            for number, matrix in enumerate(review.matrices, start=1)
        ),
    )


def _matrix_page(matrix: DecisionMatrix, number: int, page_folder: Path) -> MatrixPage:
    return MatrixPage(
        name=matrix.family,
        anchor=f"decision-{number}",
        sign=SIGNS[matrix.decision],
        objective=matrix.objective,
        sentence=matrix.sentence,
        next_step=matrix.next_step,
        matrix=matrix_table(matrix, page_folder),
        limits=limits_table(matrix, page_folder),
        ranking=tuple(ranking_tables(matrix)),
        facts=tuple(fact_tables(matrix, page_folder)),
        risks=risks_table(matrix, page_folder),
        plots=pareto_plots(matrix, number),
    )


def build_decision(review: DecisionReview, folder: Path) -> tuple[Path, Path]:
    """Write decision.html and decision.md into a folder, replacing older ones.

    Returns:
        Their paths, in that order.

    Raises:
        StorageError: they cannot be written.
    """
    page = decision_page(review, folder)
    html, markdown = folder / "decision.html", folder / "decision.md"
    replace_text(html, render_page("decision.html.j2", page, plots=bool(page.plots)))
    replace_text(markdown, decision_markdown(page))
    return html, markdown


def decision_markdown(page: DecisionPage) -> str:
    """The page as GitHub-flavoured Markdown, without the plots."""
    blocks = [f"# Decision: {text(page.title)}", facts_list(page.facts)]
    for one in page.families:
        blocks.append(f"## {text(one.name)}: {one.sign.symbol} {one.sign.word}")
        if one.objective:
            blocks.append(f"Objective: **{text(one.objective)}**")
        blocks.append(text(one.sentence))
        if one.next_step:
            blocks.append(f"Next step: {text(one.next_step)}")
        for table in (one.matrix, one.limits, *one.ranking, *one.facts, one.risks):
            blocks += [f"### {text(table.caption)}", *table_blocks(table)]
    return "\n\n".join(block for block in blocks if block) + "\n"

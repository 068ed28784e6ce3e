"""The report card as its own page: `card.html`, `card.md` and `card.csv`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.report.card.section import CardSection, card_section
from harness.report.card.values import CardRow, cards_of
from harness.report.cautions import warnings_of
from harness.report.findings import Setting
from harness.report.markdown import facts_list, table_blocks, text
from harness.report.page import machine_words, render_page
from harness.report.plots.base import VariantStyle, styles_of
from harness.report.tables.model import Table
from harness.report.tables.provenance import environment_table, when
from harness.runs.folder import StoredRun
from harness.system.storage import replace_text, storage_errors
from harness.words.numbers import count


@dataclass(frozen=True)
class FamilyCardPage:
    """One family's panel of the card page."""

    name: str
    styles: tuple[VariantStyle, ...]
    section: CardSection


@dataclass(frozen=True)
class CardPage:
    """Everything that the card's page shows."""

    title: str
    facts: tuple[Setting, ...]
    families: tuple[FamilyCardPage, ...]
    environment: Table

    @property
    def plots(self) -> dict[str, object]:
        """What plotly draws for every plot, by key."""
        return {plot.key: plot.figure for one in self.families for plot in one.section.plots}


def card_page(run: StoredRun) -> CardPage:
    """Choose and word everything that the card's page shows."""
    families = []
    for card in cards_of(run):
        styles = styles_of(card.family)
        served = [one for one in styles.values() if one.role != "baseline"]
        families.append(FamilyCardPage(card.family.name, tuple(served), card_section(card, styles)))
    environment = run.manifest.get("environment") or {}
    measured = max((entry.measured_utc for entry in run.card), default="")
    known = (
        ("Measured", when(measured)),
        ("Models in process", count(len(run.card))),
        ("Machine", machine_words(environment)),
        *(("Warning", one) for card in cards_of(run) for one in warnings_of(card.family)),
    )
    return CardPage(
        title=str(run.manifest.get("study", {}).get("name", "run")),
        facts=tuple(Setting(name, value) for name, value in known if value),
        families=tuple(families),
        environment=environment_table(run.manifest),
    )


def build_card(run: StoredRun, folder: Path) -> tuple[Path, Path, Path]:
    """Write card.html, card.md and card.csv into a folder, replacing older ones.

    Returns:
        Their paths, in that order.

    Raises:
        StorageError: they cannot be written.
    """
    page = card_page(run)
    html, markdown, table = (folder / f"card.{ending}" for ending in ("html", "md", "csv"))
    replace_text(html, render_page("card.html.j2", page, plots=bool(page.plots)))
    replace_text(markdown, card_markdown(page))
    with storage_errors(folder):
        card_frame(run).to_csv(table, index=False)
    return html, markdown, table


def card_frame(run: StoredRun) -> pd.DataFrame:
    """A row a number, each beside the teacher's."""
    rows = [dataclasses.asdict(row) for card in cards_of(run) for row in card.rows]
    columns = [field.name for field in dataclasses.fields(CardRow)]
    whole = {"batch_size": "Int64", "length": "Int64", "in_flight": "Int64"}
    return pd.DataFrame(rows, columns=columns).astype(whole)


def card_markdown(page: CardPage) -> str:
    """The page as GitHub-flavoured Markdown, without the plots."""
    blocks = [f"# {text(page.title)}: report card", facts_list(page.facts)]
    for family in page.families:
        blocks.append(f"## {text(family.name)}")
        for table in family.section.tables:
            blocks += [f"### {text(table.caption)}", *table_blocks(table)]
    blocks += ["## Environment and seeds", *table_blocks(page.environment)]
    return "\n\n".join(block for block in blocks if block) + "\n"

"""A family's report card, ready for the report's page, for one of its own, and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.card.plots import batch_plots, latency_plot
from harness.report.card.tables import card_table, export_table, served_table, throughput_table
from harness.report.card.values import FamilyCard
from harness.report.plots.base import Plot, VariantStyle
from harness.report.tables.model import Table


@dataclass(frozen=True)
class CardSection:
    """What is shown of a family's card, in order."""

    card: Table
    latency: Plot
    batches: tuple[Plot, ...]
    throughput: Table
    served: Table | None
    export: Table | None

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot of it."""
        return (self.latency, *self.batches)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table of it."""
        found = (self.card, self.throughput, self.served, self.export)
        return tuple(table for table in found if table)


def card_section(card: FamilyCard, styles: dict[str, VariantStyle]) -> CardSection:
    """Choose and word a family's card."""
    return CardSection(
        card=card_table(card),
        latency=latency_plot(card, styles),
        batches=batch_plots(card, styles),
        throughput=throughput_table(card),
        served=served_table(card),
        export=export_table(card),
    )

"""What the command line prints of a report card."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from harness.metrics import SHOWN_PERCENTILES
from harness.report.card.values import FamilyCard, cards_of
from harness.report.terminal.run import plain_table
from harness.runs.folder import StoredRun
from harness.types.card import CardEntry, Runtime
from harness.words.amounts import metric_value
from harness.words.numbers import MISSING, factor, megabytes, millions, milliseconds, number


def card_table(run: StoredRun) -> Table:
    """One row per model and runtime, in process: what it takes and how fast it is."""
    table = plain_table("Report card: in this process, without a server")
    table.add_column("Model", no_wrap=True)
    titles = ("M", "MB", "Mem MB", "Quality", "p50 ms", "p95", "p99", "vs t.", "b1/s", "max/s")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for card in cards_of(run):
        for entry in card.entries:
            table.add_row(*_card_row(card, entry), end_section=entry is card.entries[-1])
    return table


def _card_row(card: FamilyCard, entry: CardEntry) -> tuple[Text, ...]:
    smallest, largest = (entry.rate(size) for size in (card.batch_sizes[0], card.batch_sizes[-1]))
    p50 = card.row(entry.name, entry.runtime, "latency_p50", 1)
    metric = next(iter(card.family.metrics), "")
    quality = card.row(entry.name, entry.runtime, metric)
    name = Text(entry.name)
    if entry.runtime is Runtime.PYTORCH:
        name.append(" torch", style="dim")
    cells = (
        millions(entry.parameters),
        megabytes(entry.size_bytes),
        megabytes(round(entry.cold.memory_bytes.value)),
        metric_value(metric, quality.value) if quality else MISSING,
        *(milliseconds(entry.latency.percentiles[name].value_ms) for name in SHOWN_PERCENTILES),
        factor(p50.ratio if p50 else None),
        number(smallest.per_s.value if smallest else None),
        number(largest.per_s.value if largest else None),
    )
    return (name, *map(Text, cells))

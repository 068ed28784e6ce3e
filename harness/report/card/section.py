"""A family's report card with its pictures, for the report, its own page, and Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.metrics import SHOWN_PERCENTILES
from harness.report.card.tables import (
    RUNTIMES,
    card_table,
    entry_words,
    export_table,
    served_table,
    throughput_table,
)
from harness.report.card.values import FamilyCard
from harness.report.plots.base import (
    Json,
    Plot,
    VariantStyle,
    axis,
    base_layout,
    error_bars,
    log_axis,
    marker,
    safe,
)
from harness.report.tables.model import Table
from harness.types.card import CardEntry, Runtime
from harness.words.labels import short_names
from harness.words.numbers import number, span, things

_ROW_PX = 30
_SYMBOLS = {"p95": "line-ns", "p99": "line-ns"}


def latency_plot(card: FamilyCard, styles: dict[str, VariantStyle]) -> Plot:
    """A line per model from p50 to p99, the mark at p50."""
    short = short_names([entry.name for entry in card.entries])
    labels = [f"{short[entry.name]}  {_short_runtime(entry)}" for entry in card.entries]
    traces = [
        _latency_trace(entry, label, _style(card, entry, styles))
        for entry, label in zip(card.entries, labels, strict=True)
    ]
    values = [
        entry.latency.percentiles[name].value_ms
        for entry in card.entries
        for name in SHOWN_PERCENTILES
    ]
    layout = base_layout(
        xaxis=log_axis("milliseconds per call, batch 1", values),
        yaxis=axis(
            "",
            type="category",
            categoryorder="array",
            categoryarray=[safe(label) for label in reversed(labels)],
            showgrid=False,
        ),
        margin={"l": 10, "r": 14, "t": 8, "b": 42},
    )
    return Plot(
        key=f"{card.family.name}-card-latency",
        title="Batch-1 latency in process",
        summary="Latency at batch 1 of every model in PyTorch and in ONNX Runtime, "
        "p50 to p99; the tables have the numbers.",
        height_px=90 + _ROW_PX * len(labels),
        traces=tuple(traces),
        layout=layout,
    )


def _short_runtime(entry: CardEntry) -> str:
    return "PyTorch" if entry.runtime is Runtime.PYTORCH else "ONNX"


def _latency_trace(entry: CardEntry, label: str, style: VariantStyle | None) -> Json:
    values = [entry.latency.percentiles[name].value_ms for name in SHOWN_PERCENTILES]
    colour = style.colour if style else "--ink"
    symbol = style.shape if style else "circle"
    text = [
        f"<b>{safe(entry.name)}</b><br>{safe(entry_words(entry))}<br>{name} {number(value)} ms"
        for name, value in zip(SHOWN_PERCENTILES, values, strict=True)
    ]
    dash = "solid" if entry.runtime is Runtime.ONNX_RUNTIME else "dot"
    return {
        "type": "scatter",
        "name": safe(entry.name),
        "meta": style.name if style else "",
        "mode": "lines+markers",
        "x": values,
        "y": [safe(label)] * len(values),
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {
            "symbol": [symbol, "line-ns", "line-ns"],
            "size": [10, 9, 13],
            "color": ["--panel" if style and style.open else colour, colour, colour],
            "line": {"width": 1.8, "color": colour},
        },
        "hovertext": text,
        "hoverinfo": "text",
        "cliponaxis": False,
    }


def batch_plots(card: FamilyCard, styles: dict[str, VariantStyle]) -> tuple[Plot, ...]:
    """Throughput by batch size at the longest length, a plot per runtime on the same axes."""
    rates = [
        end
        for entry in card.entries
        for point in entry.throughput
        if point.length == card.longest
        for end in (point.per_s.low, point.per_s.value, point.per_s.high)
    ]
    plots = []
    for runtime in Runtime:
        own = [entry for entry in card.entries if entry.runtime is runtime]
        if not own:
            continue
        traces = [_batch_trace(card, entry, _style(card, entry, styles)) for entry in own]
        sizes = list(card.batch_sizes)
        layout = base_layout(
            xaxis=axis(
                "batch size", type="log", tickvals=sizes, ticktext=[str(size) for size in sizes]
            ),
            yaxis=log_axis("samples/s", rates),
            margin={"l": 48, "r": 12, "t": 8, "b": 42},
        )
        plots.append(
            Plot(
                key=f"{card.family.name}-card-batches-{runtime}",
                title=f"{RUNTIMES[runtime]}: samples/s by batch, {card.longest} tokens",
                summary=f"Throughput in process by batch size in {RUNTIMES[runtime]}, "
                f"{things(len(own), 'model')}.",
                height_px=300,
                traces=tuple(traces),
                layout=layout,
            )
        )
    return tuple(plots)


def _batch_trace(card: FamilyCard, entry: CardEntry, style: VariantStyle | None) -> Json:
    points = [point for point in entry.throughput if point.length == card.longest]
    colour = style.colour if style else "--ink"
    values = [point.per_s.value for point in points]
    return {
        "type": "scatter",
        "name": safe(entry.name),
        "meta": style.name if style else "",
        "mode": "lines+markers",
        "x": [point.batch_size for point in points],
        "y": values,
        "error_y": error_bars(
            [point.per_s.value - point.per_s.low for point in points],
            [point.per_s.high - point.per_s.value for point in points],
            colour,
        ),
        "line": {"color": colour, "width": 1.8, "dash": style.dash if style else "solid"},
        "marker": marker(style, 8) if style else {"size": 8, "color": colour},
        "hovertext": [
            f"<b>{safe(entry.name)}</b><br>batch {point.batch_size}: "
            f"{number(point.per_s.value)} samples/s<br>"
            f"{span(number(point.per_s.low), number(point.per_s.high))}"
            for point in points
        ],
        "hoverinfo": "text",
        "cliponaxis": False,
    }


def _style(
    card: FamilyCard, entry: CardEntry, styles: dict[str, VariantStyle]
) -> VariantStyle | None:
    """The variant's look; a checkpoint has that of its first artefact."""
    if entry.name in styles:
        return styles[entry.name]
    made = next((v for v in card.family.variants if v.source == entry.source), None)
    return styles.get(made.name) if made else None


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
        """All plots of the section."""
        return (self.latency, *self.batches)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of the section."""
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

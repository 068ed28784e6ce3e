"""Where the milliseconds went, as stacked bars, and which batch sizes Triton really executed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.family_results import FamilyResults
from harness.report.plots.base import Json, Plot, axis, base_layout, safe
from harness.report.selection import alone_of, best_by_batch, latency_split
from harness.report.tables.costs import part_title
from harness.types import ModelVariant, TrialResult
from harness.words.labels import batch_words, short_names, shortened, trial_words
from harness.words.numbers import count, number, percent, things

_ROOM = 0.16
"""Share of the longest bar that is kept free beside it for its number."""


def bar_part(
    name: str, values: Sequence[float], hovers: Sequence[str], *, colour: str, hatch: str
) -> Json:
    """One part of every bar; the hatch tells parts apart without colour.

    Args:
        name: of the part.
        values: milliseconds, a bar each.
        hovers: what the box beside the pointer says, a bar each.
        colour: a CSS variable's name.
        hatch: plotly's pattern shape; empty for none.
    """
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": list(values),
        "y": list(range(len(values))),
        "marker": {
            "color": colour,
            "line": {"width": 1, "color": "--panel"},
            "pattern": {
                "shape": hatch,
                "fillmode": "overlay",
                "fgcolor": "--hatch",
                "size": 6,
                "solidity": 0.3,
            },
        },
        "hovertext": list(hovers),
        "hoverinfo": "text",
    }


def bar_totals(totals: Sequence[float]) -> Json:
    """The whole mean at the end of each bar."""
    room = max(totals, default=0.0) * 0.015
    return {
        "type": "scatter",
        "mode": "text",
        "name": "mean",
        "x": [total + room for total in totals],
        "y": list(range(len(totals))),
        "text": [number(total) for total in totals],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": "--ink"},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def stacked_layout(totals: Sequence[float], labels: Sequence[str]) -> Json:
    """Layout of a plot whose bars have these wholes, in milliseconds, and these names."""
    longest = max(totals, default=0.0)
    return base_layout(
        barmode="stack",
        bargap=0.25,
        xaxis=axis("mean latency per request (ms)", range=[0, longest * (1 + _ROOM)]),
        yaxis=row_axis(labels),
    )


def row_axis(labels: Sequence[str]) -> Json:
    """A named row each, from the top."""
    return axis(
        "",
        range=[len(labels) - 0.5, -0.5],
        tickvals=list(range(len(labels))),
        ticktext=[safe(label) for label in labels],
        showgrid=False,
    )


_ROW_PX, _FRAME_PX = 22, 66
_PARTS = (
    ("client and network", "client_ms", "--c-sky", ""),
    ("queue", "queue_ms", "--c-orange", "/"),
    ("compute", "compute_ms", "--c-blue", "."),
)
"""Name, field of LatencySplit, colour, hatch: the hatch tells them apart without colour."""
_MOST_LABELLED_SIZES = 10
_SMALLEST_SHARE = 0.01


def split_plot(family: FamilyResults) -> Plot | None:
    """Mean latency as stacked bars; None where the server's side was never known."""
    known = [(r, split) for r in best_by_batch(family) if (split := latency_split(r))]
    if not known:
        return None
    traces: list[Json] = []
    for name, field, colour, hatch in _PARTS:
        values = [getattr(split, field) for _, split in known]
        hovers = [
            _split_hover(result, name, value)
            for (result, _), value in zip(known, values, strict=True)
        ]
        traces.append(bar_part(name, values, hovers, colour=colour, hatch=hatch))
    totals = [result.latency.mean_ms if result.latency else 0.0 for result, _ in known]
    traces.append(bar_totals(totals))
    return Plot(
        key=f"{family.name}-split",
        title="Where the milliseconds go",
        summary=f"Mean latency of {things(len(known), 'trial')}, split into client and network, "
        "queue and compute; the table of every trial holds the numbers.",
        height_px=_FRAME_PX + _ROW_PX * len(known),
        traces=tuple(traces),
        layout=stacked_layout(totals, _row_labels(family, [result for result, _ in known])),
    )


def _split_hover(result: TrialResult, name: str, value: float) -> str:
    lines = (f"{name}: {number(value)} ms", *trial_words(result.trial).split("; "))
    head = f"<b>{safe(result.trial.variant)}</b>"
    return "<br>".join([head, *(safe(line) for line in lines)])


def _row_labels(family: FamilyResults, results: Sequence[TrialResult]) -> list[str]:
    """Variant and client batch of each trial."""
    names = short_names([variant.name for variant in family.variants])
    return [
        f"{shortened(names[r.trial.variant])} · b{batch_words(r.trial.workload)}" for r in results
    ]


def batches_plot(family: FamilyResults) -> Plot | None:
    """A heat map of executed batch sizes; None where the server does not tell."""
    known = [result for result in best_by_batch(family) if result.server.batch_sizes]
    if not known:
        return None
    sizes = sorted({size for result in known for size in result.server.batch_sizes})
    shares = [_shares(result, sizes) for result in known]
    labelled = len(sizes) <= _MOST_LABELLED_SIZES
    trace: Json = {
        "type": "heatmap",
        "name": "share of executions",
        "x": [str(size) for size in sizes],
        "y": list(range(len(known))),
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "colorscale": [[0, "--heat-0"], [1, "--heat-1"]],
        "text": [[_share_text(share) for share in row] for row in shares],
        "hovertext": [[_batch_hover(result, size) for size in sizes] for result in known],
        "hoverinfo": "text",
    }
    if labelled:
        trace["texttemplate"] = "%{text}"
    return Plot(
        key=f"{family.name}-batches",
        title="Batch sizes that Triton executed",
        summary="Heat map of the share of executions by batch size for "
        f"{things(len(known), 'trial')}.",
        height_px=_FRAME_PX + _ROW_PX * len(known),
        traces=(trace,),
        layout=base_layout(
            xaxis=axis("executed batch size", type="category", showgrid=False),
            yaxis=row_axis(_row_labels(family, known)),
        ),
    )


def _shares(result: TrialResult, sizes: Sequence[int]) -> list[float]:
    total = sum(result.server.batch_sizes.values()) or 1
    return [result.server.batch_sizes.get(size, 0) / total for size in sizes]


def _share_text(share: float) -> str:
    if share == 0:
        return ""
    return percent(share) if share >= _SMALLEST_SHARE else "<1%"


def _batch_hover(result: TrialResult, size: int) -> str:
    executions = result.server.batch_sizes.get(size, 0)
    total = sum(result.server.batch_sizes.values()) or 1
    lines = (
        f"batch {size}: {count(executions)} executions ({percent(executions / total)})",
        f"{count(executions * size)} inferences; mean batch {number(result.server.batch_mean)}",
        *trial_words(result.trial).split("; "),
    )
    head = f"<b>{safe(result.trial.variant)}</b>"
    return "<br>".join([head, *(safe(line) for line in lines)])


_ENSEMBLE_ROW_PX, _ENSEMBLE_FRAME_PX = 34, 96
_COLOURS = {
    "client, network and ensemble": ("--c-sky", ""),
    "tokenize": ("--c-orange", "/"),
    "model": ("--c-blue", "."),
    "label": ("--c-green", "x"),
}
"""Colour and hatch: the hatch tells them apart without colour."""

Parts = dict[str, float]
"""Mean milliseconds per request, by part."""


def ensemble_plot(family: FamilyResults) -> Plot | None:
    """Stacked bars; None where no ensemble's parts are known."""
    bars: list[tuple[str, Parts]] = []
    for result in family.ensemble_trials:
        ensemble = next(one for one in family.ensembles if one.name == result.trial.variant)
        parts = _parts(ensemble, result)
        alone = alone_of(family, result)
        if parts and alone and (own := _alone(alone)):
            bars += [(ensemble.ensemble_of, own), (ensemble.name, parts)]
    if not bars:
        return None
    totals = [sum(parts.values()) for _, parts in bars]
    return Plot(
        key=f"{family.name}-ensemble",
        title="The model alone and the ensemble",
        summary=f"Mean latency of {things(len(bars), 'trial')} by part; the table beside has the "
        "numbers.",
        height_px=_ENSEMBLE_FRAME_PX + _ENSEMBLE_ROW_PX * len(bars),
        traces=(*_traces(bars), bar_totals(totals)),
        layout=stacked_layout(
            totals, ["model alone" if not at % 2 else "ensemble" for at in range(len(bars))]
        ),
    )


def _traces(bars: list[tuple[str, Parts]]) -> list[Json]:
    return [
        bar_part(
            name,
            [parts.get(name, 0.0) for _, parts in bars],
            [
                f"<b>{safe(model)}</b><br>{name}: {number(parts.get(name, 0.0))} ms"
                for model, parts in bars
            ],
            colour=colour,
            hatch=hatch,
        )
        for name, (colour, hatch) in _COLOURS.items()
    ]


def _parts(ensemble: ModelVariant, result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None or not result.server.parts:
        return {}
    parts = {part_title(ensemble, part.model): part.accounted_ms for part in result.server.parts}
    return {"client, network and ensemble": split.client_ms} | parts


def _alone(result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None:
        return {}
    return {
        "client, network and ensemble": split.client_ms,
        "model": split.queue_ms + split.compute_ms,
    }

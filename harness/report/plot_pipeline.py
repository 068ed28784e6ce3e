"""The model alone and its whole pipeline, at the same load, as bars of what takes the time."""

from __future__ import annotations

from harness.report.numbers import number
from harness.report.pipeline_table import part_title
from harness.report.plots import Json, Plot, axis, base_layout, safe
from harness.report.selection import FamilyResults, alone_of, latency_split
from harness.types import ModelVariant, TrialResult

_ROW_PX, _FRAME_PX = 34, 96
_COLOURS = {
    "client, network and ensemble": ("--c-sky", ""),
    "tokenize": ("--c-orange", "/"),
    "model": ("--c-blue", "."),
    "label": ("--c-green", "x"),
}
"""Colour and hatch: the hatch tells them apart without colour."""

Parts = dict[str, float]
"""Mean milliseconds a request, by part."""


def pipeline_plot(family: FamilyResults) -> Plot | None:
    """Stacked bars; None where no pipeline's parts are known."""
    bars: list[tuple[str, Parts]] = []
    for result in family.pipeline_trials:
        pipeline = next(one for one in family.pipelines if one.name == result.trial.variant)
        parts = _parts(pipeline, result)
        alone = alone_of(family, result)
        if parts and alone and (own := _alone(alone)):
            bars += [(pipeline.pipeline_of, own), (pipeline.name, parts)]
    if not bars:
        return None
    totals = [sum(parts.values()) for _, parts in bars]
    return Plot(
        key=f"{family.name}-pipeline",
        title="The model alone and the whole pipeline",
        summary=f"Mean latency of {len(bars)} trials by part; the table beside has the numbers.",
        height_px=_FRAME_PX + _ROW_PX * len(bars),
        traces=(*_traces(bars), _totals(totals)),
        layout=base_layout(
            barmode="stack",
            bargap=0.25,
            xaxis=axis("mean latency of a request (ms)", range=[0, max(totals) * 1.16]),
            yaxis=axis(
                "",
                range=[len(bars) - 0.5, -0.5],
                tickvals=list(range(len(bars))),
                ticktext=["model alone" if not at % 2 else "pipeline" for at in range(len(bars))],
                showgrid=False,
            ),
        ),
    )


def _traces(bars: list[tuple[str, Parts]]) -> list[Json]:
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": [parts.get(name, 0.0) for _, parts in bars],
            "y": list(range(len(bars))),
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
            "hovertext": [
                f"<b>{safe(model)}</b><br>{name}: {number(parts.get(name, 0.0))} ms"
                for model, parts in bars
            ],
            "hoverinfo": "text",
        }
        for name, (colour, hatch) in _COLOURS.items()
    ]


def _totals(totals: list[float]) -> Json:
    """The whole mean at the end of each bar."""
    room = max(totals) * 0.015
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


def _parts(pipeline: ModelVariant, result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None or not result.server.parts:
        return {}
    parts = {
        part_title(pipeline, part.model): part.queue_ms + part.compute_ms
        for part in result.server.parts
    }
    return {"client, network and ensemble": split.client_ms} | parts


def _alone(result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None:
        return {}
    return {
        "client, network and ensemble": split.client_ms,
        "model": split.queue_ms + split.compute_ms,
    }

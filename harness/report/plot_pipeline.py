"""The model alone and its whole pipeline, at the same load, as bars of what takes the time."""

from __future__ import annotations

from harness.report.numbers import number
from harness.report.pipeline_table import part_title
from harness.report.plots import Json, Plot, safe
from harness.report.selection import FamilyResults, alone_of, latency_split
from harness.report.stacked_bars import bar_part, bar_totals, stacked_layout
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
        traces=(*_traces(bars), bar_totals(totals)),
        layout=stacked_layout(
            totals, ["model alone" if not at % 2 else "pipeline" for at in range(len(bars))]
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


def _parts(pipeline: ModelVariant, result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None or not result.server.parts:
        return {}
    parts = {part_title(pipeline, part.model): part.accounted_ms for part in result.server.parts}
    return {"client, network and ensemble": split.client_ms} | parts


def _alone(result: TrialResult) -> Parts:
    split = latency_split(result)
    if split is None:
        return {}
    return {
        "client, network and ensemble": split.client_ms,
        "model": split.queue_ms + split.compute_ms,
    }

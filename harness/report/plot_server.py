"""Where the milliseconds went, and which batch sizes Triton really executed."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.labels import short_names, shortened, trial_words
from harness.report.numbers import count, number, percent
from harness.report.plots import Json, Plot, axis, base_layout, safe
from harness.report.selection import FamilyResults, best_by_batch, latency_split
from harness.report.stacked_bars import bar_part, bar_totals, row_axis, stacked_layout
from harness.types import TrialResult

_ROW_PX, _FRAME_PX = 24, 66
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
        summary=f"Mean latency of {len(known)} trials, split into client and network, queue and "
        "compute; the table of every trial holds the numbers.",
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
        f"{shortened(names[r.trial.variant])} · b{r.trial.workload.client_batch_size}"
        for r in results
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
        summary=f"Heat map of the share of executions by batch size for {len(known)} trials.",
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
    return f"{share:.0%}" if share >= _SMALLEST_SHARE else "<1%"


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

"""Cost per million by variant, with its interval, on each instance type."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from harness.report.cost.words import basis, bounded
from harness.report.plots.base import (
    STUDENT_COLOURS,
    STUDENT_SHAPES,
    Json,
    Plot,
    axis,
    base_layout,
    error_bars,
    log_axis,
    safe,
)
from harness.types.costs import CostReport, VariantCost
from harness.words.numbers import things

_ROW_PX, _FRAME_PX = 46, 120


def cost_plots(report: CostReport) -> tuple[Plot, ...]:
    """The cost plots, one per family."""
    by_family: dict[str, list[VariantCost]] = {}
    for one in report.costs:
        by_family.setdefault(one.family, []).append(one)
    return tuple(
        _plot(name, costs, place) for place, (name, costs) in enumerate(by_family.items(), 1)
    )


def _plot(family: str, costs: Sequence[VariantCost], place: int) -> Plot:
    variants = list(dict.fromkeys(one.variant for one in reversed(costs)))
    types = list(dict.fromkeys(one.instance for one in costs))
    looks = zip(types, cycle(STUDENT_COLOURS), cycle(STUDENT_SHAPES), strict=False)
    spread = 0.5 / max(1, len(types))
    traces = [
        _trace(
            [one for one in costs if one.instance == name],
            variants,
            (number - (len(types) - 1) / 2) * spread,
            {"symbol": shape, "color": colour},
        )
        for number, (name, colour, shape) in enumerate(looks)
    ]
    ends = [end for one in costs for end in _ends(one)]
    return Plot(
        key=f"cost-{place}",
        title=f"{family}: cost per million inferences",
        summary=f"US dollars per million inferences of {things(len(variants), 'variant')} on "
        f"{', '.join(types)}, each with its interval, estimates as hollow marks. The same numbers "
        "are in the table.",
        height_px=_FRAME_PX + _ROW_PX * len(variants),
        traces=tuple(traces),
        layout=base_layout(
            showlegend=len(types) > 1 or any(one.is_estimate for one in costs),
            xaxis=log_axis("USD per million inferences", ends),
            yaxis=axis(
                "",
                tickvals=list(range(len(variants))),
                ticktext=[safe(name) for name in variants],
                range=[-0.6, len(variants) - 0.4],
            ),
        ),
    )


def _ends(one: VariantCost) -> tuple[float, float]:
    return one.usd_per_million_inferences.low, one.usd_per_million_inferences.high


def _trace(costs: Sequence[VariantCost], rows: Sequence[str], shift: float, mark: Json) -> Json:
    amounts = [one.usd_per_million_inferences for one in costs]
    colour = str(mark["color"])
    # plotly's legend shows a trace's first mark: those of one instance type are all of one kind.
    fills = ["--panel" if one.is_estimate else colour for one in costs]
    return {
        "type": "scatter",
        "name": safe(f"{costs[0].instance}, {basis(is_estimate=costs[0].is_estimate)}"),
        "mode": "markers",
        "x": [amount.value for amount in amounts],
        "y": [rows.index(one.variant) + shift for one in costs],
        "error_x": error_bars(
            [amount.value - amount.low for amount in amounts],
            [amount.high - amount.value for amount in amounts],
            colour,
        ),
        "marker": {**mark, "size": 9, "color": fills, "line": {"width": 1.8, "color": colour}},
        "hovertext": [
            f"<b>{safe(one.variant)}</b><br>{safe(one.instance)}, "
            f"{basis(is_estimate=one.is_estimate)}<br>"
            f"{bounded(one.usd_per_million_inferences)} USD per million"
            for one in costs
        ],
        "hoverinfo": "text",
    }

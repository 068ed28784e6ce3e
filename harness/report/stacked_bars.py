"""Horizontal bars of what takes the time: parts stacked, the whole at the end."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.numbers import number
from harness.report.plots import Json, axis, base_layout, safe

_ROOM = 0.16
"""Of the longest bar, kept free beside it for its number."""


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
        xaxis=axis("mean latency of a request (ms)", range=[0, longest * (1 + _ROOM)]),
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

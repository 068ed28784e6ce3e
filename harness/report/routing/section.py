"""A router, ready for the report's page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.plots.base import (
    Json,
    Plot,
    axis,
    base_layout,
    bound_line,
    error_bars,
    ring,
    safe,
)
from harness.report.routing.words import deployed_words, share_words
from harness.report.tables.model import Cell, Column, Table, numeric, trial_anchor, words
from harness.types.estimates import Interval
from harness.types.routing import DeployedRouter, Route, RoutePoint
from harness.words.labels import SIGNS, Sign
from harness.words.numbers import MISSING, milliseconds, number, percent, points, threshold

_HEIGHT_PX = 300
_OF_ALL = 100.0


@dataclass(frozen=True)
class RouterSection:
    """What is shown of a router, in order."""

    summary: str
    deployed: str
    """What the deployed router showed, in words; empty where it was not deployed."""
    sign: Sign | None
    trials: tuple[tuple[str, str], ...]
    """The deployed router's trials, and the anchors of their rows."""
    curve: Table
    plots: tuple[Plot, ...]


def router_section(route: Route) -> RouterSection:
    """Choose and word a router."""
    found = route.deployed
    return RouterSection(
        summary=f"{route.student} answers, and {route.teacher} below a confidence of "
        f"{threshold(route.chosen.threshold)}: {percent(route.at.routed.value)} of the rows. On "
        f"the rows held out it keeps {share_words(route.at.kept)} of the teacher's accuracy.",
        deployed=deployed_words(route, found) if found else "",
        sign=SIGNS[found.decision] if found else None,
        trials=tuple((one, trial_anchor(one)) for one in found.trials) if found else (),
        curve=_curve(route),
        plots=(_plot(route),),
    )


def _curve(route: Route) -> Table:
    shown = {one.threshold: one for one in (*route.curve, route.at)}
    return Table(
        "At every threshold",
        (
            Column("Below"),
            Column("To the teacher"),
            Column("Accuracy"),
            Column("Of the teacher's"),
            Column("Gained"),
            Column("Mean", "ms"),
            Column("Cost", "USD/1M"),
        ),
        tuple(_row(route, shown[one]) for one in sorted(shown)),
        note="On rows that the threshold was not chosen on, with 95% intervals. The mean is that "
        "of both models' best trials, one after the other; what was deployed was measured.",
    )


def _row(route: Route, point: RoutePoint) -> tuple[Cell, ...]:
    mark = " (chosen)" if point.threshold == route.at.threshold else ""
    below = "all" if point.threshold > 1 else f"{threshold(point.threshold)}{mark}"
    cost = point.usd_per_million
    return (
        numeric(below, point.threshold),
        numeric(share_words(point.routed), point.routed.value),
        numeric(share_words(point.accuracy), point.accuracy.value),
        numeric(share_words(point.kept), point.kept.value if point.kept else None),
        numeric(points(point.gained - point.lost), point.gained - point.lost),
        numeric(milliseconds(point.latency_ms), point.latency_ms),
        words(number(cost) if cost is not None else MISSING),
    )


def _plot(route: Route) -> Plot:
    """What is kept over the share that goes to the teacher."""
    traces = [_held_out(route)]
    if route.at.kept is not None:
        chosen = ring(_OF_ALL * route.at.routed.value, _OF_ALL * route.at.kept.value, 14)
        traces.append({**chosen, "name": "chosen"})
    if route.deployed is not None and route.deployed.kept is not None:
        traces.append(_served(route.deployed, route.deployed.kept))
    promised = _OF_ALL * route.chosen.keep
    return Plot(
        key="router-curve",
        title="Quality over the share that goes to the teacher",
        summary="Share of the teacher's accuracy that is kept, at "
        f"{len(_known(route))} thresholds from the student alone to the teacher alone. The same "
        "numbers are in the table.",
        height_px=_HEIGHT_PX,
        traces=tuple(traces),
        layout=base_layout(
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            xaxis=axis("rows to the teacher (%)", range=[-2, 102]),
            yaxis=axis("of the teacher's accuracy (%)"),
            margin={"l": 48, "r": 10, "t": 34, "b": 42},
            shapes=[bound_line(xref="paper", yref="y", x0=0, x1=1, y0=promised, y1=promised)],
        ),
    )


def _known(route: Route) -> list[tuple[RoutePoint, Interval]]:
    return [(one, one.kept) for one in route.curve if one.kept is not None]


def _held_out(route: Route) -> Json:
    """Every threshold on the rows held out, with its interval."""
    known = _known(route)
    return {
        "type": "scatter",
        "name": "on the rows held out",
        "mode": "lines+markers",
        "x": [_OF_ALL * one.routed.value for one, _ in known],
        "y": [_OF_ALL * kept.value for _, kept in known],
        "error_y": error_bars(
            [_OF_ALL * (kept.value - kept.low) for _, kept in known],
            [_OF_ALL * (kept.high - kept.value) for _, kept in known],
            "--c-blue",
        ),
        "line": {"color": "--c-blue", "width": 1.8},
        "marker": {"color": "--c-blue", "size": 5},
        "hovertext": [_hover(one) for one, _ in known],
        "hoverinfo": "text",
    }


def _served(found: DeployedRouter, kept: Interval) -> Json:
    """The router as it answered through the endpoint."""
    said = [
        f"<b>{safe(found.variant)}</b>",
        f"{percent(found.routed)} to the teacher",
        f"keeps {share_words(kept)}",
    ]
    return {
        "type": "scatter",
        "name": "deployed, through the endpoint",
        "mode": "markers",
        "x": [_OF_ALL * found.routed],
        "y": [_OF_ALL * kept.value],
        "marker": {"symbol": "square", "size": 9, "color": "--c-vermillion"},
        "hovertext": ["<br>".join(said)],
        "hoverinfo": "text",
    }


def _hover(point: RoutePoint) -> str:
    below = "all rows" if point.threshold > 1 else f"confidence below {threshold(point.threshold)}"
    return (
        f"<b>{below}</b><br>{share_words(point.routed)} to the teacher<br>"
        f"keeps {share_words(point.kept)}<br>accuracy {share_words(point.accuracy)}"
    )

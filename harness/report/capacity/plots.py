"""Predicted latency over the rate of one replica, with the measured points on it."""

from __future__ import annotations

from harness.metrics import metric_named
from harness.report.plots.base import (
    Json,
    Plot,
    axis,
    base_layout,
    bound_line,
    drawn_ends,
    error_bars,
    log_axis,
    note,
    safe,
)
from harness.types.capacity import CapacityPlan, DeploymentPlan, Prediction
from harness.types.estimates import Interval
from harness.types.latency import UNBOUNDED_MS
from harness.words.labels import serving_words
from harness.words.numbers import latency, milliseconds, number, span

_COLOUR, _MEASURED = "--c-blue", "--c-vermillion"


def rate_plots(plan: CapacityPlan) -> tuple[Plot, ...]:
    """One plot per variant and serving configuration."""
    return tuple(_plot(one, number) for number, one in enumerate(plan.deployments, start=1))


def _plot(one: DeploymentPlan, place: int) -> Plot:
    known = [point for point in one.curve if _of(one, point).value < UNBOUNDED_MS]
    band = [point for point in known if _of(one, point).high < UNBOUNDED_MS]
    rates = [point.rate_per_s for point in known]
    values = [_of(one, point) for point in known]
    traces: list[Json] = []
    if band:
        traces.append(_band([p.rate_per_s for p in band], [_of(one, p) for p in band]))
    if known:
        traces.append(_predicted(one, rates, values))
    traces += _measured_traces(one)
    shown = [value for point in values for value in (point.low, point.value)]
    shown += [end for p in one.measured if _has_place(p.latency_ms) for end in _ends(p.latency_ms)]
    most = max([*rates, *(p.rate_per_s for p in one.measured)], default=1.0)
    return Plot(
        key=f"capacity-{place}",
        title=f"{one.variant}, {serving_words(one.serving)}",
        summary=f"{_title(one)} of one replica over requests per second: "
        + (f"{len(known)} predictions with their interval, " if known else "")
        + f"{len(one.measured)} measured trials, and the bound.",
        height_px=280,
        traces=tuple(traces),
        layout=_layout(one, [*shown, one.bound_ms], most),
    )


def _title(one: DeploymentPlan) -> str:
    return metric_named(one.statistic).title


def _has_place(latency_ms: Interval) -> bool:
    """Whether a logarithmic axis, which has no zero, can show the value."""
    return 0 < latency_ms.value < UNBOUNDED_MS


def _ends(latency_ms: Interval) -> tuple[float, float, float]:
    return drawn_ends(latency_ms.value, latency_ms.low, latency_ms.high)


def _predicted(one: DeploymentPlan, rates: list[float], values: list[Interval]) -> Json:
    return {
        "type": "scatter",
        "name": "predicted",
        "mode": "lines+markers",
        "x": rates,
        "y": [value.value for value in values],
        "line": {"color": _COLOUR, "width": 1.8},
        "marker": {"symbol": "circle", "size": 4, "color": _COLOUR},
        "hovertext": [
            _hover(one, "predicted", rate, value) for rate, value in zip(rates, values, strict=True)
        ],
        "hoverinfo": "text",
    }


def _of(one: DeploymentPlan, point: Prediction) -> Interval:
    return point.latency_ms[one.statistic]


def _band(rates: list[float], values: list[Interval]) -> Json:
    """The interval as an area."""
    return {
        "type": "scatter",
        "name": "interval",
        "mode": "lines",
        "x": [*rates, *reversed(rates)],
        "y": [*(one.high for one in values), *(one.low for one in reversed(values))],
        "fill": "toself",
        "fillcolor": _COLOUR,
        "opacity": 0.18,
        "line": {"width": 0, "color": _COLOUR},
        "hoverinfo": "skip",
    }


def _measured_traces(one: DeploymentPlan) -> list[Json]:
    """Open loops as filled marks, closed ones as hollow ones."""
    traces = []
    for is_open, name in ((False, "measured, closed loop"), (True, "measured, open loop")):
        points = [
            point
            for point in one.measured
            if point.open_loop is is_open and _has_place(point.latency_ms)
        ]
        if not points:
            continue
        values = [point.latency_ms for point in points]
        traces.append(
            {
                "type": "scatter",
                "name": name,
                "mode": "markers",
                "x": [point.rate_per_s for point in points],
                "y": [value.value for value in values],
                "marker": {
                    "symbol": "square",
                    "size": 8,
                    "color": _MEASURED if is_open else "--panel",
                    "line": {"width": 1.8, "color": _MEASURED},
                },
                "error_y": error_bars(
                    [value.value - value.low for value in values],
                    [_ends(value)[2] - value.value for value in values],
                    _MEASURED,
                ),
                "hovertext": [
                    _hover(one, name, point.rate_per_s, point.latency_ms, point.predicted_ms)
                    for point in points
                ],
                "hoverinfo": "text",
            }
        )
    return traces


def _hover(
    one: DeploymentPlan, head: str, rate: float, value: Interval, predicted: float | None = None
) -> str:
    bounds = span(milliseconds(value.low), milliseconds(value.high))
    lines = [
        f"<b>{safe(head)}</b>",
        safe(f"{number(rate)} requests/s"),
        safe(f"{_title(one)} {latency(value.value)} ({bounds})"),
    ]
    if predicted is not None:
        lines.append(safe(f"the model says {latency(predicted)} of this trial"))
    return "<br>".join(lines)


def _layout(one: DeploymentPlan, shown: list[float], most: float) -> Json:
    planned = one.highest_rate_per_s.low
    layout = base_layout(
        xaxis=axis("requests/s of one replica", range=[0, 1.05 * most], rangemode="tozero"),
        yaxis=log_axis(f"{_title(one)} (ms)", shown),
        margin={"l": 48, "r": 10, "t": 8, "b": 42},
    )
    shapes = [bound_line(xref="paper", yref="y", x0=0, x1=1, y0=one.bound_ms, y1=one.bound_ms)]
    if planned > 0:
        line = bound_line(xref="x", yref="paper", x0=planned, x1=planned, y0=0, y1=1)
        shapes.append({**line, "line": {"color": "--ink-soft", "width": 1.2, "dash": "dot"}})
        layout["annotations"] = [
            note(
                f"planned: {number(planned)}/s",
                x=planned, y=1, xref="x", yref="paper", xanchor="right", yanchor="top",
            )
        ]  # fmt: skip
    layout["shapes"] = shapes
    return layout

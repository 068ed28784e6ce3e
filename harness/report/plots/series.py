"""A load over time: its start with the warm-up that was cut, and second by second."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults
from harness.report.plots.base import (
    Json,
    Plot,
    VariantStyle,
    axis,
    base_layout,
    bound_line,
    note,
    safe,
)
from harness.report.selection import leading_trials
from harness.runs.series import LoadSeries, SecondPoint, SlicePoint
from harness.types import RESPONSE, Constraint, TrialResult
from harness.words.labels import batch_words, load_words, shortened
from harness.words.numbers import milliseconds, number, seconds

SHORTEST_START_S = 3.0
STARTS_OVER_WARMUPS = 3.0
"""How much of a load is its start: so many times the warm-up, and at least the above."""
FEWEST_SECONDS = 5
"""Fewest slices that are drawn: with fewer, a line over time shows nothing."""
_MOST_MARKS = 120
_WHOLE_ENOUGH_S = 0.5
"""A shorter last second holds too few requests for its percentiles."""
_DASHES = {"p50_ms": "solid", "p95_ms": "dash", "p99_ms": "dot"}


def start_plots(family: FamilyResults, styles: dict[str, VariantStyle]) -> tuple[Plot, ...]:
    """The start of the leading trial's load, then of the other variants' best trials."""
    known = [
        (result, family.series[result.trial.trial_id])
        for result in leading_trials(family)
        if result.trial.trial_id in family.series
    ]
    return tuple(
        _start_plot(family, result, series, styles[result.trial.variant])
        for result, series in known
        if any(one.mean_ms is not None for one in series.slices)
    )


def _start_plot(
    family: FamilyResults, result: TrialResult, series: LoadSeries, style: VariantStyle
) -> Plot:
    end_s = max(SHORTEST_START_S, STARTS_OVER_WARMUPS * series.warmup_s)
    shown = [one for one in series.slices if one.start_s < end_s]
    steady_ms = result.latency.mean_ms if result.latency else None
    workload = result.trial.workload
    return Plot(
        key=f"{family.name}-start-{style.name}",
        title=f"{shortened(style.name, 40)}, {load_words(workload)}, "
        f"batch {batch_words(workload)}: {seconds(series.warmup_s)} s cut",
        summary=f"Mean latency of {style.name} over the first {seconds(end_s)} s of its load; "
        f"the first {seconds(series.warmup_s)} s were cut as warm-up.",
        height_px=220,
        traces=(_start_trace(shown, style),),
        layout=_start_layout(shown, series.warmup_s, steady_ms),
    )


def _start_trace(shown: Sequence[SlicePoint], style: VariantStyle) -> Json:
    return {
        "type": "scatter",
        "name": "mean latency",
        "mode": "lines+markers" if len(shown) <= _MOST_MARKS else "lines",
        "x": [one.start_s for one in shown],
        "y": [one.mean_ms for one in shown],
        "line": {"color": style.colour, "width": 1.6},
        "marker": {"color": style.colour, "size": 4},
        "hovertext": [
            f"{seconds(one.start_s)} s, {one.phase}: {milliseconds(one.mean_ms)} ms"
            for one in shown
        ],
        "hoverinfo": "text",
    }


def _start_layout(shown: Sequence[SlicePoint], warmup_s: float, steady_ms: float | None) -> Json:
    end_s = shown[-1].start_s
    known = [one.mean_ms for one in shown if one.mean_ms is not None]
    layout = base_layout(
        xaxis=axis("seconds since the load began", range=[-0.01 * end_s, 1.01 * end_s]),
        yaxis=axis("mean latency (ms)", range=[0, 1.15 * max([*known, steady_ms or 0.0])]),
        margin={"l": 48, "r": 10, "t": 8, "b": 42},
        annotations=[note("cut", x=0, y=1, xref="x", yref="paper", xanchor="left", yanchor="top")],
        shapes=[
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": -0.01 * end_s,
                "x1": warmup_s,
                "y0": 0,
                "y1": 1,
                "fillcolor": "--cut",
                "line": {"width": 0},
                "layer": "below",
            }
        ],
    )
    if steady_ms is not None:
        ends = {"xref": "x", "yref": "y", "x0": warmup_s, "x1": end_s}
        line = {"color": "--ink-soft", "width": 1.4, "dash": "dot"}
        layout["shapes"].append({"type": "line", **ends, "y0": steady_ms, "y1": steady_ms,
                                 "line": line})  # fmt: skip
    return layout


def seconds_plot(family: FamilyResults, styles: dict[str, VariantStyle]) -> Plot | None:
    """The leading trial second by second; None where it was short, or nothing of it is stored."""
    result = next(iter(leading_trials(family)), None)
    series = family.series.get(result.trial.trial_id) if result else None
    if result is None or series is None:
        return None
    points = [one for one in series.measured if one.length_s >= _WHOLE_ENOUGH_S]
    if len(points) < FEWEST_SECONDS:
        return None
    style = styles[result.trial.variant]
    return Plot(
        key=f"{family.name}-seconds",
        title="Second by second",
        summary=f"Throughput and latency percentiles of {style.name} over {len(points)} seconds.",
        height_px=380,
        traces=(
            _rate_trace(points, style, family.throughput_unit),
            *_latency_traces(points, style),
        ),
        layout=_seconds_layout(family, points),
    )


def _rate_trace(points: Sequence[SecondPoint], style: VariantStyle, unit: str) -> Json:
    return _line("throughput", points, [one.inferences_per_s for one in points], style) | {
        "hovertext": [
            f"{seconds(one.start_s)} s: {number(one.inferences_per_s)} {unit}" for one in points
        ],
    }


def _latency_traces(points: Sequence[SecondPoint], style: VariantStyle) -> list[Json]:
    traces = []
    for field, dash in _DASHES.items():
        name = field.removesuffix("_ms")
        values: list[float | None] = [getattr(one, field) for one in points]
        trace = _line(name, points, values, style)
        trace["yaxis"] = "y2"
        trace["line"]["dash"] = dash
        trace["hovertext"] = [
            f"{seconds(one.start_s)} s: {name} {milliseconds(value)} ms"
            for one, value in zip(points, values, strict=True)
        ]
        traces.append(trace)
    return traces


def _line(
    name: str, points: Sequence[SecondPoint], values: Sequence[float | None], style: VariantStyle
) -> Json:
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines+markers" if len(points) <= _MOST_MARKS else "lines",
        "x": [one.start_s for one in points],
        "y": list(values),
        "line": {"color": style.colour, "width": 1.6},
        "marker": {"color": style.colour, "size": 4},
        "hoverinfo": "text",
    }


def _response_clause(family: FamilyResults) -> Constraint | None:
    """The first clause on the latency that is drawn; one on another span is none of its axis."""
    return next((c for c in family.constraints if metric_named(c.metric).span == RESPONSE), None)


def _seconds_layout(family: FamilyResults, points: Sequence[SecondPoint]) -> Json:
    """Throughput above, latency below, over one time; each percentile is named at its end."""
    last, clause = points[-1], _response_clause(family)
    known = [one.p99_ms for one in points if one.p99_ms is not None]
    highest = max([*known, clause.value if clause else 0.0])
    most = max(one.inferences_per_s for one in points)
    layout = base_layout(
        xaxis=axis("seconds since the load began", anchor="y2"),
        yaxis=axis(family.throughput_unit, domain=[0.62, 1], range=[0, 1.1 * most]),
        yaxis2=axis("latency (ms)", domain=[0, 0.53], range=[0, 1.1 * highest], anchor="x"),
        margin={"l": 56, "r": 36, "t": 8, "b": 42},
        annotations=[
            note(safe(field.removesuffix("_ms")), x=1.005, y=getattr(last, field), xref="paper",
                 yref="y2", xanchor="left", yanchor="middle")
            for field in _DASHES
            if getattr(last, field) is not None
        ],
    )  # fmt: skip
    if clause:
        ends = {"x0": 0, "x1": 1, "y0": clause.value, "y1": clause.value}
        layout["shapes"] = [bound_line(xref="paper", yref="y2", **ends)]
    return layout

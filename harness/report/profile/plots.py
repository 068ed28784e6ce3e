"""A profile's pictures: time by operator type, the roofline, throughput by batch."""

from __future__ import annotations

import math

from harness.report.plots.base import (
    Json,
    Plot,
    axis,
    base_layout,
    error_bars,
    log_axis,
    note,
    ring,
    safe,
)
from harness.report.profile.findings import RUNTIMES, bound_of, by_kind
from harness.types.card import Runtime
from harness.types.profiles import OperatorProfile, Scaling, VariantProfile
from harness.words.numbers import number, percent

COLOURS = {Runtime.PYTORCH: "--c-blue", Runtime.ONNX_RUNTIME: "--c-vermillion"}
_MOST_KINDS = 10
_GIGA = 1e9


def kinds_plot(profiles: list[OperatorProfile]) -> Plot:
    """Share of the operators' time by type, a bar a batch size."""
    runtime = profiles[0].runtime
    largest = profiles[-1]
    kinds = [kind for kind, _ in by_kind(largest)[:_MOST_KINDS]]
    traces = []
    for place, profile in enumerate(profiles):
        times = dict(by_kind(profile))
        shares = [100 * times.get(kind, 0.0) / (profile.operator_us or 1.0) for kind in kinds]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"batch {profile.batch_size}",
                "x": shares,
                "y": [safe(kind) for kind in kinds],
                "text": [percent(share / 100) if share >= 1 else "" for share in shares],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {
                    "color": COLOURS[runtime],
                    "opacity": 0.45 if place < len(profiles) - 1 else 1.0,
                },
                "hovertext": [
                    f"<b>{safe(kind)}</b><br>batch {profile.batch_size}: "
                    f"{number(times.get(kind, 0.0))} µs per call ({percent(share / 100)})"
                    for kind, share in zip(kinds, shares, strict=True)
                ],
                "hoverinfo": "text",
            }
        )
    layout = base_layout(
        xaxis=axis("% of the operators' time", rangemode="tozero"),
        yaxis=axis("", type="category", autorange="reversed", showgrid=False),
        margin={"l": 10, "r": 34, "t": 8, "b": 42},
        barmode="group",
        showlegend=True,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 0.02, "yanchor": "bottom"},
    )
    return Plot(
        key=f"kinds-{runtime}",
        title=f"{RUNTIMES[runtime]}: time by operator type",
        summary=f"Share of the operators' time by type in {RUNTIMES[runtime]}.",
        height_px=90 + 34 * max(3, len(kinds)),
        traces=tuple(traces),
        layout=layout,
    )


def roofline_plot(profile: VariantProfile, runtime: Runtime) -> Plot:
    """Operations a second over operations per byte: roofs, operators, and each whole model."""
    own = [one for one in profile.operators if one.runtime is runtime]
    roofline, colour = profile.roofline, COLOURS[runtime]
    points = [c for one in own for c in one.operators if c.intensity and c.operations_per_s]
    intensities = [cost.intensity or 1.0 for cost in points] or [1.0]
    peaks = [peak for peak in roofline.peaks if peak.runtime is runtime]
    low = min(*intensities, 1.0) / 3
    high = max(*intensities, *(p.operations_per_s / roofline.memory_bytes_per_s for p in peaks)) * 3
    traces: list[Json] = []
    for name, bytes_per_s, dash in (
        ("cache", roofline.cache_bytes_per_s, "solid"),
        ("memory", roofline.memory_bytes_per_s, "dash"),
    ):
        top = max(peak.operations_per_s for peak in peaks)
        end = min(high, top / bytes_per_s)
        traces.append(_line([low, end], [low * bytes_per_s, end * bytes_per_s], name, dash))
    for peak in peaks:
        start = peak.operations_per_s / roofline.cache_bytes_per_s
        traces.append(_line([max(low, start), high], [peak.operations_per_s] * 2, peak.datatype))
    for place, one in enumerate(own):
        traces += _model_traces(one, profile, colour, hollow=place == 0 and len(own) > 1)
    y_values = [p.operations_per_s / _GIGA for p in peaks]
    y_values += [(cost.operations_per_s or 0.0) / _GIGA for cost in points]
    layout = base_layout(
        xaxis=log_axis("operations per byte", [low * 1.3, high / 1.5]),
        yaxis=log_axis("billion operations per second", y_values),
        margin={"l": 52, "r": 16, "t": 10, "b": 42},
    )
    layout["annotations"] = [
        note(
            f"{peak.datatype} peak {number(peak.operations_per_s / _GIGA)}",
            x=math.log10(high / 1.2),
            y=math.log10(peak.operations_per_s / _GIGA),
            xanchor="right",
            yanchor="bottom",
            bgcolor="rgba(0,0,0,0)",
        )
        for peak in peaks
    ]
    return Plot(
        key=f"roofline-{runtime}",
        title=f"{RUNTIMES[runtime]}: roofline",
        summary=f"Roofline of {RUNTIMES[runtime]}: matrix products as points, each whole model as "
        "a diamond, under the roofs of arithmetic and bandwidth.",
        height_px=400,
        traces=tuple(traces),
        layout=layout,
    )


def _line(x: list[float], y: list[float], name: str, dash: str = "solid") -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": [value / _GIGA for value in y],
        "line": {"color": "--ink-soft", "width": 1.6, "dash": dash},
        "hoverinfo": "name",
    }


def _model_traces(
    one: OperatorProfile, profile: VariantProfile, colour: str, *, hollow: bool
) -> list[Json]:
    counted = [cost for cost in one.operators if cost.intensity and cost.operations_per_s]
    if not counted:
        return []
    total_us = sum(cost.time_us for cost in counted)
    fill = "--panel" if hollow else colour
    bound = bound_of(one, profile.roofline)
    operators = {
        "type": "scatter",
        "mode": "markers",
        "name": f"batch {one.batch_size}",
        "x": [cost.intensity for cost in counted],
        "y": [(cost.operations_per_s or 0.0) / _GIGA for cost in counted],
        "marker": {
            "symbol": "circle",
            "size": [5 + 16 * math.sqrt(cost.time_us / total_us) for cost in counted],
            "color": fill,
            "opacity": 0.75,
            "line": {"width": 1.4, "color": colour},
        },
        "hovertext": [
            f"<b>{safe(cost.name)}</b><br>batch {one.batch_size}, {cost.datatype}<br>"
            f"{number(cost.intensity)} operations per byte<br>"
            f"{number((cost.operations_per_s or 0.0) / _GIGA)} billion operations/s<br>"
            f"{number(cost.time_us)} µs per call"
            for cost in counted
        ],
        "hoverinfo": "text",
    }
    model = {
        "type": "scatter",
        "mode": "markers+text",
        "name": f"model, batch {one.batch_size}",
        "x": [bound.intensity],
        "y": [(bound.achieved_per_s or 0.0) / _GIGA],
        "text": [f"batch {one.batch_size}"],
        "textposition": "bottom center",
        "textfont": {"size": 11, "color": "--ink"},
        "marker": {
            "symbol": "diamond",
            "size": 14,
            "color": fill,
            "line": {"width": 2, "color": "--ink"},
        },
        "hovertext": [safe(bound.sentence)],
        "hoverinfo": "text",
    }
    return [operators, model]


def scaling_plot(profile: VariantProfile) -> Plot:
    """Samples per second by batch in both runtimes; a ring marks where returns diminish."""
    steps = [step for scaling in profile.scaling for step in scaling.steps]
    ends = [end for one in steps for end in (one.per_s.low, one.per_s.value, one.per_s.high)]
    rings = [
        {**ring(step.batch_size, step.per_s.value, 20), "name": "knee", "showlegend": False}
        for scaling in profile.scaling
        for step in scaling.steps
        if step.batch_size == scaling.knee
    ]
    ticks = sorted({step.batch_size for step in steps})
    layout = base_layout(
        xaxis=axis(
            "batch size", type="log", tickvals=ticks, ticktext=[str(size) for size in ticks]
        ),
        yaxis=log_axis("samples/s", ends),
        margin={"l": 52, "r": 16, "t": 10, "b": 42},
        showlegend=True,
        legend={"x": 0.98, "xanchor": "right", "y": 0.03, "yanchor": "bottom"},
    )
    return Plot(
        key="scaling",
        title="Throughput by batch",
        summary="Samples per second by batch size in both runtimes, with the range of the rounds.",
        height_px=360,
        traces=(*map(_scaling_trace, profile.scaling), *rings),
        layout=layout,
    )


def _scaling_trace(scaling: Scaling) -> Json:
    """The scaling curve of one runtime."""
    steps, colour, name = scaling.steps, COLOURS[scaling.runtime], RUNTIMES[scaling.runtime]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [step.batch_size for step in steps],
        "y": [step.per_s.value for step in steps],
        "error_y": error_bars(
            [step.per_s.value - step.per_s.low for step in steps],
            [step.per_s.high - step.per_s.value for step in steps],
            colour,
        ),
        "line": {"color": colour, "width": 2},
        "marker": {
            "size": 8,
            "symbol": "square" if scaling.runtime is Runtime.PYTORCH else "circle",
            "color": colour,
        },
        "hovertext": [
            f"<b>{name}</b>, batch {step.batch_size}<br>"
            f"{number(step.per_s.value)} samples/s<br>"
            f"{number(step.per_s.value * 3600)} an hour"
            for step in steps
        ],
        "hoverinfo": "text",
    }

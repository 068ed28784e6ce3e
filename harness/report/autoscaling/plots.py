"""Policies against each other, and one of them over time: the rate, the replicas, what was late."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.report.plots.base import (
    Json,
    Plot,
    axis,
    base_layout,
    bound_line,
    error_bars,
    note,
    ring,
    safe,
)
from harness.types.autoscaling import AutoscalePlan, PolicyOutcome, ScalingCourse
from harness.words.numbers import asked, asked_percent, number, percent, span, things

_RATE, _READY, _ORDERED = "--c-blue", "--c-vermillion", "--c-orange"
_LOOKS = {
    "fixed": ("--ink-soft", "x"),
    "utilization": ("--c-blue", "circle"),
    "queue": ("--c-vermillion", "square"),
    "in_flight": ("--c-green", "triangle-up"),
    "schedule": ("--c-purple", "diamond"),
    "forecast": ("--c-orange", "pentagon"),
}
_TITLES = {
    "fixed": "fixed number", "utilization": "target utilization", "queue": "queue time",
    "in_flight": "in flight per replica", "schedule": "schedule", "forecast": "forecast",
}  # fmt: skip
_TICKS = 6
_MINUTES_BELOW_S = 2 * 3600.0


def autoscaling_plots(plan: AutoscalePlan) -> tuple[Plot, ...]:
    """The front, then the shown policy over time."""
    shown = shown_outcome(plan)
    course = shown.course
    plots: list[Plot] = []
    if course is not None:
        plots += [_replicas(shown.policy.name, course), _in_time(plan, shown, course)]
    if plan.live is not None:
        plots.append(_replicas(plan.live.policy, plan.live.course, measured=True))
    return (*plots, _front(plan))


def shown_outcome(plan: AutoscalePlan) -> PolicyOutcome:
    """The chosen policy, else the one that comes closest."""
    honest = [one for one in plan.outcomes if not one.with_foresight]
    return next(
        (one for one in honest if one.policy.name == plan.chosen),
        max(honest, key=lambda one: (one.attained.low, -one.replica_hours.value)),
    )


def _times(course: ScalingCourse) -> tuple[list[float], str]:
    """When each stretch begins, and the unit."""
    total_s = course.stretch_s * len(course.ready)
    unit_s, unit = (60.0, "minutes") if total_s < _MINUTES_BELOW_S else (3600.0, "hours")
    return [round(place * course.stretch_s / unit_s, 4) for place in range(len(course.ready))], unit


def _replicas(policy: str, course: ScalingCourse, *, measured: bool = False) -> Plot:
    times, unit = _times(course)
    busiest, most = max(course.demand_per_s), max(course.ordered)

    def line(name: str, values: Sequence[float], colour: str, **own: object) -> Json:
        look: Json = {"color": colour, "width": 1.8, "shape": "hv"}
        hover = [safe(f"{name}: {number(value)}") for value in values]
        return {
            "type": "scatter", "name": name, "mode": "lines", "x": times, "y": list(values),
            "line": look | dict(own.pop("line", {})),  # type: ignore[call-overload]
            "hovertext": hover, "hoverinfo": "text+x", **own,
        }  # fmt: skip

    return Plot(
        key="autoscaling-live" if measured else "autoscaling-course",
        title=f"{policy}: rate and replicas over time, {'measured' if measured else 'simulated'}",
        summary=f"Requests per second and replicas over {len(times)} stretches of the trace: the "
        f"rate reaches {number(busiest)} per second, the replicas {number(most)}.",
        height_px=300,
        traces=(
            line("ordered replicas", course.ordered, _ORDERED, yaxis="y2", line={"dash": "dot"}),
            line("ready replicas", course.ready, _READY, yaxis="y2"),
            line("requests/s", course.demand_per_s, _RATE),
        ),
        layout=base_layout(
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            xaxis=axis(unit),
            yaxis=axis("requests/s", range=[0, 1.08 * busiest]),
            yaxis2=axis(
                "replicas",
                overlaying="y",
                side="right",
                range=[0, 1.08 * most],
                showgrid=False,
                tickvals=list(range(0, math.floor(most) + 1, max(1, math.ceil(most / _TICKS)))),
            ),
            margin={"l": 56, "r": 56, "t": 34, "b": 46},
        ),
    )


def _in_time(plan: AutoscalePlan, shown: PolicyOutcome, course: ScalingCourse) -> Plot:
    times, unit = _times(course)
    known = [(at, share) for at, share in zip(times, course.attained, strict=True) if share >= 0]
    needed = shown.needed
    lowest = min((share for _, share in known), default=needed)
    bound = bound_line(xref="paper", yref="y", x0=0, x1=1, y0=100 * needed, y1=100 * needed)
    return Plot(
        key="autoscaling-in-time",
        title=f"{shown.policy.name}: requests in time over time",
        summary=f"Share of requests within {asked(plan.bound_ms)} ms in {len(known)} stretches "
        f"with traffic; the lowest is {percent(lowest)}, and {asked_percent(needed)} are needed.",
        height_px=240,
        traces=(
            {
                "type": "scatter",
                "name": "in time",
                "mode": "lines",
                "x": [at for at, _ in known],
                "y": [100 * share for _, share in known],
                "line": {"color": _RATE, "width": 1.6, "shape": "hv"},
                "hovertext": [safe(percent(share)) for _, share in known],
                "hoverinfo": "text+x",
            },
        ),
        layout=base_layout(
            xaxis=axis(unit),
            yaxis=axis("requests in time (%)", range=[100 * min(lowest, needed) - 2, 101]),
            shapes=[bound],
        ),
    )


def _front(plan: AutoscalePlan) -> Plot:
    front = sorted(
        (one.replica_hours.value, 100 * one.attained.value) for one in plan.outcomes if one.on_front
    )
    traces: list[Json] = [
        {
            "type": "scatter", "name": "front", "mode": "lines", "showlegend": False,
            "x": [hours for hours, _ in front], "y": [share for _, share in front],
            "line": {"color": "--rule-strong", "width": 1.2, "shape": "hv"}, "hoverinfo": "skip",
        }
    ]  # fmt: skip
    for kind, (colour, symbol) in _LOOKS.items():
        own = [one for one in plan.outcomes if one.policy.rules[0].kind == kind]
        if own:
            traces.append(_kind(_TITLES[kind], own, colour, symbol))
    shown = next((one for one in plan.outcomes if one.policy.name == plan.chosen), None)
    if shown is not None:
        mark = ring(shown.replica_hours.value, 100 * shown.attained.value, 20)
        traces.append({**mark, "name": "chosen"})
    needed = plan.outcomes[0].needed
    most_hours = max(one.replica_hours.value for one in plan.outcomes)
    lowest = min([100 * needed, *(100 * one.attained.value for one in plan.outcomes)])
    return Plot(
        key="autoscaling-front",
        title="Requests in time against replica hours",
        summary=f"Policies ({len(plan.outcomes)}) by replica hours and share of requests in time, "
        f"with their intervals, and the front of {len(front)}. The same numbers are in the table.",
        height_px=380,
        traces=tuple(traces),
        layout=base_layout(
            showlegend=True,
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            margin={"l": 56, "r": 12, "t": 50, "b": 46},
            xaxis=axis("replica hours", range=[0, 1.1 * most_hours]),
            yaxis=axis("requests in time (%)", range=[lowest - 3, 101]),
            shapes=[
                bound_line(xref="paper", yref="y", x0=0, x1=1, y0=100 * needed, y1=100 * needed)
            ],
            annotations=[
                note(
                    f"needed: {asked_percent(needed)}",
                    x=1, y=100 * needed, xref="paper", yref="y", xanchor="right", yanchor="top",
                )
            ],
        ),
    )  # fmt: skip


def _kind(name: str, own: Sequence[PolicyOutcome], colour: str, symbol: str) -> Json:
    shares, hours = [one.attained for one in own], [one.replica_hours for one in own]
    return {
        "type": "scatter",
        "name": name,
        "mode": "markers",
        "x": [one.value for one in hours],
        "y": [100 * one.value for one in shares],
        "marker": {"symbol": symbol, "size": 9, "color": colour},
        "error_x": error_bars(
            [one.value - one.low for one in hours], [one.high - one.value for one in hours], colour
        ),
        "error_y": error_bars(
            [100 * (one.value - one.low) for one in shares],
            [100 * (one.high - one.value) for one in shares],
            colour,
        ),
        "hovertext": [_hover(one) for one in own],
        "hoverinfo": "text",
    }


def _hover(one: PolicyOutcome) -> str:
    share, hours = one.attained, one.replica_hours
    lines = (
        f"in time {percent(share.value)} ({span(percent(share.low), percent(share.high))})",
        f"{number(hours.value)} replica hours ({span(number(hours.low), number(hours.high))})",
        f"{number(one.scalings.value)} scalings, at most {things(one.most_replicas, 'replica')}",
        f"decision: {one.decision.value}",
    )
    return "<br>".join([f"<b>{safe(one.policy.name)}</b>", *map(safe, lines)])

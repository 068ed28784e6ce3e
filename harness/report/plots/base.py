"""What all plots share: figures as plain JSON, axes, safe text, and how a variant looks.

Colour alone never tells two things apart: a model has a colour *and* a shape, a precision a fill
*and* a dash. Colours are Okabe and Ito's palette (2008, 'Color Universal Design'), kept as names
of CSS variables, so that one style sheet serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

from harness.report.family_results import FamilyResults
from harness.report.selection import percentile_of
from harness.types import ModelVariant, Precision, Role, TrialResult
from harness.words.labels import serving_words, throughput_words, workload_words
from harness.words.numbers import asked, latency, milliseconds, number, span

TEACHER_COLOUR, CONTROL_COLOUR, BASELINE_COLOUR = "--c-blue", "--c-purple", "--ink-soft"
STUDENT_COLOURS = ("--c-vermillion", "--c-green", "--c-orange", "--c-sky")
STUDENT_SHAPES = ("circle", "triangle-up", "triangle-down", "pentagon")

SHAPE_PATHS: Mapping[str, str] = {
    "square": "M-4,-4H4V4H-4Z",
    "circle": "M4.5,0A4.5,4.5 0 1,1 -4.5,0A4.5,4.5 0 1,1 4.5,0Z",
    "triangle-up": "M-5,4L0,-5L5,4Z",
    "triangle-down": "M-5,-4L0,5L5,-4Z",
    "pentagon": "M0,-5L5,-1.4L3,4.3H-3L-5,-1.4Z",
    "diamond": "M0,-5.6L5.6,0L0,5.6L-5.6,0Z",
    "x": "M-4,-4L4,4M-4,4L4,-4",
}
"""SVG paths of the shapes, for the key beside the plots."""


@dataclass(frozen=True)
class VariantStyle:
    """The looks of one variant."""

    name: str
    role: Role
    colour: str
    """Name of a CSS variable."""
    shape: str
    open: bool
    dash: str
    """plotly's name: solid, dot, dash."""

    @property
    def path(self) -> str:
        """SVG path of the shape."""
        return SHAPE_PATHS[self.shape]

    @property
    def dash_array(self) -> str:
        """SVG dashes of the line."""
        return {"solid": "none", "dot": "2 3", "dash": "6 4"}[self.dash]


_DASHES = {Precision.FP32: "solid", Precision.FP16: "dot", Precision.INT8: "dash"}


def styles_of(family: FamilyResults) -> dict[str, VariantStyle]:
    """A look for each variant and baseline of a family, by name."""
    styles: dict[str, VariantStyle] = {}
    looks: dict[str, tuple[str, str]] = {}
    students = zip(cycle(STUDENT_COLOURS), cycle(STUDENT_SHAPES), strict=False)
    for variant in family.variants:
        if variant.source not in looks:
            looks[variant.source] = (
                next(students) if variant.role is Role.STUDENT else _look_of_role(variant.role)
            )
        styles[variant.name] = _variant_style(variant, *looks[variant.source])
    for name in family.names:
        if name not in styles:
            styles[name] = VariantStyle(
                name, Role.BASELINE, BASELINE_COLOUR, "x", open=True, dash="dot"
            )
    return styles


def _look_of_role(role: Role) -> tuple[str, str]:
    return (TEACHER_COLOUR, "square") if role is Role.TEACHER else (CONTROL_COLOUR, "diamond")


def _variant_style(variant: ModelVariant, colour: str, shape: str) -> VariantStyle:
    return VariantStyle(
        name=variant.name,
        role=variant.role,
        colour=colour,
        shape=shape,
        open=variant.precision is not Precision.FP32,
        dash=_DASHES[variant.precision],
    )


Json = dict[str, Any]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_FARTHEST = 10.0
"""An interval's end beyond so many times its value is drawn no farther on a logarithmic axis."""
_MOST_TICKS = 6
_TICK_STEPS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


@dataclass(frozen=True)
class Plot:
    """One figure of the page."""

    key: str
    """Unique in the page."""
    title: str
    summary: str
    """The plot in words, for readers who cannot see it."""
    height_px: int
    traces: tuple[Json, ...]
    layout: Json

    @property
    def figure(self) -> Json:
        """What plotly draws."""
        return {"data": list(self.traces), "layout": self.layout}


def base_layout(**own: Any) -> Json:
    """Layout that all plots share; `own` is laid over it."""
    layout: Json = {
        "paper_bgcolor": "--panel",
        "plot_bgcolor": "--panel",
        "font": {"family": _FONT, "size": 12, "color": "--ink"},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 46},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "--panel",
            "bordercolor": "--rule-strong",
            "align": "left",
            "font": {"family": _FONT, "size": 12, "color": "--ink"},
        },
    }
    return {**layout, **own}


def axis(title: str, **own: Any) -> Json:
    """A quiet axis with a title."""
    return {
        "title": {"text": safe(title), "standoff": 8, "font": {"size": 12, "color": "--ink-soft"}},
        "gridcolor": "--grid",
        "linecolor": "--rule-strong",
        "tickfont": {"size": 11, "color": "--ink-soft"},
        "zeroline": False,
        "automargin": True,
        "separatethousands": True,
        "tickangle": 0,
        "ticks": "",
        **own,
    }


def log_axis(title: str, values: Iterable[float], **own: Any) -> Json:
    """A logarithmic axis over the values, with a few round ticks."""
    positive = [value for value in values if value > 0 and math.isfinite(value)] or [1.0, 10.0]
    low, high = min(positive) / 1.3, max(positive) * 1.5
    ticks = _log_ticks(low, high)
    return axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[_tick_text(tick) for tick in ticks],
        **own,
    )


def _tick_text(tick: float) -> str:
    """A tick as exact as it is: 1.5 is no 2."""
    return number(tick) if tick < 1 else asked(round(tick, 1))


def drawn_ends(value: float, low: float, high: float) -> tuple[float, float, float]:
    """An interval's low end, value and high end, as far as a logarithmic axis draws them."""
    return low, value, min(high, _FARTHEST * value)


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the range, as many as there is room for."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in _TICK_STEPS:
        ticks = [step * 10.0**e for e in exponents for step in steps]
        # A label at the very end would reach into what stands beside the plot.
        ticks = [tick for tick in ticks if low <= tick <= high / 1.1]
        if len(ticks) <= _MOST_TICKS:
            break
    return ticks


def safe(text: str) -> str:
    """Text for plotly, which reads a subset of HTML in every label."""
    return escape(text, quote=False)


def marker(style: VariantStyle, size: float, **own: Any) -> Json:
    """A variant's mark; a hollow one is filled with the ground, so that nothing shines through."""
    return {
        "symbol": style.shape,
        "size": size,
        "color": "--panel" if style.open and style.shape != "x" else style.colour,
        "line": {"width": 1.8 if style.open else 0.8, "color": style.colour},
        **own,
    }


def ring(x: float, y: float, size: float) -> Json:
    """A trace that marks the recommended trial."""
    line = {"width": 2, "color": "--ink"}
    return {
        "type": "scatter",
        "name": "recommended",
        "mode": "markers",
        "x": [x],
        "y": [y],
        "marker": {"symbol": "circle-open", "size": size, "color": "--ink", "line": line},
        "hoverinfo": "skip",
    }


def error_bars(down: Sequence[float], up: Sequence[float], colour: str) -> Json:
    """Intervals for a trace's `error_x` or `error_y`, as distances from its values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": list(up),
        "arrayminus": list(down),
        "color": colour,
        "thickness": 1.2,
        "width": 4,
    }


def bound_line(**ends: Any) -> Json:
    """A clause of the objective, as a dashed line."""
    line = {"color": "--c-bound", "width": 1.6, "dash": "dash"}
    return {"type": "line", **ends, "line": line}


def note(text: str, **own: Any) -> Json:
    """An annotation without an arrow."""
    return {
        "text": safe(text),
        "showarrow": False,
        "font": {"size": 11, "color": "--ink-soft"},
        "bgcolor": "--panel",
        "borderpad": 1,
        **own,
    }


def hover(family: FamilyResults, result: TrialResult, *extra: str) -> str:
    """What the box beside the pointer says of a trial."""
    found = percentile_of(result, family.percentile)
    interval = span(milliseconds(found.low_ms), milliseconds(found.high_ms)) if found else ""
    bounds = f" ({interval})" if interval else ""
    lines: Sequence[str] = (
        *extra,
        workload_words(result.trial.workload),
        serving_words(result.trial.serving),
        throughput_words(result),
        f"{family.latency_title} {latency(found.value_ms if found else None)}{bounds}",
        f"decision: {result.decision.value}",
    )
    head = f"<b>{safe(result.trial.variant)}</b>"
    return "<br>".join([head, *(safe(line) for line in lines)])

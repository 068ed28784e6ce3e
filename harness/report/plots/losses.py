"""Plots of lost quality: a waterfall along the chain, dots by slice, confusions by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults, loss_metric
from harness.report.plots.base import Json, Plot, axis, base_layout, error_bars, safe
from harness.types.losses import Estimate, LossChain, LossEntry, SliceLoss
from harness.words.labels import (
    changed,
    lost,
    lost_span,
    short_names,
    shortened,
    step_title,
    unit_in_full,
    unit_of,
)
from harness.words.numbers import count, metric_value

_MOST_SLICES = 16
_SLICE_PX, _CLASS_PX, _FRAME_PX = 24, 30, 80
_LIKELY, _UNSURE = "--c-vermillion", "--c-blue"


def slices_plot(family: FamilyResults, entry: LossEntry) -> Plot | None:
    """The slices with the greatest loss, each with its interval; too small ones are left out."""
    known = [one for one in entry.slices if one.loss.low is not None][:_MOST_SLICES]
    if not known:
        return None
    metric = loss_metric(family, entry)
    return Plot(
        key=f"{family.name}-slices-{entry.variant}",
        title=f"{entry.variant} against the teacher, by slice",
        summary=f"Loss of {entry.variant} on {len(known)} slices with intervals; the table below "
        "holds the numbers.",
        height_px=_FRAME_PX + _SLICE_PX * len(known),
        traces=(_slices_trace(metric, known),),
        layout=base_layout(
            xaxis=axis(
                f"change from the teacher ({unit_in_full(metric)})",
                zeroline=True,
                zerolinecolor="--rule-strong",
            ),
            yaxis=axis(
                "",
                range=[len(known) - 0.5, -0.5],
                tickvals=list(range(len(known))),
                ticktext=[safe(shortened(f"{one.slicing}: {one.name}", 44)) for one in known],
                showgrid=False,
            ),
        ),
    )


def _slices_trace(metric: str, known: Sequence[SliceLoss]) -> Json:
    """A point for each slice with its interval; red where its loss is beyond chance."""
    values = [changed(metric, one.loss.value) for one in known]
    ends = [
        sorted(changed(metric, b or 0.0) for b in (one.loss.low, one.loss.high)) for one in known
    ]
    further = [one.p_value is not None and one.p_value < 0.05 for one in known]  # noqa: PLR2004
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "slices",
        "x": values,
        "y": list(range(len(known))),
        "marker": {
            "size": 10,
            "symbol": ["triangle-down" if one else "circle" for one in further],
            "color": [_LIKELY if one else _UNSURE for one in further],
        },
        "error_x": error_bars(
            [value - low for value, (low, _) in zip(values, ends, strict=True)],
            [high - value for value, (_, high) in zip(values, ends, strict=True)],
            "--ink-soft",
        ),
        "hovertext": [
            f"<b>{safe(one.slicing)}: {safe(one.name)}</b><br>{lost(metric, one.loss.value)} "
            f"({lost_span(metric, one.loss)})<br>{count(one.samples)} samples"
            for one in known
        ],
        "hoverinfo": "text",
    }


def confusions_plot(family: FamilyResults, entry: LossEntry) -> Plot | None:
    """How many samples of each class are answered otherwise than by the teacher."""
    change = entry.confusion_change
    if not change or not any(any(row) for row in change):
        return None
    answers = [*entry.classes, "(no answer)"] if any(row[-1] for row in change) else entry.classes
    cells = [list(row[: len(answers)]) for row in change]
    most = max(abs(value) for row in cells for value in row)
    trace: Json = {
        "type": "heatmap",
        "name": "change",
        "x": list(range(len(answers))),
        "y": list(range(len(cells))),
        "z": cells,
        "zmin": -most,
        "zmax": most,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "colorscale": [[0, "--c-sky"], [0.5, "--heat-0"], [1, "--c-orange"]],
        "text": [[f"{value:+d}" if value else "" for value in row] for row in cells],
        "texttemplate": "%{text}",
        "hovertext": [
            [
                f"{safe(label)} taken for {safe(answer)}: {value:+d} samples"
                for answer, value in zip(answers, row, strict=True)
            ]
            for label, row in zip(entry.classes, cells, strict=True)
        ],
        "hoverinfo": "text",
    }
    return Plot(
        key=f"{family.name}-confusions-{entry.variant}",
        title=f"{entry.variant}: samples by class and answer, less the teacher's",
        summary=f"Heat map of how many more samples of each class {entry.variant} takes for each "
        "class than the teacher does.",
        height_px=_FRAME_PX + 20 + _CLASS_PX * len(cells),
        traces=(trace,),
        layout=base_layout(
            xaxis=_class_axis("answer", answers, tickangle=-35),
            yaxis=_class_axis("class", entry.classes, autorange="reversed"),
        ),
    )


def _class_axis(title: str, names: tuple[str, ...] | list[str], **own: object) -> Json:
    return axis(
        title,
        tickvals=list(range(len(names))),
        ticktext=[safe(shortened(name, 16)) for name in names],
        showgrid=False,
        **own,
    )


_MOST_WATERFALLS = 6
_WORSE, _BETTER, _WHOLE = "--c-vermillion", "--c-green", "--c-blue"


def waterfall_plots(family: FamilyResults) -> tuple[Plot, ...]:
    """A waterfall per variant that is not the teacher in its first precision."""
    chains = [
        (entry.variant, entry.chain)
        for entry in family.losses
        if entry.chain and (entry.slices or len(family.losses) == 1)
    ]
    if not chains:
        return ()
    names = short_names([variant.name for variant in family.variants])
    return tuple(
        _waterfall(
            chain, key=f"{family.name}-lost-{name}", variant=name, title=names.get(name, name)
        )
        for name, chain in chains[:_MOST_WATERFALLS]
    )


@dataclass(frozen=True)
class _Bar:
    """A loss as it is drawn, in points or bits per byte from the teacher's quality."""

    title: str
    loss: Estimate
    base: float
    height: float
    lowest: float
    highest: float
    """The highest point of the bar's end and its whisker; `lowest` is the lowest."""
    colour: str

    @property
    def top(self) -> float:
        """The value at which the bar ends."""
        return self.base + self.height


def _bars(chain: LossChain) -> list[_Bar]:
    """One per step, each from where the one before it ended, and their sum."""
    bars: list[_Bar] = []
    for link in chain.links[1:]:
        colour = _WORSE if link.loss.value > 0 else _BETTER
        base = bars[-1].top if bars else 0.0
        bars.append(_bar(chain, step_title(link.step), link.loss, base, colour))
    return [*bars, _bar(chain, "In all", chain.total, 0.0, _WHOLE)]


def _bar(chain: LossChain, title: str, loss: Estimate, base: float, colour: str) -> _Bar:
    height, *bounds = (
        changed(chain.metric, value)
        for value in (loss.value, loss.low, loss.high)
        if value is not None
    )
    ends = [base + one for one in (height, *bounds)]
    return _Bar(title, loss, base, height, min(ends), max(ends), colour)


def _waterfall(chain: LossChain, *, key: str, variant: str, title: str) -> Plot:
    bars = _bars(chain)
    reach = _reach(bars)
    start = metric_value(chain.metric, chain.links[0].quality)
    return Plot(
        key=key,
        title=title,
        summary=f"Waterfall of the quality of {variant}, from the teacher's {start} by "
        f"{len(bars) - 1} steps; the table below holds the numbers.",
        height_px=270,
        traces=(_bar_trace(chain, bars), _value_trace(chain, bars, reach)),
        layout=base_layout(
            bargap=0.35,
            xaxis=axis("", type="category", showgrid=False, tickfont={"size": 10}),
            yaxis=axis(
                f"{unit_of(chain.metric)}, from {start}",
                range=reach,
                zeroline=True,
                zerolinecolor="--rule-strong",
            ),
        ),
    )


def _reach(bars: list[_Bar]) -> list[float]:
    """The range of the axis: all bars and whiskers, with room for the values."""
    low = min(0.0, *(bar.lowest for bar in bars))
    high = max(0.0, *(bar.highest for bar in bars))
    room = (high - low) * 0.16 or 1.0
    return [low - room, high + room]


def _bar_trace(chain: LossChain, bars: list[_Bar]) -> Json:
    return {
        "type": "bar",
        "name": "loss",
        "x": _ticks(bars),
        "y": [bar.height for bar in bars],
        "base": [bar.base for bar in bars],
        "marker": {
            "color": [bar.colour for bar in bars],
            "line": {"width": 1, "color": "--panel"},
        },
        "error_y": error_bars(
            [bar.top - bar.lowest for bar in bars],
            [bar.highest - bar.top for bar in bars],
            "--ink-soft",
        ),
        "text": [lost(chain.metric, bar.loss.value) for bar in bars],
        "textposition": "none",
        "hovertext": [
            f"<b>{safe(bar.title)}</b><br>{lost(chain.metric, bar.loss.value)} "
            f"({lost_span(chain.metric, bar.loss)})"
            for bar in bars
        ],
        "hoverinfo": "text",
    }


def _value_trace(chain: LossChain, bars: list[_Bar], reach: list[float]) -> Json:
    """The losses in figures, beyond the whiskers."""
    apart = 0.03 * (reach[1] - reach[0])
    downwards = not metric_named(chain.metric).lower_is_better
    return {
        "type": "scatter",
        "name": "values",
        "mode": "text",
        "x": _ticks(bars),
        "y": [bar.lowest - apart if downwards else bar.highest + apart for bar in bars],
        "text": [lost(chain.metric, bar.loss.value) for bar in bars],
        "textposition": "bottom center" if downwards else "top center",
        "textfont": {"size": 11, "color": "--ink"},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


def _ticks(bars: list[_Bar]) -> list[str]:
    """The titles, broken where they may be."""
    return [bar.title.replace(" and ", "<br>and ").replace(", ", ",<br>") for bar in bars]

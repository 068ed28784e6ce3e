"""A waterfall of the quality that a variant lost, a step of its chain after the other."""

from __future__ import annotations

from dataclasses import dataclass

from harness.losses import Estimate, LossChain
from harness.report.labels import short_names
from harness.report.loss_words import (
    is_accuracy,
    lost,
    lost_span,
    quality_words,
    scaled,
    step_title,
    unit_of,
)
from harness.report.plots import Json, Plot, axis, base_layout, error_bars, safe
from harness.report.selection import FamilyResults

_MOST_WATERFALLS = 6
_WORSE, _BETTER, _WHOLE = "--c-vermillion", "--c-green", "--c-blue"


def waterfall_plots(family: FamilyResults) -> tuple[Plot, ...]:
    """A waterfall a variant that is not the teacher in its first precision."""
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
    """Of the bar's end and its whisker."""
    colour: str

    @property
    def top(self) -> float:
        """Where the bar ends."""
        return self.base + self.height


def _direction(chain: LossChain) -> int:
    """Accuracy that is lost goes down; bits per byte that are lost go up, as the metric does."""
    return -1 if is_accuracy(chain.metric) else 1


def _bars(chain: LossChain) -> list[_Bar]:
    """One a step, each from where the one before it ended, and their sum."""
    bars: list[_Bar] = []
    for link in chain.links[1:]:
        colour = _WORSE if link.loss.value > 0 else _BETTER
        base = bars[-1].top if bars else 0.0
        bars.append(_bar(chain, step_title(link.step), link.loss, base, colour))
    return [*bars, _bar(chain, "In all", chain.total, 0.0, _WHOLE)]


def _bar(chain: LossChain, title: str, loss: Estimate, base: float, colour: str) -> _Bar:
    height, *bounds = (
        _direction(chain) * scaled(chain.metric, value)
        for value in (loss.value, loss.low, loss.high)
        if value is not None
    )
    ends = [base + one for one in (height, *bounds)]
    return _Bar(title, loss, base, height, min(ends), max(ends), colour)


def _waterfall(chain: LossChain, *, key: str, variant: str, title: str) -> Plot:
    bars = _bars(chain)
    reach = _reach(bars)
    start = quality_words(chain.metric, chain.links[0].quality)
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
    """Of the axis: all bars and whiskers, with room for the values."""
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
    downwards = _direction(chain) < 0
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

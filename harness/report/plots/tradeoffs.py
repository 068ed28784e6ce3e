"""Quality against latency: what each millisecond buys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults
from harness.report.plots.base import (
    Json,
    Plot,
    VariantStyle,
    axis,
    base_layout,
    bound_line,
    drawn_ends,
    error_bars,
    hover,
    log_axis,
    marker,
    note,
    ring,
    safe,
)
from harness.report.selection import best_of_variant, measured, pareto_front, percentile_of
from harness.types import Constraint, QualityScore, TrialResult
from harness.types.latency import UNBOUNDED_MS
from harness.words.numbers import heading, metric_span, metric_title, metric_value, things

_SCATTER_SHARE, _STRIP_START = 0.87, 0.9
_FAR_LEFT_MS = 1e-3
"""A logarithmic axis has no zero for the area to begin at."""


def quality_plot(family: FamilyResults, styles: dict[str, VariantStyle]) -> Plot | None:
    """The scatter of one family; None without a quality metric or without a latency."""
    metric = next(iter(family.metrics), None)
    trials = _drawn(family, family.trials)
    if metric is None or not trials:
        return None
    traces = [
        _front_trace(family, metric, trials),
        *_variant_traces(family, metric, styles),
        *_strip_traces(family, metric, styles),
        *_ring(family, metric),
    ]
    lower = metric_named(metric).lower_is_better
    return Plot(
        key=f"{family.name}-quality",
        title=f"{heading(metric)} against {family.latency_title}",
        summary=f"Scatter plot of {metric_title(metric)} over {family.latency_title} latency for "
        f"{things(len(family.variants), 'variant')} and {things(len(trials), 'trial')}, with the "
        "objective's bounds and the Pareto front. The same numbers are in the tables below.",
        height_px=380,
        traces=tuple(traces),
        layout=_layout(family, metric, trials, lower=lower),
    )


def _shown(metric: str, value: float) -> float:
    """Shares are drawn in percent."""
    return value * 100 if metric_named(metric).unit.is_share else value


def _latency(family: FamilyResults, result: TrialResult) -> float:
    found = percentile_of(result, family.percentile)
    return found.value_ms if found and 0 < found.value_ms < UNBOUNDED_MS else math.nan


def _ends(family: FamilyResults, result: TrialResult) -> tuple[float, float, float]:
    """A drawn latency between the ends of its interval, as far as they are drawn."""
    found = percentile_of(result, family.percentile)
    value = _latency(family, result)
    return drawn_ends(value, found.low_ms, found.high_ms) if found else (value, value, value)


def _drawn(family: FamilyResults, results: Sequence[TrialResult]) -> list[TrialResult]:
    """Valid trials that have a place on the axis: above its zero, and with a queue that drained."""
    return [one for one in measured(results) if math.isfinite(_latency(family, one))]


def _variant_traces(
    family: FamilyResults, metric: str, styles: dict[str, VariantStyle]
) -> list[Json]:
    traces = []
    for name in family.names:
        own, best = _drawn(family, family.trials_of(name)), best_of_variant(family, name)
        score = family.score(name, metric)
        if score and own:
            traces.append(_cloud_trace(family, score, styles[name], own))
        if score and best in own and best is not None:
            traces.append(_best_trace(family, score, styles[name], best))
    return traces


def _unloaded(family: FamilyResults, metric: str) -> list[QualityScore]:
    """Scores of what has no valid trial, or none with a place on the axis."""
    scores = [s for name in family.names if (s := family.score(name, metric))]
    return [score for score in scores if not _drawn(family, family.trials_of(score.variant))]


def _why_unloaded(family: FamilyResults, name: str) -> str:
    trials = family.trials_of(name)
    if measured(trials):
        return "its latency has no place on the axis: 0 ms, or beyond all that was answered"
    return "no valid trial" if trials else "not load-tested"


def _trace(style: VariantStyle, **own: object) -> Json:
    return {"type": "scatter", "name": safe(style.name), "meta": style.name, **own}


def _cloud_trace(
    family: FamilyResults, score: QualityScore, style: VariantStyle, own: Sequence[TrialResult]
) -> Json:
    quality = _shown(score.metric, score.value)
    return _trace(
        style,
        mode="markers",
        x=[_latency(family, result) for result in own],
        y=[quality] * len(own),
        marker=marker(style, 7, opacity=0.6),
        hovertext=[hover(family, result, _quality_words(score)) for result in own],
        hoverinfo="text",
    )


def _best_trace(
    family: FamilyResults, score: QualityScore, style: VariantStyle, best: TrialResult
) -> Json:
    left, value, right = _ends(family, best)
    quality = _shown(score.metric, score.value)
    ends = (score.value if end is None else end for end in (score.low, score.high))
    low, high = (_shown(score.metric, end) for end in ends)
    return _trace(
        style,
        mode="markers",
        x=[value],
        y=[quality],
        error_x=error_bars([value - left], [right - value], style.colour),
        error_y=error_bars([quality - low], [high - quality], style.colour),
        marker=marker(style, 13),
        hovertext=[hover(family, best, _quality_words(score), "best trial of the variant")],
        hoverinfo="text",
    )


def _strip_traces(
    family: FamilyResults, metric: str, styles: dict[str, VariantStyle]
) -> list[Json]:
    """What has no latency, side by side in the strip at the right."""
    scores = _unloaded(family, metric)
    return [
        _trace(
            styles[score.variant],
            mode="markers",
            xaxis="x2",
            x=[(place + 1) / (len(scores) + 1)],
            y=[_shown(metric, score.value)],
            marker=marker(styles[score.variant], 11),
            hovertext=["<br>".join(_strip_hover(family, score))],
            hoverinfo="text",
        )
        for place, score in enumerate(scores)
    ]


def _strip_hover(family: FamilyResults, score: QualityScore) -> Iterator[str]:
    yield f"<b>{safe(score.variant)}</b>"
    yield safe(_quality_words(score))
    yield safe(_why_unloaded(family, score.variant))


def _quality_words(score: QualityScore) -> str:
    value = metric_value(score.metric, score.value)
    if score.low is None or score.high is None:
        return f"{metric_title(score.metric)} {value} (no interval)"
    interval = metric_span(score.metric, score.low, score.high)
    return f"{metric_title(score.metric)} {value} ({interval})"


def _front_trace(family: FamilyResults, metric: str, trials: Sequence[TrialResult]) -> Json:
    points = [
        (_latency(family, result), _shown(metric, score.value))
        for result in trials
        if (score := family.score(result.trial.variant, metric))
    ]
    front = pareto_front(points, lower_is_better=metric_named(metric).lower_is_better)
    return {
        "type": "scatter",
        "name": "Pareto front",
        "mode": "lines",
        "x": [latency for latency, _ in front],
        "y": [quality for _, quality in front],
        "line": {"shape": "hv", "color": "--ink-soft", "width": 2, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _ring(family: FamilyResults, metric: str) -> list[Json]:
    """A ring around the recommended trial."""
    trial = family.recommended
    score = family.score(trial.trial.variant, metric) if trial else None
    if trial is None or score is None or not _drawn(family, [trial]):
        return []
    return [ring(_latency(family, trial), _shown(metric, score.value), 25)]


def _layout(
    family: FamilyResults, metric: str, trials: Sequence[TrialResult], *, lower: bool
) -> Json:
    clause, asked = family.latency_constraint, family.quality_floor(metric)
    floor = asked[0] if asked else None
    best = [
        one for name in family.names if (one := best_of_variant(family, name)) in trials and one
    ]
    latencies = [_latency(family, result) for result in trials]
    latencies += [end for result in best for end in _ends(family, result)]
    latencies += [clause.value] if clause else []
    unloaded = _unloaded(family, metric)
    unit = " (%)" if metric_named(metric).unit.is_share else ""
    direction = "lower is better, so the axis runs down" if lower else "higher is better"
    layout = base_layout(
        xaxis=log_axis(
            f"{family.latency_title} latency (ms, logarithmic)",
            latencies,
            domain=[0, _SCATTER_SHARE if unloaded else 1],
        ),
        yaxis=axis(
            f"{metric_title(metric)}{unit}: {direction}",
            range=_quality_range(family, metric, floor, lower=lower),
        ),
        shapes=_bounds(family, metric, floor, lower=lower),
        annotations=_bound_notes(family, metric, asked),
    )
    if unloaded:
        layout["xaxis2"] = axis(
            "", domain=[_STRIP_START, 1], range=[0, 1], showgrid=False, fixedrange=True,
            tickvals=[0.5], ticktext=[_strip_title(family, unloaded)],
        )  # fmt: skip
    return layout


def _strip_title(family: FamilyResults, unloaded: Sequence[QualityScore]) -> str:
    answered = any(measured(family.trials_of(one.variant)) for one in unloaded)
    return "no place<br>on the axis" if answered else "no valid<br>trial"


def _quality_range(
    family: FamilyResults, metric: str, floor: float | None, *, lower: bool
) -> list[float]:
    values = [floor] if floor is not None else []
    for score in family.scores:
        if score.metric == metric:
            ends = (score.low, score.value, score.high)
            values += [end for end in ends if end is not None]
    low, high = _shown(metric, min(values)), _shown(metric, max(values))
    room = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    return [high + room, low - room] if lower else [low - room, high + room]


def _bounds(family: FamilyResults, metric: str, floor: float | None, *, lower: bool) -> list[Json]:
    """The objective's lines, and the area that meets it."""
    clause = family.latency_constraint
    if clause is None and floor is None:
        return []
    shapes = [_met_area(family, metric, floor, lower=lower)]
    if clause:
        at = clause.value
        shapes.append(bound_line(xref="x", yref="paper", x0=at, x1=at, y0=0, y1=1))
    if floor is not None:
        at = _shown(metric, floor)
        shapes.append(bound_line(xref="paper", yref="y", x0=0, x1=1, y0=at, y1=at))
    return shapes


def _met_area(family: FamilyResults, metric: str, floor: float | None, *, lower: bool) -> Json:
    """Left of the latency's bound and on the good side of the quality's; all where none is."""
    clause = family.latency_constraint
    top = _quality_range(family, metric, floor, lower=lower)[1]
    right = {"xref": "x", "x1": clause.value} if clause else {"xref": "paper", "x1": 1}
    good = {"yref": "paper", "y0": 0, "y1": 1}
    if floor is not None:
        good = {"yref": "y", "y0": _shown(metric, floor), "y1": top}
    return {
        "type": "rect",
        "layer": "below",
        "x0": _FAR_LEFT_MS if clause else 0,
        **right,
        **good,
        "fillcolor": "--region",
        "line": {"width": 0},
    }


def _bound_notes(
    family: FamilyResults, metric: str, asked: tuple[float, Constraint] | None
) -> list[Json]:
    clause = family.latency_constraint
    notes = []
    if clause:
        place = {"x": math.log10(clause.value), "xanchor": "right", "xshift": -4}
        notes.append(note(clause.text, xref="x", yref="paper", y=0.02, yanchor="bottom", **place))
    if asked is not None:
        floor, wanted = asked
        ends = {"y": _shown(metric, floor), "yanchor": "top"}
        place = {"x": 0.01, "xanchor": "left", "yshift": -3}
        notes.append(note(wanted.text, xref="paper", yref="y", **ends, **place))
    return notes

"""Streams over the load: time to first token, gaps, goodput; tokens per second beside quality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from harness.metrics import GOODPUT, latency_of, metric_named
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
    ring,
    safe,
)
from harness.report.selection import best_of_variant, pareto_front
from harness.report.streams.tables import clause_on, shown_latency, streamed_trials
from harness.types import ITL, TTFT, QualityScore, TrialResult
from harness.types.estimates import Interval
from harness.types.latency import UNBOUNDED_MS
from harness.words.labels import is_open, load_label
from harness.words.numbers import metric_span, metric_title, metric_value, number, things

_HEIGHT_PX = 270
_LOAD_AXIS = "offered requests/s"
_Value = Callable[[TrialResult], Interval | None]


def load_plots(family: FamilyResults, styles: dict[str, VariantStyle]) -> tuple[Plot, ...]:
    """Time to first token, gaps between tokens and goodput over the load; valid trials alone."""
    trials = [one for one in streamed_trials(family) if one.valid]
    plots = (
        _latency_plot(family, styles, trials, TTFT),
        _latency_plot(family, styles, trials, ITL),
        _goodput_plot(family, styles, trials),
    )
    return tuple(one for one in plots if one is not None)


def _latency_plot(
    family: FamilyResults,
    styles: dict[str, VariantStyle],
    trials: Sequence[TrialResult],
    name: str,
) -> Plot | None:
    metric = metric_named(shown_latency(family, name))

    def value(result: TrialResult) -> Interval | None:
        found = latency_of(metric, result)
        # A logarithmic axis has no zero: tokens that came together have no gap to draw.
        if found is None or not 0 < found.value_ms < UNBOUNDED_MS:
            return None
        return Interval(found.value_ms, found.low_ms, found.high_ms)

    drawn = [one for one in trials if value(one)]
    if not drawn:
        return None
    clause = clause_on(family, metric.name)
    shown = [end for one in drawn if (found := value(one)) for end in _ends(found)]
    yaxis = log_axis(f"{metric.title} (ms)", [*shown, *([clause.value] if clause else [])])
    return Plot(
        key=f"{family.name}-{name}-over-load",
        title=metric.title,
        summary=f"{metric.title} over offered requests per second: "
        f"{things(len(drawn), 'trial')}, with intervals. The same numbers are in the table of "
        "streams over load.",
        height_px=_HEIGHT_PX,
        traces=(*_lines(family, styles, drawn, value), *_rings(family, drawn, value)),
        layout=_layout(drawn, yaxis, clause.value if clause else None),
    )


def _goodput_plot(
    family: FamilyResults, styles: dict[str, VariantStyle], trials: Sequence[TrialResult]
) -> Plot | None:
    def value(result: TrialResult) -> Interval | None:
        found = result.goodput
        if found is None:
            return None
        return found.bounds or Interval(*[found.requests_per_s] * 3)

    drawn = [one for one in trials if value(one)]
    if not drawn:
        return None
    clause = clause_on(family, GOODPUT)
    offered = max(one.offered_requests_per_s for one in drawn)
    most = max([end for one in drawn if (found := value(one)) for end in _ends(found)] + [offered])
    yaxis = axis("goodput (requests/s)", range=[0, 1.08 * most])
    diagonal = {
        "type": "scatter",
        "name": "every request is good",
        "mode": "lines",
        "x": [0, offered],
        "y": [0, offered],
        "line": {"color": "--ink-soft", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    return Plot(
        key=f"{family.name}-goodput",
        title="Goodput",
        summary=f"Requests per second that meet every clause on latencies, over those offered: "
        f"{things(len(drawn), 'trial')}, with intervals. On the dotted line every request is good.",
        height_px=_HEIGHT_PX,
        traces=(
            diagonal,
            *_lines(family, styles, drawn, value),
            *_rings(family, drawn, value),
        ),
        layout=_layout(drawn, yaxis, clause.value if clause else None),
    )


def _ends(found: Interval) -> tuple[float, float, float]:
    return drawn_ends(found.value, found.low, found.high)


def _lines(
    family: FamilyResults,
    styles: dict[str, VariantStyle],
    drawn: Sequence[TrialResult],
    value: _Value,
) -> list[Json]:
    """A line per variant, serving configuration and kind of loop; what was repeated is beside."""

    def line_of(one: TrialResult) -> tuple[object, ...]:
        trial = one.trial
        sort = is_open(trial.workload), trial.repeat, trial.workload.protocol
        return (trial.variant, trial.serving.label, *sort)

    with_open = {one.trial.variant for one in drawn if is_open(one.trial.workload)}
    ordered = sorted(drawn, key=lambda one: (line_of(one), one.offered_requests_per_s))
    lines = [list(group) for _, group in groupby(ordered, key=line_of)]
    # Closed loops crowd together where the server is full: open ones are joined where there are.
    return [
        _line(
            family,
            styles[one[0].trial.variant],
            one,
            value,
            joined=is_open(one[0].trial.workload) or one[0].trial.variant not in with_open,
        )
        for one in lines
    ]


def _line(
    family: FamilyResults,
    style: VariantStyle,
    results: Sequence[TrialResult],
    value: _Value,
    *,
    joined: bool,
) -> Json:
    found = [interval for one in results if (interval := value(one))]
    return {
        "type": "scatter",
        "name": safe(style.name),
        "meta": style.name,
        "mode": "lines+markers+text" if joined else "markers+text",
        "x": [one.offered_requests_per_s for one in results],
        "y": [one.value for one in found],
        "text": [safe(_label(one)) for one in results],
        "textposition": "bottom right" if style.open else "top left",
        "textfont": {"size": 10, "color": "--ink-soft"},
        "line": {"color": style.colour, "width": 1.8, "dash": style.dash},
        "marker": marker(style, 8),
        "error_y": error_bars(
            [one.value - one.low for one in found],
            [_ends(one)[2] - one.value for one in found],
            style.colour,
        ),
        "cliponaxis": False,
        "hovertext": [hover(family, one) for one in results],
        "hoverinfo": "text",
    }


def _label(result: TrialResult) -> str:
    """Requests in flight; an open loop's rate stands on the axis already."""
    workload = result.trial.workload
    return "" if is_open(workload) else load_label(workload).removeprefix("c")


def _rings(family: FamilyResults, drawn: Iterable[TrialResult], value: _Value) -> list[Json]:
    """A ring around the recommended trial."""
    best = family.recommended
    found = value(best) if best is not None and best in drawn else None
    return [ring(best.offered_requests_per_s, found.value, 19)] if best and found else []


def _layout(drawn: Sequence[TrialResult], yaxis: Json, bound: float | None) -> Json:
    layout = base_layout(
        xaxis=axis(_LOAD_AXIS, range=[0, 1.08 * max(one.offered_requests_per_s for one in drawn)]),
        yaxis=yaxis,
        margin={"l": 48, "r": 10, "t": 8, "b": 42},
    )
    if bound is not None:
        ends = {"x0": 0, "x1": 1, "y0": bound, "y1": bound}
        layout["shapes"] = [bound_line(xref="paper", yref="y", **ends)]
    return layout


def tokens_plot(family: FamilyResults, styles: dict[str, VariantStyle]) -> Plot | None:
    """Quality over tokens per second, each variant at its best trial, with the Pareto front."""
    metric = next(iter(family.metrics), None)
    best = {name: best_of_variant(family, name) for name in family.names}
    points = [
        (result, score)
        for name, result in best.items()
        if metric and result and result.streams and (score := family.score(name, metric))
    ]
    if metric is None or not points:
        return None
    known = metric_named(metric)
    scale = 100.0 if known.unit.is_share else 1.0
    front = pareto_front(
        [(-_tokens_per_s(result).value, scale * score.value) for result, score in points],
        lower_is_better=known.lower_is_better,
    )
    traces: list[Json] = [_front_trace(front)]
    traces += [
        _tokens_trace(family, result, score, styles[result.trial.variant], scale)
        for result, score in points
    ]
    traces += [
        ring(_tokens_per_s(result).value, scale * score.value, 25)
        for result, score in points
        if result is family.recommended
    ]
    direction = "lower is better" if known.lower_is_better else "higher is better"
    unit = " (%)" if known.unit.is_share else ""
    return Plot(
        key=f"{family.name}-tokens",
        title="Tokens per second against quality",
        summary=f"{metric_title(metric)} over output tokens per second for "
        f"{things(len(points), 'variant')} at their best trials, with intervals and the "
        "Pareto front.",
        height_px=_HEIGHT_PX,
        traces=tuple(traces),
        layout=base_layout(
            xaxis=axis("output tokens/s, all streams together", rangemode="tozero"),
            yaxis=axis(
                f"{metric_title(metric)}{unit}, {direction}",
                **({"autorange": "reversed"} if known.lower_is_better else {}),
            ),
        ),
    )


def _tokens_per_s(result: TrialResult) -> Interval:
    found = result.streams
    value = found.output_tokens_per_s if found else 0.0
    return (found and found.output_tokens_per_s_bounds) or Interval(value, value, value)


def _front_trace(front: Sequence[tuple[float, float]]) -> Json:
    """The Pareto front; its first values are negative, because more tokens are better."""
    return {
        "type": "scatter",
        "name": "Pareto front",
        "mode": "lines",
        "x": [-one for one, _ in front],
        "y": [one for _, one in front],
        "line": {"shape": "hv", "color": "--ink-soft", "width": 2, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _tokens_trace(
    family: FamilyResults,
    result: TrialResult,
    score: QualityScore,
    style: VariantStyle,
    scale: float,
) -> Json:
    """One variant's mark with both of its intervals."""
    rate, metric = _tokens_per_s(result), score.metric
    low, high = (score.value if end is None else end for end in (score.low, score.high))
    said = f"{metric_title(metric)} {metric_value(metric, score.value)} " + (
        f"({metric_span(metric, score.low, score.high)})" if score.low is not None else ""
    )
    across = ([rate.value - rate.low], [rate.high - rate.value])
    upright = ([scale * (score.value - low)], [scale * (high - score.value)])
    return {
        "type": "scatter",
        "name": safe(style.name),
        "meta": style.name,
        "mode": "markers",
        "x": [rate.value],
        "y": [scale * score.value],
        "error_x": error_bars(*across, style.colour),
        "error_y": error_bars(*upright, style.colour),
        "marker": marker(style, 13),
        "hovertext": [hover(family, result, said, f"{number(rate.value)} output tokens/s")],
        "hoverinfo": "text",
    }

"""Quality, and throughput, against latency: what each millisecond buys."""

from __future__ import annotations

import math
from collections import defaultdict
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
    hover,
    log_axis,
    marker,
    note,
    ring,
    safe,
)
from harness.report.selection import best_of_variant, measured, pareto_front, percentile_of
from harness.types import QualityScore, TrialResult, Workload
from harness.types.latency import UNBOUNDED_MS
from harness.words.labels import is_open, load_amount, load_label
from harness.words.numbers import metric_span, metric_title, metric_value

_STRIP = "not load-tested"
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
        title=f"{metric_title(metric).capitalize()} against {family.latency_title}",
        summary=f"Scatter plot of {metric_title(metric)} over {family.latency_title} latency for "
        f"{len(family.variants)} variants and {len(trials)} trials, with the objective's bounds "
        f"and the Pareto front. The same numbers are in the tables below.",
        height_px=380,
        traces=tuple(traces),
        layout=_layout(family, metric, trials, lower=lower),
    )


def _shown(metric: str, value: float) -> float:
    """Shares are drawn in percent."""
    return value * 100 if metric_named(metric).unit.is_share else value


def _latency(family: FamilyResults, result: TrialResult) -> float:
    found = percentile_of(result, family.percentile)
    return found.value_ms if found and found.value_ms < UNBOUNDED_MS else math.nan


def _drawn(family: FamilyResults, results: Sequence[TrialResult]) -> list[TrialResult]:
    """Valid trials that have a place on the axis: those whose queue drained."""
    return [one for one in measured(results) if math.isfinite(_latency(family, one))]


def _variant_traces(
    family: FamilyResults, metric: str, styles: dict[str, VariantStyle]
) -> list[Json]:
    traces = []
    for name in family.names:
        own, best = _drawn(family, family.trials_of(name)), best_of_variant(family, name)
        score = family.score(name, metric)
        if score and best in own and best is not None:
            traces.append(_cloud_trace(family, score, styles[name], own))
            traces.append(_best_trace(family, score, styles[name], best))
    return traces


def _unloaded(family: FamilyResults, metric: str) -> list[QualityScore]:
    """Scores of what has no valid trial."""
    scores = [s for name in family.names if (s := family.score(name, metric))]
    return [score for score in scores if not _drawn(family, family.trials_of(score.variant))]


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
    found = percentile_of(best, family.percentile)
    value = _latency(family, best)
    quality = _shown(score.metric, score.value)
    ends = (score.value if end is None else end for end in (score.low, score.high))
    bars = {"color": style.colour, "thickness": 1.2, "width": 4, "type": "data"}
    low, high = (_shown(score.metric, end) for end in ends)
    return _trace(
        style,
        mode="markers",
        x=[value],
        y=[quality],
        error_x={
            **bars,
            "symmetric": False,
            "array": [found.high_ms - value if found else 0.0],
            "arrayminus": [value - found.low_ms if found else 0.0],
        },
        error_y={
            **bars,
            "symmetric": False,
            "array": [high - quality],
            "arrayminus": [quality - low],
        },
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
            hovertext=[
                f"<b>{safe(score.variant)}</b><br>{safe(_quality_words(score))}<br>{_STRIP}"
            ],
            hoverinfo="text",
        )
        for place, score in enumerate(scores)
    ]


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
    clause, floor = family.latency_constraint, family.quality_floor(metric)
    latencies = [_latency(family, result) for result in trials]
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
        annotations=_bound_notes(family, metric, floor),
    )
    if unloaded:
        layout["xaxis2"] = axis(
            "", domain=[_STRIP_START, 1], range=[0, 1], showgrid=False, fixedrange=True,
            tickvals=[0.5], ticktext=["no valid<br>trial"],
        )  # fmt: skip
    return layout


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


def _bound_notes(family: FamilyResults, metric: str, floor: float | None) -> list[Json]:
    clause = family.latency_constraint
    notes = []
    if clause:
        place = {"x": math.log10(clause.value), "xanchor": "right", "xshift": -4}
        notes.append(note(clause.text, xref="x", yref="paper", y=0.02, yanchor="bottom", **place))
    wanted = next((c.text for c in family.constraints if c.metric == metric), "")
    if floor is not None and wanted:
        place = {"x": 0.01, "xanchor": "left", "yshift": -3}
        notes.append(
            note(wanted, xref="paper", yref="y", y=_shown(metric, floor), yanchor="top", **place)
        )
    return notes


Sweep = tuple[TrialResult, ...]
"""Trials that differ in how much load there was alone, ascending."""


def throughput_plots(family: FamilyResults, styles: dict[str, VariantStyle]) -> tuple[Plot, ...]:
    """One plot per client batch size, all on the same axes so that they compare."""
    trials = [result for result in measured(family.trials) if _objective_latency(family, result)]
    sizes = sorted({result.trial.workload.client_batch_size for result in trials})
    return tuple(_plot(family, styles, trials, size) for size in sizes)


def _objective_latency(family: FamilyResults, result: TrialResult) -> float | None:
    found = percentile_of(result, family.percentile)
    return found.value_ms if found and found.value_ms < UNBOUNDED_MS else None


def _plot(
    family: FamilyResults,
    styles: dict[str, VariantStyle],
    trials: Sequence[TrialResult],
    size: int,
) -> Plot:
    own = [result for result in trials if result.trial.workload.client_batch_size == size]
    traces = [_sweep_trace(family, styles, sweep) for sweep in _sweeps(own)]
    best = family.recommended
    if best in own and best and (latency := _objective_latency(family, best)):
        traces.append(ring(best.throughput_inferences_per_s, latency, 19))
    return Plot(
        key=f"{family.name}-throughput-{size}",
        title=f"Client batch {size}",
        summary=f"{family.latency_title} latency over throughput at client batch {size}, "
        f"{len(own)} trials; labels beside the points are the load.",
        height_px=270,
        traces=tuple(traces),
        layout=_throughput_layout(family, trials),
    )


def _sweeps(trials: Sequence[TrialResult]) -> list[Sweep]:
    """Group trials into lines; a re-measurement stands alone."""
    groups: dict[tuple[object, ...], list[TrialResult]] = defaultdict(list)
    for result in trials:
        trial, workload = result.trial, result.trial.workload
        arrivals = workload.arrivals if is_open(workload) else None
        key = (trial.variant, trial.serving, workload.protocol, arrivals, trial.repeat)
        groups[key].append(result)
    return [
        tuple(sorted(group, key=lambda result: load_amount(result.trial.workload)))
        for group in groups.values()
    ]


def _sweep_trace(family: FamilyResults, styles: dict[str, VariantStyle], sweep: Sweep) -> Json:
    style = styles[sweep[0].trial.variant]
    alone = len(sweep) == 1
    return {
        "type": "scatter",
        "name": safe(style.name),
        "meta": style.name,
        "mode": "markers" if alone else "lines+markers+text",
        "x": [result.throughput_inferences_per_s for result in sweep],
        "y": [_objective_latency(family, result) for result in sweep],
        "text": [safe(_point_label(result.trial.workload)) for result in sweep],
        # Two precisions of a model run side by side: their numbers go to opposite sides.
        "textposition": "bottom right" if style.open else "top left",
        "textfont": {"size": 10, "color": "--ink-soft"},
        "line": {"color": style.colour, "width": 1.8, "dash": style.dash},
        "marker": marker(style, 7 if alone else 8, opacity=0.8 if alone else 1),
        "cliponaxis": False,
        "hovertext": [hover(family, result) for result in sweep],
        "hoverinfo": "text",
    }


def _point_label(workload: Workload) -> str:
    """Requests in flight by their number alone, as nearly all loads are."""
    return load_label(workload) if is_open(workload) else str(workload.concurrency)


def _throughput_layout(family: FamilyResults, trials: Sequence[TrialResult]) -> Json:
    clause = family.latency_constraint
    latencies = [value for result in trials if (value := _objective_latency(family, result))]
    latencies += [clause.value] if clause else []
    layout = base_layout(
        xaxis=log_axis(
            f"throughput ({family.throughput_unit})",
            [r.throughput_inferences_per_s for r in trials],
        ),
        yaxis=log_axis(f"{family.latency_title} (ms)", latencies),
        margin={"l": 48, "r": 10, "t": 8, "b": 42},
    )
    if clause:
        at = clause.value
        layout["shapes"] = [bound_line(xref="paper", yref="y", x0=0, x1=1, y0=at, y1=at)]
    return layout

"""Latency over throughput: what each load of a variant buys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from harness.report.family_results import FamilyResults
from harness.report.plots.base import (
    Json,
    Plot,
    VariantStyle,
    base_layout,
    bound_line,
    hover,
    log_axis,
    marker,
    ring,
    safe,
)
from harness.report.selection import measured, percentile_of
from harness.types import TrialResult, Workload
from harness.types.latency import UNBOUNDED_MS
from harness.words.labels import batch_words, is_open, load_amount, load_label
from harness.words.numbers import things

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
    rows = batch_words(own[0].trial.workload)
    best = family.recommended
    if best in own and best and (latency := _objective_latency(family, best)):
        traces.append(ring(best.throughput_inferences_per_s, latency, 19))
    return Plot(
        key=f"{family.name}-throughput-{size}",
        title=f"Client batch {rows}",
        summary=f"{family.latency_title} latency over throughput at client batch {rows}, "
        f"{things(len(own), 'trial')}; labels beside the points are the load.",
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

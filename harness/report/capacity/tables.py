"""A capacity plan as tables: how many replicas, and how far the model is to be trusted."""

from __future__ import annotations

from harness.metrics import metric_named
from harness.report.tables.model import Cell, Column, Table, decision_cell, numeric, words
from harness.types.capacity import CapacityPlan, DeploymentPlan
from harness.words.labels import arrival_words, protocol_name, rows_words, serving_words
from harness.words.numbers import (
    MISSING,
    asked,
    asked_percent,
    confidence,
    count,
    milliseconds,
    number,
    percent,
    seconds,
    span,
)


def replicas_table(plan: CapacityPlan) -> Table:
    """A row per variant and serving configuration: what one replica carries, how many it takes."""
    return Table(
        caption=f"Replicas for {demand_words(plan)}",
        columns=(
            Column("Variant", numeric=False),
            Column("Serving", numeric=False),
            Column("One replica", "requests/s"),
            Column("Peak"),
            Column("One lost"),
            Column("Zone lost"),
            Column("Update"),
            Column("At the mean", "cold start"),
            Column(f"{planned_statistic(plan)} at peak", "ms"),
            Column("Objective", numeric=False),
        ),
        rows=tuple(_row(one) for one in plan.deployments),
        note=_note(plan),
    )


def _row(one: DeploymentPlan) -> tuple[Cell, ...]:
    head = one.replicas
    latency = one.latency_at_peak_ms
    counts = (
        (head.peak, head.lost_replica, head.lost_zone, head.rolling_update, head.cold_start)
        if head
        else (None,) * 5
    )
    starts = "" if one.cold_start_s is None else f"{seconds(one.cold_start_s)} s"
    cells = [numeric(count(value), value) for value in counts]
    cells[-1] = numeric(count(counts[-1]), counts[-1], starts)
    return (
        words(one.variant),
        words(serving_words(one.serving), protocol_name(one.protocol)),
        _rate_cell(one),
        *cells,
        numeric(
            milliseconds(latency.value if latency else None),
            latency.value if latency else None,
            span(milliseconds(latency.low), milliseconds(latency.high)) if latency else "",
        ),
        decision_cell(one.decision),
    )


def _rate_cell(one: DeploymentPlan) -> Cell:
    """The rate of one replica; where none is sure to meet the objective, what it is at most."""
    rate = one.highest_rate_per_s
    if one.replicas is None:
        return numeric(MISSING, None, span(MISSING, number(rate.high)) if rate.high else "")
    return numeric(number(rate.low), rate.low, span(number(rate.low), number(rate.high)))


def _note(plan: CapacityPlan) -> str:
    away = asked_percent(plan.max_unavailable)
    return (
        f"Predicted, not measured: simulated from the run's trials, for {objectives(plan)}. One "
        f"replica is planned with the rate up to which the unfavourable bound of "
        f"{confidence(plan.confidence)} intervals meets it. One lost, zone lost ({plan.zones} "
        f"zones) and update ({away} away at a time) are numbers of replicas of which enough for "
        f"the peak are left, one such event at a time. At the mean: enough at the mean rate that a "
        f"rise to the peak within {seconds(plan.ramp_s)} s is carried while others start."
        f"{measured_words(plan)}"
    )


def objectives(plan: CapacityPlan) -> str:
    """What is planned for: one objective, or those of several families."""
    return " and ".join(dict.fromkeys(one.objective for one in plan.deployments))


def planned_statistic(plan: CapacityPlan) -> str:
    """`p95`, where all rows are planned for it, else `latency`."""
    names = {metric_named(one.statistic).title for one in plan.deployments}
    return names.pop() if len(names) == 1 else "latency"


def measured_words(plan: CapacityPlan) -> str:
    """What the rows are that nothing was simulated for; empty where there are none."""
    if all(one.curve for one in plan.deployments):
        return ""
    return (
        " Models that write token by token are not simulated: their replicas are planned with the "
        "highest rate that was measured to meet the objective, on the prompts that were measured."
    )


def demand_words(plan: CapacityPlan) -> str:
    """`2,000 requests/s, peak 3 times that, Poisson arrivals, 1 row per request`."""
    demand = plan.demand
    peak = f", peak {asked(demand.peak_factor)} times that" if demand.peak_factor > 1 else ""
    arrivals = arrival_words(demand.arrivals)
    rows = rows_words(demand.rows_per_request)
    return f"{asked(demand.rate_per_s)} requests/s{peak}, {arrivals}, {rows} per request"


def trust_table(plan: CapacityPlan) -> Table:
    """How far the model is from the trials that it was fitted to, and what stays assumed."""
    planned = (one.statistic for one in plan.deployments if one.error)
    statistics = tuple(dict.fromkeys(("p50", *planned)))
    return Table(
        caption="How far the model is from what was measured",
        columns=(
            Column("Variant", numeric=False),
            Column("Serving", numeric=False),
            *(Column(f"{name} off by", "median") for name in statistics),
            Column("Limited by", numeric=False),
            Column("What to know", numeric=False),
        ),
        rows=tuple(
            (
                words(one.variant),
                words(serving_words(one.serving)),
                *(
                    numeric(percent(one.error.get(name)), one.error.get(name))
                    for name in statistics
                ),
                words(one.limited_by),
                words(one.note or MISSING),
            )
            for one in plan.deployments
        ),
        note="Each trial is simulated as it was measured, and the deviation is part of every "
        "interval above.",
    )

"""Autoscaling policies as a table, and what was simulated in words."""

from __future__ import annotations

from collections.abc import Callable

from harness.report.tables.model import Cell, Column, Table, decision_cell, numeric
from harness.types.autoscaling import (
    AutoscalePlan,
    LiveOutcome,
    PolicyOutcome,
    RateTrace,
    SharedMachine,
)
from harness.types.estimates import Interval
from harness.words.labels import protocol_name, serving_words
from harness.words.numbers import (
    asked,
    asked_percent,
    confidence,
    count,
    number,
    percent,
    seconds,
    span,
)

CHOSEN = "chosen"


def policies_table(plan: AutoscalePlan) -> Table:
    """A row per policy, in the order in which they were tried."""
    priced = plan.pricing is not None
    return Table(
        caption=f"Autoscaling policies for {plan.variant}",
        columns=(
            Column("Policy", numeric=False),
            Column("In time", f"of all requests; {asked_percent(plan.outcomes[0].needed)} needed"),
            Column("Objective", numeric=False),
            Column("Replica hours"),
            *([Column("Cost", "USD")] if priced else []),
            Column("Most", "replicas"),
            Column("Scalings"),
            Column("Minutes missed", "of those with traffic"),
        ),
        rows=tuple(_row(plan, one) for one in plan.outcomes),
        note=_note(plan),
    )


def _row(plan: AutoscalePlan, one: PolicyOutcome) -> tuple[Cell, ...]:
    cost = one.cost_usd
    return (
        Cell(one.policy.name, detail=_standing(plan, one)),
        _interval(one.attained, percent),
        decision_cell(one.decision),
        _interval(one.replica_hours),
        *([_interval(cost)] if cost is not None else []),
        numeric(count(one.most_replicas), one.most_replicas),
        numeric(number(one.scalings.value), one.scalings.value),
        numeric(percent(one.missed_share.value), one.missed_share.value),
    )


def _standing(plan: AutoscalePlan, one: PolicyOutcome) -> str:
    """What a policy is among the others."""
    if one.policy.name == plan.chosen:
        return CHOSEN
    if one.with_foresight:
        return "knows the trace: a yardstick"
    return "on the front" if one.on_front else ""


def _interval(value: Interval, words: Callable[[float], str] = number) -> Cell:
    return numeric(words(value.value), value.value, span(words(value.low), words(value.high)))


def _note(plan: AutoscalePlan) -> str:
    return (
        f"Simulated, not measured: {count(plan.draws)} ways in which the fitted replica may be, "
        f"with {confidence(plan.confidence)} intervals over them. On the front: no other policy "
        "has as many requests in time with fewer replica hours. Minutes missed: those in which "
        "too few requests were in time. Replica hours count from the order of a replica."
    )


def measured_table(live: LiveOutcome, machine: SharedMachine | None) -> Table:
    """What was measured on real replicas, beside what had been predicted.

    Args:
        live: both.
        machine: that all replicas shared, as far as the prediction knew it.
    """

    def row(title: str, measured: Cell, predicted: Cell) -> tuple[Cell, ...]:
        return (Cell(title), measured, predicted)

    return Table(
        caption=f"{live.policy} on real replicas, and as it was predicted",
        columns=(Column("", numeric=False), Column("Measured"), Column("Predicted")),
        rows=(
            row("in time", _interval(live.attained, percent), _interval(live.predicted, percent)),
            row(
                "replica hours",
                numeric(number(live.replica_hours), live.replica_hours),
                _interval(live.predicted_replica_hours),
            ),
            row(
                "scalings",
                numeric(count(live.scalings), live.scalings),
                _interval(live.predicted_scalings),
            ),
            row(
                "most replicas",
                numeric(count(live.most_replicas), live.most_replicas),
                numeric(count(live.predicted_most), live.predicted_most),
            ),
        ),
        note=f"{count(live.requests)} requests in {number(live.length_s)} s, "
        f"{count(live.failed)} of them failed; replicas started in {number(live.start_s.value)} s "
        f"({span(number(live.start_s.low), number(live.start_s.high))}). {_machine_words(machine)}",
    )


def _machine_words(machine: SharedMachine | None) -> str:
    """What the prediction knew of the machine that everything shares."""
    if machine is None:
        return (
            "All replicas, the balancer and the load share this machine, which the prediction does "
            "not know: its replicas have a machine each."
        )
    return (
        "All replicas, the balancer and the load share this machine. Measured before and simulated "
        f"with: {number(machine.alone_per_s)} requests/s of one replica, "
        f"{number(machine.pair_per_s)} of two, and {percent(machine.starting_share)} of one's "
        "while another starts."
    )


def trace_words(trace: RateTrace) -> str:
    """`diurnal, 200/s, peak 3 times that: 24 h, mean 200 requests/s, busiest step 600`."""
    return (
        f"{trace.source}: {_length(trace.duration_s)}, mean {number(trace.mean_per_s)} requests/s, "
        f"busiest {seconds(trace.step_s)} s {number(trace.peak_per_s)}"
    )


def _length(length_s: float) -> str:
    hours = length_s / 3600
    if hours >= 1:
        return f"{number(hours)} h"
    return f"{number(length_s / 60)} min"


def terms_words(plan: AutoscalePlan) -> str:
    """The scaler's terms in one sentence."""
    terms, limits = plan.terms, plan.terms.limits
    return (
        f"One replica ({serving_words(plan.serving)}, {protocol_name(plan.protocol)}) saturates at "
        f"{number(plan.saturation_per_s)} requests/s and takes {seconds(terms.start_s)} s to "
        f"start. {limits.min_replicas} to {limits.max_replicas} replicas; a decision every "
        f"{asked(terms.sync_s)} s on rates over {asked(terms.window_s)} s; a tolerance of "
        f"{asked_percent(limits.tolerance)}; stabilization {limits.up.stabilization_s} s up and "
        f"{limits.down.stabilization_s} s down."
    )


def chosen_words(plan: AutoscalePlan) -> str:
    """Which policy to take, and why; with what it saves beside a fixed number of replicas."""
    if plan.chosen is None:
        return f"No policy is chosen: {plan.reason}."
    chosen = next(one for one in plan.outcomes if one.policy.name == plan.chosen)
    fixed = plan.outcomes[0]
    saved = 1 - chosen.replica_hours.value / fixed.replica_hours.value
    text = f"{plan.chosen}: {plan.reason}"
    if saved > 0:
        text += f"; {percent(saved)} fewer replica hours than {fixed.policy.name} replicas"
    return f"{text}."

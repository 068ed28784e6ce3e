"""Which policies are tried: each kind at several targets, made from what a replica can do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.planning.autoscaling.replica import ReplicaTable
from harness.planning.autoscaling.rules import whole
from harness.types.autoscaling import (
    FixedRule,
    ForecastRule,
    InFlightRule,
    Policy,
    QueueRule,
    RateTrace,
    ScalingTerms,
    ScheduleRule,
    UtilizationRule,
)
from harness.words.numbers import asked, asked_percent

UTILIZATIONS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
QUEUE_SHARES = (0.1, 0.25, 0.5)
"""Mean waiting times that are tried, as shares of the objective's bound."""
IN_FLIGHT_AT = (0.5, 0.7, 0.85)
"""Utilizations whose requests in flight are tried as targets."""
FORECASTS = (0.6, 0.8)
SCHEDULED_AT = 0.7
DAY_S = 86400.0
SLOT_S = 1800.0
_SLOTS = 24
"""Slots of a trace of less than two days: equal parts of it."""


def policies_of(
    trace: RateTrace, terms: ScalingTerms, table: ReplicaTable, bound_s: float, sure_per_s: float
) -> Iterator[Policy]:
    """Every policy that is tried, a fixed number of replicas first.

    Args:
        trace: its peak needs the fixed number; its first day makes the schedule.
        terms: when decisions are taken, and how long a replica takes to start.
        table: one replica, by the best guess.
        bound_s: of the objective.
        sure_per_s: requests per second of one replica that are sure to meet it; 0: none are.
    """
    most = table.saturation_per_s
    carried = sure_per_s or UTILIZATIONS[0] * most
    fixed = _within(whole(trace.peak_per_s / carried), terms)
    yield Policy(f"fixed {fixed}", (FixedRule(fixed),))
    drain_s = terms.window_s
    for share in UTILIZATIONS:
        yield Policy(f"utilization {asked_percent(share)}", (_utilized(share, most, drain_s),))
    for part in QUEUE_SHARES:
        wait_s = part * bound_s
        at_wait = table.share_with_wait(wait_s) * most
        rule = QueueRule(round(1e3 * wait_s, 3), at_wait, drain_s)
        yield Policy(f"queue {asked(rule.target_ms)} ms", (rule,))
    for share in IN_FLIGHT_AT:
        target = max(0.05, float(f"{table.in_flight(share):.2g}"))
        yield Policy(f"in flight {asked(target)}", (InFlightRule(target),))
    backstop = _utilized(UTILIZATIONS[-2], most, drain_s)
    schedule = schedule_of(trace, terms, SCHEDULED_AT * most)
    name = f"schedule, utilization {asked_percent(backstop.share)}"
    yield Policy(name, (schedule, backstop))
    ahead_s = horizon_s(terms)
    for share in FORECASTS:
        forecast = ForecastRule(share, share * most, 5 * terms.window_s, ahead_s, drain_s)
        yield Policy(f"forecast, utilization {asked_percent(share)}", (forecast,))


def _utilized(share: float, saturation_per_s: float, drain_s: float) -> UtilizationRule:
    return UtilizationRule(share, share * saturation_per_s, drain_s)


def horizon_s(terms: ScalingTerms) -> float:
    """Seconds from a demand to the effect of a decision on it: half a window, scrape, start."""
    return terms.window_s / 2 + terms.scrape_s + terms.sync_s + terms.start_s


def schedule_of(trace: RateTrace, terms: ScalingTerms, per_replica_per_s: float) -> ScheduleRule:
    """Replicas by time of day, from the trace's first day, in half hours from its beginning.

    A trace of less than two days gives a schedule of itself, in 24 parts: it then knows what comes,
    and `knows_itself` says so.
    """
    period_s = trace.duration_s if knows_itself(trace) else DAY_S
    slots = _SLOTS if knows_itself(trace) else round(DAY_S / SLOT_S)
    slot_s = period_s / slots
    numbers = []
    for slot in range(slots):
        first = math.floor(slot * slot_s / trace.step_s)
        last = max(first + 1, math.ceil((slot + 1) * slot_s / trace.step_s))
        busiest = max(trace.rates_per_s[first:last])
        numbers.append(_within(whole(busiest / per_replica_per_s), terms))
    lead_s = min(slot_s, terms.start_s + 2 * terms.sync_s)
    return ScheduleRule(slot_s, tuple(numbers), lead_s, trace.begins_s)


def knows_itself(trace: RateTrace) -> bool:
    """Whether a schedule made from the trace is judged on the same hours."""
    return trace.duration_s < 2 * DAY_S


def _within(number: int, terms: ScalingTerms) -> int:
    return min(terms.limits.max_replicas, max(terms.limits.min_replicas, number))


def start_replicas(trace: RateTrace, terms: ScalingTerms, table: ReplicaTable) -> int:
    """Ready when the trace begins: enough for its first step at 70% utilization."""
    first = trace.rates_per_s[0] / (SCHEDULED_AT * table.saturation_per_s)
    return _within(whole(first), terms)

"""What each rule recommends, from what a scaler can see. The same code simulated and live.

Two kinds of metric, as a HorizontalPodAutoscaler knows them (`AverageValue` and `Value` of an
external metric). A total is divided by what one replica is to have of it: that does not depend on
how many replicas there are. A value is held against its target, and the number of replicas that are
ready is multiplied by the ratio: right only as far as the value falls in proportion to the
replicas, which a waiting time does not. It is therefore never used to scale in alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.types.autoscaling import (
    FixedRule,
    ForecastRule,
    InFlightRule,
    QueueRule,
    Rule,
    ScheduleRule,
    UtilizationRule,
)

_ROUNDING = 1e-9
FEWEST_POINTS = 3
"""Fewest points that a trend is drawn through."""


@dataclass(frozen=True)
class FleetReading:
    """What a scaler sees of its replicas, all of them together."""

    time_s: float
    """Seconds since the start."""
    replicas: int
    """Ordered, ready or not."""
    ready: int
    completed_per_s: float
    """Requests answered or refused per second, mean over the window."""
    waiting: float
    """Requests in the queues at the last scrape."""
    executing: float
    """Requests in execution, mean over the window."""
    queue_ms: float
    """Mean time in the queue of the requests that were answered in the window."""


def demand_per_s(seen: FleetReading, drain_s: float | None) -> float:
    """Requests per second that come: those answered, and those waiting spread over a time.

    Answers alone are no demand: they never exceed what the replicas can give, so a rule above
    1 / (1 + tolerance) of that would see nothing of an overload.
    """
    return seen.completed_per_s + (seen.waiting / drain_s if drain_s else 0.0)


@dataclass(frozen=True)
class Seen:
    """Demand as it was observed at a past instant."""

    time_s: float
    demand_per_s: float


def recommend(rule: Rule, seen: FleetReading, past: Sequence[Seen], tolerance: float) -> int:
    """Replicas that one rule asks for, before any limit.

    Args:
        rule: which.
        seen: what the replicas look like.
        past: demand at earlier decisions, in order of time, the newest included.
        tolerance: how far from its target, as a share, a metric changes nothing.
    """
    match rule:
        case UtilizationRule():
            demand = demand_per_s(seen, rule.drain_s)
            return _by_total(demand, rule.per_replica_per_s, seen, tolerance)
        case ForecastRule():
            demand = max(demand_per_s(seen, rule.drain_s), _forecast(rule, seen.time_s, past))
            return _by_total(demand, rule.per_replica_per_s, seen, tolerance)
        case InFlightRule():
            return _by_total(seen.waiting + seen.executing, rule.per_replica, seen, tolerance)
        case QueueRule():
            return _by_queue(rule, seen, tolerance)
        case ScheduleRule():
            slot = int((seen.time_s + rule.lead_s) % rule.period_s / rule.slot_s)
            # A slot begins when it does: until the last number's time is over both hold.
            now = int(seen.time_s % rule.period_s / rule.slot_s)
            return max(rule.replicas[slot], rule.replicas[now])
        case FixedRule():
            return rule.replicas


def _by_total(total: float, each: float, seen: FleetReading, tolerance: float) -> int:
    """`AverageValue`: the total over what one replica is to have of it."""
    if abs(total / (each * seen.replicas) - 1) <= tolerance + _ROUNDING:
        return seen.replicas
    return whole(total / each)


def by_value(value: float, target: float, seen: FleetReading, tolerance: float) -> int:
    """`Value`: the ready replicas times the value over its target."""
    ratio = value / target
    if abs(ratio - 1) <= tolerance + _ROUNDING:
        return seen.replicas
    return whole(ratio * seen.ready)


def _by_queue(rule: QueueRule, seen: FleetReading, tolerance: float) -> int:
    value = min(seen.queue_ms, rule.most * rule.target_ms)
    asked = by_value(value, rule.target_ms, seen, tolerance)
    if rule.per_replica_per_s is None:
        return asked
    demand = demand_per_s(seen, rule.drain_s)
    return max(asked, _by_total(demand, rule.per_replica_per_s, seen, tolerance))


def _forecast(rule: ForecastRule, now_s: float, past: Sequence[Seen]) -> float:
    """Where a straight line through the last window leads; 0 where it is too short for a line."""
    points = [one for one in past if one.time_s > now_s - rule.window_s]
    if len(points) < FEWEST_POINTS:
        return 0.0
    count = len(points)
    mean_s = sum(one.time_s for one in points) / count
    mean = sum(one.demand_per_s for one in points) / count
    spread = sum((one.time_s - mean_s) ** 2 for one in points)
    if spread <= 0:
        return mean
    slope = sum((one.time_s - mean_s) * one.demand_per_s for one in points) / spread
    return max(0.0, mean + slope * (now_s + rule.horizon_s - mean_s))


def whole(replicas: float) -> int:
    """Rounded up, but not for a rounding error's sake."""
    return math.ceil(replicas - _ROUNDING)

"""What Kubernetes' HorizontalPodAutoscaler makes of recommendations: one object, simulated or live.

In its order (autoscaling/v2, `pkg/controller/podautoscaler/horizontal.go`): the rule that asks for
most counts; of what was recommended within the stabilization window the most cautious counts, the
least for scaling up and the most for scaling down; the steps say how far the number may go within
their period, counted from what it was when the period began; then the minimum and the maximum.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.planning.autoscaling.rules import FleetReading, Seen, demand_per_s, recommend
from harness.types.autoscaling import (
    Behavior,
    ForecastRule,
    Policy,
    ScalingLimits,
    Select,
)
from harness.words.numbers import asked

LONGEST_STABILIZATION_S = 3600
"""Kubernetes takes no longer window."""


def check_limits(limits: ScalingLimits) -> None:
    """Refuse limits that a HorizontalPodAutoscaler does not take.

    Raises:
        UsageError: the first thing that is wrong with them.
    """
    if limits.min_replicas < 1:
        raise UsageError(
            f"at least {limits.min_replicas} replicas: an HPA keeps one",
            next_step="KEDA can end the last one (idleReplicaCount); that is not simulated",
        )
    if limits.max_replicas < limits.min_replicas:
        raise UsageError(
            f"at most {limits.max_replicas} replicas, and at least {limits.min_replicas}",
            next_step="make --max-replicas at least --min-replicas",
        )
    if not 0 <= limits.tolerance < 1:
        raise UsageError(
            f"a tolerance of {asked(limits.tolerance)}: it is a share, from 0 to below 1",
            next_step="Kubernetes' own is --tolerance 10%",
        )
    for one in (limits.up, limits.down):
        if not 0 <= one.stabilization_s <= LONGEST_STABILIZATION_S:
            raise UsageError(
                f"a stabilization window of {one.stabilization_s} s: Kubernetes takes 0 to "
                f"{LONGEST_STABILIZATION_S} s",
                next_step="shorten it: --down-stabilization 300s, --up-stabilization 0s",
            )


@dataclass
class _Window:
    """The extreme of what was recommended within a time; each call costs the same, however long."""

    length_s: float
    sign: int
    """1 for the most, -1 for the least."""
    _kept: deque[tuple[float, int]] = field(default_factory=deque)
    """Time and signed number; falling, so that the first is the extreme."""

    def extreme(self, now_s: float, asked: int) -> int:
        """Add what is recommended now, and take the extreme of the window that ends now."""
        while self._kept and self._kept[0][0] <= now_s - self.length_s:
            self._kept.popleft()
        signed = self.sign * asked
        found = max(signed, self._kept[0][1]) if self._kept else signed
        while self._kept and self._kept[-1][1] <= signed:
            self._kept.pop()
        self._kept.append((now_s, signed))
        return self.sign * found


@dataclass
class HorizontalScaler:
    """Decides, one observation after another, how many replicas there should be."""

    policy: Policy
    limits: ScalingLimits
    _least: _Window | None = None
    _most_asked: _Window | None = None
    _changes: deque[tuple[float, int]] = field(default_factory=deque)
    """Time, and replicas added (taken away: below 0)."""
    _past: deque[Seen] = field(default_factory=deque)

    def decide(self, seen: FleetReading) -> int:
        """The number of replicas that there are to be from now on."""
        self._remember(seen)
        asked = max(
            recommend(rule, seen, self._past, self.limits.tolerance) for rule in self.policy.rules
        )
        stable = self._stabilized(seen, asked)
        number = self._within_steps(seen, stable)
        number = min(self.limits.max_replicas, max(self.limits.min_replicas, number))
        if number != seen.replicas:
            self._changes.append((seen.time_s, number - seen.replicas))
        return number

    def _remember(self, seen: FleetReading) -> None:
        """Keep the demand for trends, and forget what no window reaches."""
        forecasts = [one for one in self.policy.rules if isinstance(one, ForecastRule)]
        if not forecasts:
            return
        self._past.append(Seen(seen.time_s, demand_per_s(seen, forecasts[0].drain_s)))
        longest_s = max(one.window_s for one in forecasts)
        while self._past[0].time_s <= seen.time_s - longest_s:
            self._past.popleft()

    def _stabilized(self, seen: FleetReading, asked: int) -> int:
        if self._least is None or self._most_asked is None:
            self._least = _Window(self.limits.up.stabilization_s, -1)
            self._most_asked = _Window(self.limits.down.stabilization_s, 1)
            # Kubernetes too counts what it finds as the first recommendation.
            self._least.extreme(seen.time_s, seen.replicas)
            self._most_asked.extreme(seen.time_s, seen.replicas)
        least = self._least.extreme(seen.time_s, asked)
        most = self._most_asked.extreme(seen.time_s, asked)
        return min(max(seen.replicas, least), most)

    def _within_steps(self, seen: FleetReading, number: int) -> int:
        if number > seen.replicas:
            return min(number, max(seen.replicas, self._most(self.limits.up, seen)))
        if number < seen.replicas:
            return max(number, min(seen.replicas, self._fewest(self.limits.down, seen)))
        return number

    def _most(self, behavior: Behavior, seen: FleetReading) -> int:
        """How many there may be after scaling up."""
        if behavior.select is Select.DISABLED:
            return seen.replicas
        proposed = []
        for step in behavior.steps:
            began = self._at_start_of(step.period_s, seen)
            if step.type == "Pods":
                proposed.append(began + step.value)
            else:
                proposed.append(math.ceil(began * (100 + step.value) / 100))
        return max(proposed) if behavior.select is Select.MAX else min(proposed)

    def _fewest(self, behavior: Behavior, seen: FleetReading) -> int:
        """How few there may be after scaling down."""
        if behavior.select is Select.DISABLED:
            return seen.replicas
        proposed = []
        for step in behavior.steps:
            began = self._at_start_of(step.period_s, seen)
            if step.type == "Pods":
                proposed.append(began - step.value)
            else:
                proposed.append(began * (100 - step.value) // 100)
        return min(proposed) if behavior.select is Select.MAX else max(proposed)

    def _at_start_of(self, period_s: float, seen: FleetReading) -> int:
        """How many there were when a period that ends now began."""
        longest_s = max(
            step.period_s for one in (self.limits.up, self.limits.down) for step in one.steps
        )
        while self._changes and self._changes[0][0] <= seen.time_s - longest_s:
            self._changes.popleft()
        changed = sum(by for at_s, by in self._changes if at_s > seen.time_s - period_s)
        return seen.replicas - changed

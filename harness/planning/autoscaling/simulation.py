"""A policy over a trace: replicas that start and end, and what share of the requests was in time.

Time goes in short steps. In each, the replicas that are ready share what comes evenly; what they
cannot carry waits, and delays everything behind it. Between decisions lie `sync_s`; a decision sees
rates over the last window, as old as a scrape. A replica that is ordered carries its part after
`start_s`; one that is taken away is gone at once, those that still start first. What is in flight
at it is finished elsewhere or there: no request is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.planning.autoscaling.replica import ReplicaTable, between
from harness.planning.autoscaling.rules import FleetReading
from harness.planning.autoscaling.scaler import HorizontalScaler
from harness.types.autoscaling import Policy, RateTrace, ScalingTerms, SharedMachine

LONGEST_STEP_S = 15.0
_MINUTE_S = 60.0
_LATE_PARTS = 4
"""Parts of a step, when the delay of what comes behind a queue changes within it."""


@dataclass
class SimulatedFleet:
    """How many replicas there are, and when those that start are ready."""

    start_s: float
    ready: int
    starting: list[float] = field(default_factory=list)
    """When each starting replica is ready, in order."""

    @property
    def ordered(self) -> int:
        """Ready or not: what is paid for."""
        return self.ready + len(self.starting)

    def resize(self, number: int, now_s: float) -> None:
        """Order more, or take some away: those that still start first, the newest of them."""
        while self.ordered < number:
            self.starting.append(now_s + self.start_s)
        while self.ordered > number and self.starting:
            self.starting.pop()
        self.ready = min(self.ready, number)

    def advance(self, until_s: float, step_s: float) -> float:
        """Replicas that carry during a step that ends then, those that become ready in part."""
        carrying = float(self.ready)
        while self.starting and self.starting[0] < until_s:
            ready_s = self.starting.pop(0)
            self.ready += 1
            carrying += min(1.0, (until_s - ready_s) / step_s)
        return carrying


@dataclass(frozen=True)
class LatencyClause:
    """A bound of the objective: so large a share of the requests has to be so fast."""

    share: float
    """Share of requests that must keep the bound, 0 to 1."""
    bound_s: float


@dataclass(frozen=True)
class PolicyRun:
    """What one simulation showed, step by step; arrays of shape (steps,)."""

    step_s: float
    arrived: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Number of requests that arrived."""
    inside: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    """Shape (clauses, steps): requests within each clause's bound."""
    ordered: np.ndarray[tuple[int], np.dtype[np.float64]]
    ready: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Replicas that carried, on average over the step."""
    scalings: int

    def attained(self, clause: int = 0) -> float:
        """0 to 1: of all requests, those within a clause's bound; 1 where none came."""
        total = float(self.arrived.sum())
        return float(self.inside[clause].sum()) / total if total else 1.0

    @property
    def replica_hours(self) -> float:
        """Hours of all replicas that were ordered, counted from their order."""
        return float(self.ordered.sum()) * self.step_s / 3600

    def missed_share(self, needed: float) -> float:
        """0 to 1: of the minutes with requests, those with less than the share inside."""
        per_minute = max(1, round(_MINUTE_S / self.step_s))
        pad = -len(self.arrived) % per_minute
        arrived = np.pad(self.arrived, (0, pad)).reshape(-1, per_minute).sum(axis=1)
        inside = np.pad(self.inside[0], (0, pad)).reshape(-1, per_minute).sum(axis=1)
        busy = arrived > 0
        if not busy.any():
            return 0.0
        return float((inside[busy] / arrived[busy] < needed).mean())


def step_of(trace: RateTrace, terms: ScalingTerms) -> float:
    """Length of a step: an even part of the time between two decisions."""
    longest = min(trace.step_s, LONGEST_STEP_S, terms.sync_s)
    return terms.sync_s / math.ceil(terms.sync_s / longest)


@dataclass
class _Counters:
    """What the replicas' counters say at the end of every step; each grows for ever."""

    completed: list[float] = field(default_factory=lambda: [0.0])
    queued_s: list[float] = field(default_factory=lambda: [0.0])
    executed_s: list[float] = field(default_factory=lambda: [0.0])
    waiting: list[float] = field(default_factory=lambda: [0.0])

    def add(self, completed: float, queued_s: float, executed_s: float, waiting: float) -> None:
        self.completed.append(self.completed[-1] + completed)
        self.queued_s.append(self.queued_s[-1] + queued_s)
        self.executed_s.append(self.executed_s[-1] + executed_s)
        self.waiting.append(waiting)

    def seen(
        self, now_s: float, late: int, window: int, step_s: float, fleet: SimulatedFleet
    ) -> FleetReading:
        """What a scaler sees now: counters as they were `late` steps ago, over `window` steps."""
        last = max(0, len(self.completed) - 1 - late)
        first = max(0, last - window)
        span_s = (last - first) * step_s
        completed = self.completed[last] - self.completed[first]
        return FleetReading(
            time_s=now_s,
            replicas=fleet.ordered,
            ready=fleet.ready,
            completed_per_s=completed / span_s if span_s else 0.0,
            waiting=self.waiting[last],
            executing=(self.executed_s[last] - self.executed_s[first]) / span_s if span_s else 0.0,
            queue_ms=(
                1e3 * (self.queued_s[last] - self.queued_s[first]) / completed if completed else 0.0
            ),
        )


def simulate_policy(
    policy: Policy,
    trace: RateTrace,
    terms: ScalingTerms,
    table: ReplicaTable,
    clauses: Sequence[LatencyClause],
    *,
    start_replicas: int,
    seed: int,
) -> PolicyRun:
    """Follow a policy through a trace.

    Args:
        policy: decides.
        trace: what comes; the number of requests of a step is Poisson about its rate.
        terms: how long everything takes, and the scaler's limits.
        table: one replica; where the terms have a machine that all share, alone on it.
        clauses: bounds that are counted against, the first being the one that is shown.
        start_replicas: ready at the start.
        seed: of the numbers of requests.
    """
    step_s = step_of(trace, terms)
    steps = max(1, math.ceil(trace.duration_s / step_s - 1e-9))
    every, window = round(terms.sync_s / step_s), max(1, round(terms.window_s / step_s))
    late = round(terms.scrape_s / step_s)
    rates = np.array([trace.at((one + 0.5) * step_s) for one in range(steps)])
    arrivals = np.random.default_rng([seed, 41]).poisson(rates * step_s).astype(float)
    scaler, fleet = (
        HorizontalScaler(policy, terms.limits),
        SimulatedFleet(terms.start_s, start_replicas),
    )
    counters, load = _Counters(), _Load(table, clauses, step_s, terms.machine)
    inside = np.zeros((len(clauses), steps))
    ordered, ready, scalings = np.zeros(steps), np.zeros(steps), 0
    for step, arrived in enumerate(arrivals.tolist()):
        now_s = step * step_s
        if step % every == 0:
            seen = counters.seen(now_s, late, window, step_s, fleet)
            if step > late:
                number = scaler.decide(seen)
                scalings += number != fleet.ordered
                fleet.resize(number, now_s)
        starting = bool(fleet.starting)
        carrying = fleet.advance(now_s + step_s, step_s)
        inside[:, step] = load.serve(arrived, carrying, counters, starting=starting)
        ordered[step], ready[step] = fleet.ordered, carrying
    return PolicyRun(step_s, arrivals, inside, ordered, ready, scalings)


class _Load:
    """What waits at the replicas, and what becomes of what comes."""

    def __init__(
        self,
        table: ReplicaTable,
        clauses: Sequence[LatencyClause],
        step_s: float,
        machine: SharedMachine | None,
    ) -> None:
        self._alone, self._clauses, self._step_s = table, clauses, step_s
        self._machine = machine
        self._at_speed: dict[float, tuple[ReplicaTable, list[tuple[float, ...]]]] = {}
        self._table, self._within = self._tables_at(1.0)
        self._backlog = 0.0

    def serve(
        self, arrived: float, carrying: float, counters: _Counters, *, starting: bool
    ) -> list[float]:
        """One step; how many of the requests that came in it are within each bound."""
        speed = self._machine.speed(carrying, starting=starting) if self._machine else 1.0
        self._table, self._within = self._tables_at(round(speed, 2))
        able = carrying * self._table.saturation_per_s * self._step_s
        if not able:
            self._backlog += arrived
            counters.add(0.0, 0.0, 0.0, self._backlog)
            return [0.0] * len(self._clauses)
        if not self._backlog and arrived <= able * self._table.shares[-1]:
            return self._steady(arrived, carrying, able, counters)
        return self._late(arrived, able, counters)

    def _tables_at(self, speed: float) -> tuple[ReplicaTable, list[tuple[float, ...]]]:
        """One replica at a speed, and its share of requests within each bound by load."""
        if speed not in self._at_speed:
            table = self._alone if speed == 1.0 else self._alone.at_speed(speed)
            within = [table.within(one.bound_s) for one in self._clauses]
            self._at_speed[speed] = table, within
        return self._at_speed[speed]

    def _steady(
        self, arrived: float, carrying: float, able: float, counters: _Counters
    ) -> list[float]:
        table, share = self._table, arrived / able
        place = table.place_of(share)
        wait_s, taken_s = between(table.wait_s, *place), between(table.execution_s, *place)
        waiting = carrying * share * table.saturation_per_s * wait_s
        counters.add(arrived, arrived * wait_s, arrived * taken_s, waiting)
        return [arrived * between(one, *place) for one in self._within]

    def _late(self, arrived: float, able: float, counters: _Counters) -> list[float]:
        """More than is carried, or a queue from before: the delay changes along the step."""
        table, before = self._table, self._backlog
        self._backlog = max(0.0, before + arrived - able)
        answered = before + arrived - self._backlog
        per_s = able / self._step_s
        delays_s = [
            max(0.0, before + (arrived - able) * (part + 0.5) / _LATE_PARTS) / per_s
            for part in range(_LATE_PARTS)
        ]
        delay_s = (before + self._backlog) / 2 / per_s
        wait_s = delay_s + table.wait_s[-1]
        waiting = self._backlog + per_s * table.shares[-1] * table.wait_s[-1]
        counters.add(answered, answered * wait_s, answered * table.execution_s[-1], waiting)
        return [
            arrived * sum(table.within_late(one.bound_s, delay) for delay in delays_s) / _LATE_PARTS
            for one in self._clauses
        ]

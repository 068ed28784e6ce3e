"""One replica in tables: what its requests see at each load, looked up thousands of times.

A trace of a day has millions of requests, and a policy is tried on it many times over, so requests
are not simulated one by one there. Each way in which the fit may be (`CapacityModel.draws`) is
simulated request by request at rising loads, once; over the trace, a replica has at every moment
the latencies of a steady load at the rate that it is sent (quasi-steady state). What it cannot
carry piles up and delays everything that comes after (a fluid queue).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.planning.capacity.draws import (
    Draw,
    Floats,
    long_enough,
    request_rows,
    saturation_per_s,
    steady_arrivals_s,
    without_warm_up,
)
from harness.planning.capacity.model import CapacityModel
from harness.planning.capacity.replica import ReplicaRun
from harness.types.estimates import Demand

SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.91, 0.95)
"""The loads that are simulated, as shares of saturation. Above the last, a steady state takes
longer to come about than a load lasts: what exceeds saturation queues, and the last one's latencies
hold."""
REQUESTS, REQUESTS_OF_GUESS = 2400, 12_000
"""Simulated at each load: of every draw, and of the best guess, which stands alone."""
_POINTS = 400
"""Quantiles that a load's latencies are kept as."""


@dataclass(frozen=True)
class ReplicaTable:
    """One replica at every load, by one draw of the fit; times in seconds."""

    saturation_per_s: float
    shares: tuple[float, ...]
    latency_s: tuple[tuple[float, ...], ...]
    """By share of saturation, latencies in ascending order, in seconds."""
    wait_s: tuple[float, ...]
    """By share of saturation, mean seconds in the queue per request."""
    execution_s: tuple[float, ...]
    """By share of saturation, mean seconds in execution per request."""

    def within(self, bound_s: float) -> tuple[float, ...]:
        """By share of capacity, the share of requests that take at most so long."""
        return tuple(bisect_right(one, bound_s) / len(one) for one in self.latency_s)

    def within_late(self, bound_s: float, delay_s: float) -> float:
        """The share of requests within the bound at the highest load, delayed by a queue."""
        last = self.latency_s[-1]
        return bisect_right(last, bound_s - delay_s) / len(last)

    def place_of(self, share: float) -> tuple[int, float]:
        """Where a load lies among those that were simulated: the one below, and the part to go."""
        shares = self.shares
        above = bisect_right(shares, share)
        if above == 0:
            return 0, 0.0
        if above == len(shares):
            return above - 2, 1.0
        below = shares[above - 1]
        return above - 1, (share - below) / (shares[above] - below)

    def at_speed(self, speed: float) -> ReplicaTable:
        """The same replica on a machine that is faster by a factor."""
        return ReplicaTable(
            saturation_per_s=self.saturation_per_s * speed,
            shares=self.shares,
            latency_s=tuple(tuple(one / speed for one in row) for row in self.latency_s),
            wait_s=tuple(one / speed for one in self.wait_s),
            execution_s=tuple(one / speed for one in self.execution_s),
        )

    def looked_up(self, values: Sequence[float], share: float) -> float:
        """A value at a load, on a line between those that were simulated."""
        return between(values, *self.place_of(share))

    def in_flight(self, share: float) -> float:
        """Requests at a replica at a load, waiting or executing: Little's law."""
        each_s = self.looked_up(self.wait_s, share) + self.looked_up(self.execution_s, share)
        return share * self.saturation_per_s * each_s

    def share_with_wait(self, wait_s: float) -> float:
        """The load at which requests wait so long on average; the highest, where none does."""
        if wait_s >= self.wait_s[-1]:
            return self.shares[-1]
        if wait_s <= self.wait_s[0]:
            return self.shares[0]
        rising = np.maximum.accumulate(np.array(self.wait_s))
        return float(np.interp(wait_s, rising, np.array(self.shares)))


def between(values: Sequence[float], below: int, part: float) -> float:
    """A value on the line from one place to the next."""
    first = values[below]
    return first + part * (values[below + 1] - first)


def tables_of(
    model: CapacityModel, demand: Demand, draws: int, *, statistic: str = "p95"
) -> tuple[ReplicaTable, ...]:
    """The best guess, then ways in which the truth may be instead.

    Args:
        model: of one replica.
        demand: how requests arrive, and their rows; its rate does not matter.
        draws: how many beside the best guess, at most as many as the model has.
        statistic: of latency; its correction stretches or shortens every latency, and what is
            not sure of it does so at random, for each draw.
    """
    generator = np.random.default_rng([model.seed, 23])
    misses = generator.standard_normal(len(model.draws))
    guess = _table(model, model.best_guess, demand, 0, statistic, 0.0)
    others = list(zip(model.draws, misses, strict=True))[:draws]
    return (
        guess,
        *(
            _table(model, draw, demand, number, statistic, float(miss))
            for number, (draw, miss) in enumerate(others, start=1)
        ),
    )


def _table(
    model: CapacityModel, draw: Draw, demand: Demand, number: int, statistic: str, miss: float
) -> ReplicaTable:
    """Simulate one draw at every load; `miss` is in deviations of what its correction leaves."""
    replica = draw.replica(model.serving)
    most = saturation_per_s(replica, demand.batch_mix)
    requests = REQUESTS if number else REQUESTS_OF_GUESS
    latencies, waits, executions = [], [], []
    for share in SHARES:
        generator = np.random.default_rng([model.seed, number])
        rate, seed = share * most, model.seed * 1000 + number
        count = long_enough(draw.stalls, rate, requests)
        arrivals = steady_arrivals_s(model.arrivals, demand.arrivals, seed, count) / rate
        rows = request_rows(demand.batch_mix, len(arrivals), generator)
        run = draw.serve(replica, arrivals, rows, generator)
        taken_s = _execution_s(run)
        shift, deviation = model.correction(statistic, share * most, demand)
        factor = float(np.exp(shift + miss * deviation))
        latencies.append(without_warm_up(draw.latency_ms(arrivals, run, generator)) * factor / 1e3)
        waits.append(float(without_warm_up(run.completed_s - arrivals - taken_s).mean()))
        executions.append(float(without_warm_up(taken_s).mean()))
    return ReplicaTable(
        saturation_per_s=most,
        shares=SHARES,
        latency_s=tuple(_quantiles(one) for one in latencies),
        wait_s=tuple(waits),
        execution_s=tuple(executions),
    )


def _quantiles(latency_s: Floats) -> tuple[float, ...]:
    at = (np.arange(_POINTS) + 0.5) / _POINTS
    return tuple(float(one) for one in np.quantile(latency_s, at))


def _execution_s(run: ReplicaRun) -> Floats:
    """For each request, how long the execution that answered it took, in seconds."""
    ended = run.started_s + run.busy_s
    order = np.argsort(ended, kind="stable")
    place = np.searchsorted(ended[order], run.completed_s)
    return np.asarray(run.busy_s[order][np.minimum(place, len(order) - 1)])

"""One way in which the truth may be, given a run's trials, and what a load would show if it were.

Predictions (`model.py`) simulate the load that is asked about; checks (`checks.py`) simulate the
loads that were measured. Both do it with what stands here, so the checks hold for the predictions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.planning.capacity.replica import Replica, ReplicaRun, simulate_arrivals
from harness.planning.capacity.service import ClientTime, ServiceCurve, Spread
from harness.planning.capacity.stalls import NO_STALLS, Stalls
from harness.types import ArrivalProcess, ServingConfig

Floats = NDArray[np.float64]

STATISTICS: Mapping[str, float | None] = {
    "mean": None,
    "p50": 0.5,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
}
"""Statistics of latency that are predicted, each with its quantile; None for the mean."""
REQUESTS = 1500
"""Requests of one simulation, by default; as many as a trial of a second or two has."""
MOST_REQUESTS = 5000
"""Of one simulation that is prolonged to meet stalls."""
_STALLS_MET = 2
WARM_UP = 0.1
"""Share of the simulated requests that is cut: the replica starts empty."""
NEAR_SATURATION = 0.995
"""Share of saturation from which on a queue has no steady state worth the name."""


class ArrivalSource(Protocol):
    """Where arrivals come from: `harness.load.schedule.arrivals.arrival_times_ns`."""

    def __call__(
        self, process: ArrivalProcess, *, rate_per_s: float | None, seed: int
    ) -> Iterator[NDArray[np.int64]]:
        """Times in ascending chunks of nanoseconds."""

    def __hash__(self) -> int:
        """A function is its own key: what it gave once is kept."""


@dataclass(frozen=True)
class Draw:
    """One way in which the truth may be, given the trials."""

    curve: ServiceCurve
    scale: float
    """Level of a trial of its own; 1 in the best guess."""
    client: ClientTime
    turnaround_ms: float
    """What an instance is occupied with after an execution, before it takes the next batch."""
    spread: Spread
    """Spread of single executions."""
    stalls: Stalls = NO_STALLS
    """Stalls of the machine, as open loops meet them."""

    def replica(self, serving: ServingConfig) -> Replica:
        """The replica that this draw makes of a serving configuration."""
        table = self.curve.table_ms(max(1, serving.max_batch_size))
        return Replica(
            batch_s=tuple(one * self.scale / 1e3 for one in table),
            each_request_s=self.curve.each_request_ms * self.scale / 1e3,
            turnaround_s=self.turnaround_ms / 1e3,
            instances=max(1, serving.instance_count),
            queue_delay_s=serving.queue_delay_us / 1e6,
            sharing=self.curve.sharing,
        )

    def serve(
        self,
        replica: Replica,
        arrivals_s: Floats,
        rows: NDArray[np.int64],
        generator: np.random.Generator,
    ) -> ReplicaRun:
        """Requests that come whatever the replica does, on a machine that stalls now and then.

        Args:
            replica: what serves them.
            arrivals_s: ascending, shape (requests,).
            rows: of each, shape (requests,).
            generator: of executions' spread and stalls.
        """
        noise = self.spread.draw(generator, len(arrivals_s))
        if not self.stalls.per_s:
            return simulate_arrivals(replica, arrivals_s, rows, noise)
        clock = self.stalls.clock(2 * float(arrivals_s[-1]), generator)
        run = simulate_arrivals(replica, clock.running_s(arrivals_s), rows, noise)
        return clock.run_on_wall(run)

    def latency_ms(
        self, arrivals_s: Floats, run: ReplicaRun, generator: np.random.Generator
    ) -> Floats:
        """(requests,) latency of each request, from its arrival until its client has the answer.

        A client spends time of its own on every request, and more the later its answer stands among
        those that were computed together; which place that is, is drawn at random.
        """
        places = 1 + np.floor(generator.random(len(run.joined)) * run.joined)
        client_ms = self.client.own_ms + 2 * self.client.each_ms * places
        return 1e3 * (run.completed_s - arrivals_s) + client_ms


def without_warm_up(latency_ms: Floats) -> Floats:
    """The latencies of a simulation, without those from before its queue filled."""
    return latency_ms[round(WARM_UP * len(latency_ms)) :]


def statistics_of(latency_ms: Floats) -> dict[str, float]:
    """`STATISTICS` of latencies, shape (n,)."""
    shares = [at for at in STATISTICS.values() if at is not None]
    quantiles = iter(np.quantile(latency_ms, shares).tolist())
    return {
        name: float(latency_ms.mean()) if at is None else next(quantiles)
        for name, at in STATISTICS.items()
    }


def long_enough(stalls: Stalls, rate_per_s: float, requests: int, most: int = MOST_REQUESTS) -> int:
    """Requests to simulate so that a fast replica meets its stalls as often as a slow one.

    A second of 5,000 requests may hold no stall at all, and its p95 then says nothing of them.

    Args:
        stalls: of the draw.
        rate_per_s: at which requests arrive.
        requests: that are simulated at least.
        most: that are simulated at most, unless `requests` are more.
    """
    if not stalls.per_s:
        return requests
    return max(requests, min(most, math.ceil(_STALLS_MET * rate_per_s / stalls.per_s)))


@lru_cache(maxsize=256)
def steady_arrivals_s(
    source: ArrivalSource, process: ArrivalProcess, seed: int, count: int
) -> Floats:
    """The first arrivals at one request per second on average, in seconds, shape (count,).

    Divided by a rate they are those at that rate, because the rate is constant. The array is
    shared: do not write to it.
    """
    return first_arrivals_s(source(process, rate_per_s=1.0, seed=seed), count)[:count]


def first_arrivals_s(chunks_ns: Iterable[NDArray[np.int64]], least: int) -> Floats:
    """Arrival times in seconds, of as many chunks as hold `least` of them (or of all chunks)."""
    times_s: list[Floats] = []
    for chunk_ns in chunks_ns:
        times_s.append(chunk_ns / 1e9)
        if sum(map(len, times_s)) >= least:
            break
    return np.concatenate(times_s)


def request_rows(
    mix: tuple[tuple[int, float], ...], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """How many rows each of `count` requests has, drawn by the weights of a mix."""
    if len(mix) == 1:
        return np.full(count, mix[0][0])
    sizes, weights = (np.array(one) for one in zip(*mix, strict=True))
    return generator.choice(sizes, count, p=weights / weights.sum())


@lru_cache(maxsize=4096)
def saturation_per_s(replica: Replica, mix: tuple[tuple[int, float], ...]) -> float:
    """Requests per second that a replica completes while its queue is never empty."""
    rows = request_rows(mix, 50 * replica.max_batch, np.random.default_rng(0))
    at_once = np.zeros(len(rows))
    run = simulate_arrivals(replica, at_once, rows, np.ones(len(rows)))
    return len(rows) / float(run.completed_s.max())

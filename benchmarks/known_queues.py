"""Queues whose latency is known, simulated request by request, for the error rates of statistics.

A FIFO server lets request n go at `D[n] = max(A[n], D[n-1]) + S[n]` (Lindley, 1952), so that
`D[n] - cumsum(S)[n]` is a running maximum: whole trials are one line of numpy. With constant
service, c servers take their requests in turn, so that M/D/c is c such recursions interleaved
(Crommelin, 1932; the general case is Kiefer & Wolfowitz, 1955).

Every simulator gives (trials, requests) arrays of arrival times in seconds, the window's start
being 0, and of latencies in seconds. Arrivals before 0 and after the asked time may be among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Simulated = tuple[Floats, Floats]
QUANTILE = 0.95
LEAD_RELAXATIONS = 10.0
"""Relaxation times that a queue runs before its window, so that it starts as it goes on."""
LONG_RUN_REQUESTS = 8_000_000


@dataclass(frozen=True)
class KnownQueue:
    """A queue, and the quantile that a trial of it ought to find."""

    name: str
    service_s: float
    utilisation: float
    """1 for a closed loop, whose server is never idle."""
    memory_s: float
    """Relaxation time: how long a queue remembers its length."""
    truth_s: float
    """Its p95."""
    simulate: Callable[[np.random.Generator, int, float], Simulated]
    """From a generator, a number of trials and a window in seconds."""

    @property
    def is_closed(self) -> bool:
        """Whether it is a closed loop."""
        return self.utilisation == 1


def mm1(service_s: float, utilisation: float) -> KnownQueue:
    """Open loop, Poisson arrivals, exponential service, one server, stationary from the start.

    Its latency is exponential with mean service / (1 - utilisation); the relaxation time is
    service / (1 - sqrt(utilisation))**2 (Cohen, The Single Server Queue, 1982).
    """

    def simulate(rng: np.random.Generator, trials: int, window_s: float) -> Simulated:
        arrivals = _poisson(rng, trials, utilisation / service_s, window_s)
        services = rng.exponential(service_s, arrivals.shape)
        # The queue that the first request meets: geometric in number, exponential each.
        waiting = rng.geometric(1 - utilisation, trials) - 1
        services[:, 0] += np.where(waiting > 0, rng.gamma(np.maximum(waiting, 1), service_s), 0.0)
        departures = _fifo(arrivals, services)
        # That request carries the backlog, so its own latency means little.
        return arrivals[:, 1:], (departures - arrivals)[:, 1:]

    truth_s = -math.log(1 - QUANTILE) * service_s / (1 - utilisation)
    memory_s = service_s / (1 - math.sqrt(utilisation)) ** 2
    return KnownQueue("M/M/1", service_s, utilisation, memory_s, truth_s, simulate)


def mdc(service_s: float, utilisation: float, servers: int) -> KnownQueue:
    """Open loop, Poisson arrivals, constant service, several servers.

    Its p95 is that of a run of eight million requests. The memory is M/M/1's with the servers as
    one fast server, halved, as constant service halves the variance that drives the queue.
    """
    rate_per_s = servers * utilisation / service_s
    memory_s = service_s / servers / (1 - math.sqrt(utilisation)) ** 2 / 2
    lead_s = LEAD_RELAXATIONS * memory_s

    def simulate(rng: np.random.Generator, trials: int, window_s: float) -> Simulated:
        arrivals = _poisson(rng, trials, rate_per_s, window_s + lead_s) - lead_s
        arrivals = arrivals[:, : arrivals.shape[1] // servers * servers]
        in_turn = arrivals.reshape(trials, -1, servers).swapaxes(1, 2)
        departures = _fifo(in_turn, np.full_like(in_turn, service_s)).swapaxes(1, 2)
        return arrivals, departures.reshape(arrivals.shape) - arrivals

    long_s = LONG_RUN_REQUESTS / rate_per_s
    arrivals, latencies = simulate(np.random.default_rng(0), 1, long_s)
    truth_s = float(np.quantile(latencies[arrivals >= 0], QUANTILE))
    return KnownQueue(f"M/D/{servers}", service_s, utilisation, memory_s, truth_s, simulate)


def closed_loop(service_s: float, in_flight: int, variation: float) -> KnownQueue:
    """Closed loop on one server that is never idle; service is gamma with this variation.

    A request's latency is the sum of `in_flight` services, its own the last: gamma again. What it
    shares with its neighbours is gone after `in_flight` of them.
    """
    shape = variation**-2

    def simulate(rng: np.random.Generator, trials: int, window_s: float) -> Simulated:
        count = int(1.2 * window_s / service_s) + 10 * in_flight + 100
        ends = rng.gamma(shape, service_s / shape, (trials, count)).cumsum(axis=1)
        starts = ends[:, :-in_flight]
        return starts - starts[:, :1], ends[:, in_flight:] - starts

    sums = np.random.default_rng(0).gamma(in_flight * shape, service_s / shape, LONG_RUN_REQUESTS)
    truth_s = float(np.quantile(sums, QUANTILE))
    name = f"closed, {in_flight} in flight, cv {variation:g}"
    return KnownQueue(name, service_s, 1.0, in_flight * service_s, truth_s, simulate)


def _poisson(rng: np.random.Generator, trials: int, rate_per_s: float, until_s: float) -> Floats:
    """(trials, requests) arrival times, certainly beyond `until_s`."""
    expected = rate_per_s * until_s
    count = int(expected + 8 * math.sqrt(expected) + 50)
    return rng.exponential(1 / rate_per_s, (trials, count)).cumsum(axis=1)


def _fifo(arrivals: Floats, services: Floats) -> Floats:
    """Departures of single FIFO servers, requests along the last axis."""
    work = services.cumsum(axis=-1)
    departures: Floats = np.maximum.accumulate(arrivals - (work - services), axis=-1) + work
    return departures

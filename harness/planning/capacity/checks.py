"""The capacity model held against the trials it was fitted to: each one simulated as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.planning.capacity.draws import (
    NEAR_SATURATION,
    REQUESTS,
    STATISTICS,
    ArrivalSource,
    Draw,
    Floats,
    saturation_per_s,
    statistics_of,
    steady_arrivals_s,
    without_warm_up,
)
from harness.planning.capacity.replica import Replica, simulate_clients
from harness.types import RESPONSE, ArrivalKind, LoadMode, ShapeKind, TrialResult, Workload
from harness.types.latency import UNBOUNDED_MS

TrialCheck = Mapping[str, tuple[float, float]]
"""By statistic, what was measured in a trial and what the model predicts for it, in ms."""
_MOST_CHECKED = 8


def trials_to_check(
    own: Sequence[TrialResult], alike: Sequence[TrialResult]
) -> tuple[TrialResult, ...]:
    """Which trials the model is held against, at most 8 of them.

    Args:
        own: those in the configuration that is to be predicted; they come first, of these the open
            loops, and the busiest first.
        alike: all trials that the model is fitted to, `own` among them.
    """
    others = [one for one in alike if one not in own]
    ordered = [
        *sorted(own, key=_open_and_busiest_first),
        *sorted(others, key=lambda one: -one.throughput_inferences_per_s),
    ]
    fit = [one for one in ordered if one.latency and not one.trial.workload.batch_mix]
    return tuple(fit[:_MOST_CHECKED])


def _open_and_busiest_first(one: TrialResult) -> tuple[bool, float]:
    is_open = one.trial.workload.load_mode is LoadMode.OPEN
    return not is_open, -one.throughput_inferences_per_s


@dataclass(frozen=True)
class TrialReplay:
    """Simulates trials under the load that they were measured with."""

    arrivals: ArrivalSource
    seed: int

    def check(self, result: TrialResult, draw: Draw, requests: int = REQUESTS) -> TrialCheck:
        """A trial's latency as measured and as the draw has it.

        Empty where it cannot be simulated: a changing rate, a trace, a load near saturation, or
        requests larger than the largest batch.
        """
        workload, summary = result.trial.workload, result.latencies.get(RESPONSE)
        replica = draw.replica(result.trial.serving)
        if summary is None or workload.client_batch_size > replica.max_batch:
            return {}
        if workload.load_mode is LoadMode.CLOSED:
            latency_ms = self._of_clients(workload, replica, draw, requests)
        else:
            rate = result.offered_requests_per_s or workload.rate_per_s or 0.0
            if not _is_steady(workload, replica, rate):
                return {}
            latency_ms = self._of_arrivals(workload, replica, draw, rate, requests)
        predicted = statistics_of(without_warm_up(latency_ms))
        measured = {name: summary.value_ms(name) for name in STATISTICS}
        return {
            name: (value, predicted[name])
            for name, value in measured.items()
            if value and 0 < value < UNBOUNDED_MS
        }

    def _of_clients(
        self, workload: Workload, replica: Replica, draw: Draw, requests: int
    ) -> Floats:
        """Latencies in ms of a number of clients that each wait for an answer before they ask."""
        run = simulate_clients(
            replica,
            workload.concurrency,
            workload.client_batch_size,
            requests=requests,
            client_s=(draw.client.own_ms / 1e3, draw.client.each_ms / 1e3),
            noise=draw.spread.draw(self._generator(), requests),
        )
        return 1e3 * run.latency_s

    def _of_arrivals(
        self, workload: Workload, replica: Replica, draw: Draw, rate_per_s: float, requests: int
    ) -> Floats:
        """Latencies in ms of requests that arrive at a rate, whether or not others are answered."""
        generator = self._generator()
        steady_s = steady_arrivals_s(self.arrivals, workload.arrivals, self.seed, requests)
        times_s = steady_s / rate_per_s
        rows = np.full(len(times_s), workload.client_batch_size)
        run = draw.serve(replica, times_s, rows, generator)
        return draw.latency_ms(times_s, run, generator)

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, 11])


def _is_steady(workload: Workload, replica: Replica, rate_per_s: float) -> bool:
    """Whether the rate is known, constant, and one at which the queue stays finite."""
    arrivals = workload.arrivals
    if not rate_per_s or arrivals.kind is ArrivalKind.TRACE:
        return False
    most = saturation_per_s(replica, ((workload.client_batch_size, 1.0),))
    return arrivals.shape.kind is ShapeKind.FLAT and rate_per_s < NEAR_SATURATION * most

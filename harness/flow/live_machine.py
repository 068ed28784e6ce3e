"""What replicas carry on this one machine: measured before a live run, to simulate it with.

One load that never rests goes through the balancer: at first to one replica, then still to one
while another starts beside it, then to both. What each phase answered per second says how far the
replicas, the balancer and the load generator are in each other's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import GeneratorError
from harness.load.generators.driver import SLICE_S
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.transports.address import parse_target
from harness.serving.replicas.balancer import Balancer
from harness.serving.replicas.replica_set import ReplicaLaunch, ReplicaSet
from harness.types import LoadMode, TimeSlice, WireProtocol, Workload
from harness.types.autoscaling import SharedMachine

SETTLE_S, MEASURED_S = 1.0, 3.0
"""Seconds at the start of a phase that are left out, and seconds that count."""
_LONGEST_S = 300.0
"""Longest time that a replica may take to start beside a busy one."""


def unresting(concurrency: int) -> Workload:
    """A closed loop that goes on until it is ended."""
    return Workload(
        WireProtocol.HTTP,
        1,
        concurrency,
        duration_s=_LONGEST_S,
        warmup_s=0.0,
        min_duration_s=SLICE_S,
        seed=0,
        load_mode=LoadMode.CLOSED,
    )


def measure_machine(
    launch: ReplicaLaunch, job: LoadJob, log_dir: Path
) -> tuple[SharedMachine, float]:
    """Load one replica, one beside one that starts, and two.

    Args:
        launch: brings up a replica.
        job: what is sent, as an `unresting` load with enough requests in flight for two replicas.
        log_dir: for the load generator's log.

    Returns:
        What was found, and how many seconds the second replica took to start beside the load.

    Raises:
        GeneratorError: the load generator failed, or nothing was answered.
        ServerError: a replica does not come up, or died.
    """
    with Balancer() as balancer, ReplicaSet(launch, balancer) as replicas:
        replicas.resize(1)
        replicas.wait_for(1)
        target = parse_target(balancer.address)
        phases = Phases(replicas)
        with LoadGenerators(http=target, grpc=target, workers=1, log_dir=log_dir) as generators:
            generators.run(job, phases, check=replicas.check)
        replicas.check()
        return phases.machine(), replicas.start_times_s[-1]


@dataclass
class Phases:
    """Steers the load: orders the second replica, and ends it when both were measured."""

    replicas: ReplicaSet
    _ordered_at: int = 0
    """Slices that were over when the second replica was ordered; 0: not yet."""
    _served_at: int = 0
    _completed: list[int] = field(default_factory=list)
    """Requests answered in each slice."""

    def steady(self, _slices: Sequence[TimeSlice]) -> bool:
        """Always true: each phase leaves out its own beginning."""
        return True

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Go on to the next phase when one has lasted; the last one ends the load."""
        over = len(window)
        lasts = round((SETTLE_S + MEASURED_S) / SLICE_S)
        if not self._ordered_at and over >= lasts:
            self.replicas.resize(2)
            self._ordered_at = over
        elif self._ordered_at and not self._served_at and len(self.replicas.running) > 1:
            self._served_at = over
        self._completed = [one.completed for one in window]
        return bool(self._served_at) and over >= self._served_at + lasts

    def on_window_start(self) -> None:
        """Note that the load has begun."""

    def on_window_end(self) -> None:
        """Note that the load is over."""

    def machine(self) -> SharedMachine:
        """What the phases showed.

        Raises:
            GeneratorError: one of them answered nothing.
        """
        settle = round(SETTLE_S / SLICE_S)
        alone = self._rate(settle, self._ordered_at)
        beside = self._rate(self._ordered_at, self._served_at)
        pair = self._rate(self._served_at + settle, len(self._completed))
        if not alone or not pair:
            raise GeneratorError(
                "the replicas answered nothing while this machine was measured",
                next_step="see logs/replica-0.log in the run folder",
            )
        return SharedMachine(alone, pair, min(1.0, max(0.05, beside / alone)))

    def _rate(self, first: int, last: int) -> float:
        """Requests per second in a stretch of slices; 0 where it is empty."""
        answered = self._completed[first:last]
        return sum(answered) / (len(answered) * SLICE_S) if answered else 0.0

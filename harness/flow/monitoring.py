"""From the load generators' reports to the monitor that a Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.load.generators.messages import LoadProgress
from harness.telemetry.exposition.monitor import LoadMonitor
from harness.types import ServiceLevelObjective, Trial

Listener = Callable[[int, LoadProgress], None]


@contextmanager
def shown_to(
    monitor: LoadMonitor | None, trial: Trial, slo: ServiceLevelObjective
) -> Iterator[Listener]:
    """While a trial runs: what takes the generators' reports; nothing where nobody watches.

    Args:
        monitor: takes them.
        trial: that runs.
        slo: the objective it is held against.
    """
    if monitor is None:
        yield lambda _worker, _report: None
        return
    monitor.begin_trial(trial, slo)
    cpu_s: dict[int, float] = {}

    def listen(worker: int, report: LoadProgress) -> None:
        monitor.add(report.slices)
        # A process counts from its start: what it used before its first report is no load's.
        used_s = report.cpu_s - cpu_s.get(worker, report.cpu_s)
        cpu_s[worker] = report.cpu_s
        monitor.add_generator(
            f"worker {worker}",
            cpu_s=used_s,
            loop_lag=report.loop_lag,
            memory_bytes=report.memory_bytes,
        )

    try:
        yield listen
    finally:
        monitor.end()

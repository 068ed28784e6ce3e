"""What does not belong to the study: where things live, which cores they get, who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.flow.inputs import StudyInputs
from harness.load.generators.messages import LoadProgress
from harness.load.generators.pool import Joining
from harness.telemetry.exposition.monitor import LoadMonitor
from harness.telemetry.prometheus.client import Prometheus
from harness.types import GrpcImplementation, Progress, ServiceLevelObjective, Trial

Listener = Callable[[int, LoadProgress], None]


@contextmanager
def shown_to(
    monitor: LoadMonitor | None, trial: Trial, slo: ServiceLevelObjective
) -> Iterator[Listener]:
    """While a trial runs: what takes the generators' reports; nothing where nobody watches.

    Args:
        monitor: takes them.
        trial: that runs.
        slo: the objective it is compared with.
    """
    if monitor is None:
        yield lambda _worker, _report: None
        return
    monitor.begin_trial(trial, slo)

    def listen(worker: int, report: LoadProgress) -> None:
        monitor.add(report.slices)
        monitor.add_generator(
            f"worker {worker}",
            cpu_s=report.cpu_s,
            loop_lag=report.loop_lag,
            memory_bytes=report.memory_bytes,
        )

    try:
        yield listen
    finally:
        monitor.end()


ProgressSink = Callable[[Progress], None]
WarningSink = Callable[[str], None]


def ignore_progress(_: Progress) -> None:
    """Takes progress and does nothing, where nobody watches."""


def ignore_warning(_: str) -> None:
    """Takes warnings and does nothing, where nobody reads them."""


@dataclass(frozen=True)
class RunSettings:
    """Where the model repository is, and how server and generators are placed."""

    repository: Path = Path("model_repository")
    cpus_server: Sequence[int] | None = None
    cpus_generator: Sequence[int] | None = None
    workers: int | Joining | None = None
    """Load generator processes, instead of the study's; or those that others start elsewhere."""
    grpc: GrpcImplementation = GrpcImplementation.NATIVE
    saturation: bool = True
    """Measure latency over rate after the verdict, where the study names shares to measure at."""
    keep_records: bool = False
    """Write every request of every trial to Parquet."""
    progress: ProgressSink = field(default=ignore_progress)
    warn: WarningSink = field(default=ignore_warning)
    """What a person should read at once, a line."""
    prometheus: Prometheus | None = None
    """Prometheus to ask for the server's side of a window, in place of the server."""
    monitor: LoadMonitor | None = None
    """Shows every load while it runs, to whoever scrapes it."""
    ports: tuple[int, int, int] | None = None
    """HTTP, gRPC and metrics port of a server that the harness starts; None takes free ones."""
    inputs: StudyInputs = field(default_factory=StudyInputs)
    """The study's samples, read by whoever needs them first."""

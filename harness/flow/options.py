"""What does not belong to the study: where things live, which cores they get, who watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.flow.samples import StudyInputs
from harness.load.transports.opening import GrpcImplementation
from harness.telemetry.exposition.monitor import LoadMonitor
from harness.telemetry.prometheus.client import Prometheus
from harness.types import Progress

ProgressSink = Callable[[Progress], None]
WarningSink = Callable[[str], None]


def ignore_progress(_: Progress) -> None:
    """Takes progress and does nothing, where nobody watches."""


def ignore_warning(_: str) -> None:
    """Takes warnings and does nothing, where nobody reads them."""


@dataclass(frozen=True)
class Machinery:
    """Where the model repository is, and how server and generators are placed."""

    repository: Path = Path("model_repository")
    cpus_server: Sequence[int] | None = None
    cpus_generator: Sequence[int] | None = None
    workers: int | None = None
    """Load generator processes, in place of the study's."""
    grpc: GrpcImplementation = GrpcImplementation.NATIVE
    keep_records: bool = False
    """Write every request of every trial to Parquet."""
    progress: ProgressSink = field(default=ignore_progress)
    warn: WarningSink = field(default=ignore_warning)
    """What a person should read at once, a line."""
    prometheus: Prometheus | None = None
    """Asked for the server's side of a window, in place of the server."""
    monitor: LoadMonitor | None = None
    """Told of every load while it runs, for whoever scrapes it."""
    ports: tuple[int, int, int] | None = None
    """HTTP, gRPC and metrics port of a server that the harness starts; None takes free ones."""
    inputs: StudyInputs = field(default_factory=StudyInputs)
    """The study's samples, read by whoever needs them first."""

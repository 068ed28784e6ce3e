"""What does not belong to the study: where things live, which cores they get, who watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.load.transports.opening import GrpcImplementation
from harness.types import Progress

ProgressSink = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """For callers that nobody watches."""


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

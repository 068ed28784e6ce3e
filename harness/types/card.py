"""The terms of the report card: what is measured of a model with no server in between, and of it.

Like `harness.types`: frozen, standard library only, no behaviour beyond derived names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.types import LatencySummary, Precision, Role, ServingConfig, WireProtocol


class Runtime(StrEnum):
    """What runs a model in this process."""

    PYTORCH = "pytorch"
    """The checkpoint itself."""
    ONNX_RUNTIME = "onnxruntime"
    """The exported artefact, with the embedded server's own session options."""


@dataclass(frozen=True)
class RepeatedMeasure:
    """A number that was measured several times: the median, the least, the greatest."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CardPlan:
    """How much is measured of every subject."""

    samples: int = 1000
    """Batch-1 calls that are timed, each on a sample drawn at random."""
    rounds: int = 10
    """The subjects take turns so often, so that a drift of the machine hits all alike."""
    fresh_processes: int = 3
    """Cold starts, each in its own process."""
    window_s: float = 0.1
    """Seconds of one measurement of throughput; there is one per round, batch and length."""
    batch_sizes: tuple[int, ...] = (1, 4, 8, 16)
    served_s: float = 2.0
    """Length of one trial through the server; 0 leaves the trials out."""


@dataclass(frozen=True)
class ColdCalls:
    """A model in a fresh process: imports are done, nothing of the model is there yet."""

    load_s: RepeatedMeasure
    first_call_ms: RepeatedMeasure
    first_calls_ms: RepeatedMeasure
    """Mean of the first ten."""
    memory_bytes: RepeatedMeasure
    """Growth of resident memory from before the loading to after the first call."""


@dataclass(frozen=True)
class ThroughputPoint:
    """Samples per second of one shape, call after call."""

    batch_size: int
    length: int
    """Tokens per row, padded."""
    per_s: RepeatedMeasure


@dataclass(frozen=True)
class CardEntry:
    """A subject's column of the card: one model in one runtime, in process."""

    name: str
    """The variant's, or for a checkpoint its model's."""
    family: str
    role: Role
    runtime: Runtime
    runtime_version: str
    precision: Precision
    source: str
    """The checkpoint, as the study names it."""
    digest: str
    """SHA-256 of the artefact or the checkpoint."""
    plan: CardPlan
    threads: int
    seed: int
    distinct_samples: int
    """How many different samples are among those that were drawn."""
    parameters: int
    size_bytes: int
    """Size on disk: the artefact, or the checkpoint's weights."""
    cold: ColdCalls
    memory_in_use_bytes: int
    """Growth of resident memory after the largest batch."""
    latency: LatencySummary
    """Latency at batch 1, warm."""
    throughput: tuple[ThroughputPoint, ...]
    measured_utc: str

    @property
    def key(self) -> str:
        """The entry's key, unique in a run."""
        return f"{self.name}/{self.runtime}"

    def rate(self, batch_size: int, length: int | None = None) -> ThroughputPoint | None:
        """Throughput of a batch, at a length or at the longest."""
        own = [point for point in self.throughput if point.batch_size == batch_size]
        if length is None:
            return max(own, key=lambda point: point.length, default=None)
        return next((point for point in own if point.length == length), None)


@dataclass(frozen=True)
class ServedPoint:
    """A variant through the server, one request in flight."""

    protocol: WireProtocol
    batch_size: int
    """Rows per request."""
    in_flight: int
    serving: ServingConfig
    latency: LatencySummary | None
    throughput_per_s: float
    """Samples per second."""
    valid: bool
    invalid_reason: str


@dataclass(frozen=True)
class ServedEntry:
    """All that a card has of a variant through the server."""

    variant: str
    sha256: str
    points: tuple[ServedPoint, ...]

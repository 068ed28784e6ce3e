"""Both sides of a trial: how Triton serves, and how requests fall due."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Accelerator(StrEnum):
    """What runs an ONNX graph on a GPU: Triton's names of ONNX Runtime's providers."""

    NONE = "none"
    """What the kind of instance asks for: on a GPU the CUDA provider with its defaults."""
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    """The provider that builds TensorRT engines while the model loads."""


@dataclass(frozen=True)
class ServingConfig:
    """Triton's side of a trial; 0 is what an external server does not say."""

    max_batch_size: int = 16
    queue_delay_us: int = 0
    instance_count: int = 1
    instance_kind: str = "cpu"
    """`cpu` or `gpu`."""
    intra_op_threads: int = 1
    """ONNX Runtime's threads within an operator, per instance."""
    accelerator: Accelerator = Accelerator.NONE
    """What executes an ONNX graph on a GPU."""
    response_cache: bool = False
    """Triton's response cache may answer in the model's place."""

    @property
    def told(self) -> bool:
        """Whether the configuration is known: some external servers do not say."""
        return self.instance_count > 0 or self.max_batch_size > 0

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        if not self.told:
            return "as-served"
        accelerated = "" if self.accelerator is Accelerator.NONE else f"-{self.accelerator}"
        cached = "-cache" if self.response_cache else ""
        return (
            f"mb{self.max_batch_size}-qd{self.queue_delay_us}"
            f"-i{self.instance_count}-t{self.intra_op_threads}{accelerated}{cached}"
        )


def answering_version(versions: Iterable[str]) -> str:
    """The version that answers a request that names none: the highest number.

    Names that are no numbers come before all numbers, the last by the alphabet first; empty of
    none at all.
    """
    return max(versions, key=_rank, default="")


def _rank(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (-1, version)


class WireProtocol(StrEnum):
    """How a client speaks KServe v2 to the server."""

    HTTP = "http"
    GRPC = "grpc"


class LoadMode(StrEnum):
    """What makes the next request due."""

    CLOSED = "closed"
    """N requests in flight: the next is sent when one completes."""
    OPEN = "open"
    """Requests fall due at times fixed in advance, whatever the server does."""


class ArrivalKind(StrEnum):
    """How the times between an open loop's requests are drawn."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"
    """Burstier (or smoother) than Poisson: `burstiness_cv` is what tells them apart."""
    TRACE = "trace"
    """Timestamps from a file."""


class TraceUnit(StrEnum):
    """What a trace's numbers count."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"


class ShapeKind(StrEnum):
    """How a load changes over time."""

    FLAT = "flat"
    RAMP = "ramp"
    STEP = "step"
    SPIKE = "spike"
    SINE = "sine"
    """Diurnal: `period_s` is the day."""


@dataclass(frozen=True)
class LoadShape:
    """A factor of the nominal load over time, for open loops (rate) and closed ones (users).

    `harness.load.schedule.shapes` says what each kind does with `low`, `high` and `period_s`.
    """

    kind: ShapeKind = ShapeKind.FLAT
    low: float = 1.0
    high: float = 1.0
    period_s: float = 60.0


@dataclass(frozen=True)
class ArrivalProcess:
    """How an open loop's requests fall due."""

    kind: ArrivalKind = ArrivalKind.POISSON
    burstiness_cv: float = 1.0
    """Gamma only: coefficient of variation of the gaps; 1 is Poisson, above it comes in bursts."""
    trace: Path | None = None
    shape: LoadShape = LoadShape()
    trace_unit: TraceUnit | None = None
    """Of the trace's numbers, where the person states it; None: as the file says."""

    @property
    def label(self) -> str:
        """Short, as it stands in trial identifiers."""
        name = str(self.kind)
        if self.kind is ArrivalKind.GAMMA:
            name += f"{self.burstiness_cv:g}"
        if self.trace is not None:
            name += f"-{self.trace.stem}"
        if self.shape.kind is not ShapeKind.FLAT:
            name += f"-{self.shape.kind}{self.shape.low:g}to{self.shape.high:g}"
        return name


@dataclass(frozen=True)
class Workload:
    """The client's side of a trial."""

    protocol: WireProtocol
    client_batch_size: int
    """Rows per request; with a mix, its largest."""
    concurrency: int
    """Closed loop: requests in flight. Open loop: the bound of requests in flight; what falls due
    beyond it is dropped, and counted."""
    duration_s: float
    """Of the measured window: its length, or its longest where the trial may end once decided."""
    warmup_s: float
    """Longest warm-up; it ends sooner where a steady state is found, not before `min_warmup_s`."""
    seed: int
    load_mode: LoadMode = LoadMode.CLOSED
    rate_per_s: float | None = None
    """Open loop: nominal requests per second; None for a trace, which has its own."""
    arrivals: ArrivalProcess = ArrivalProcess()
    """Open loop only."""
    min_duration_s: float | None = None
    """The window's shortest, before which nothing is decided; None runs `duration_s` out."""
    batch_mix: tuple[tuple[int, float], ...] = ()
    """(rows, weight): client batch sizes are drawn from it; empty: all of `client_batch_size`."""
    length_mix: tuple[tuple[int, float], ...] = ()
    """(padded length, weight): sequence lengths are drawn from it; empty: the data set's own."""
    cached_answers: bool = False
    """Answers of the server's response cache count as the model's: that is what is measured."""
    min_warmup_s: float = 0.0
    """Shortest: of a trial that is measured again because its load was not steady yet."""

    @property
    def label(self) -> str:
        """Short and unique, as it stands in trial identifiers."""
        batch = "mix" if self.batch_mix else ""
        parts = [str(self.protocol), f"b{self.client_batch_size}{batch}"]
        if self.load_mode is LoadMode.OPEN:
            rate = "" if self.rate_per_s is None else f"r{self.rate_per_s:g}-"
            parts.append(f"{rate}{self.arrivals.label}")
        else:
            parts.append(f"c{self.concurrency}")
        return "-".join(parts)


@dataclass(frozen=True)
class RequestRecord:
    """One request: schedule delay is sent - scheduled, service latency completed - sent."""

    scheduled_ns: int
    sent_ns: int
    completed_ns: int
    status: str
    """`ok` or the kind of failure."""

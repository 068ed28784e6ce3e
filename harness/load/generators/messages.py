"""What the harness and a Locust process say to each other: one JSON object per line.

Orders go in on the process's standard input. `prepare` is answered by `ready`; `measure` by a
stream of `progress` and, when the last request has ended, one `measured`; `stop` only brings that
end forward. All times are CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from harness.load.transports.address import Target
from harness.types import (
    GrpcImplementation,
    RequestBound,
    SparseHistogram,
    TensorSpec,
    TimeSlice,
    Workload,
)


@dataclass(frozen=True)
class Prepare:
    """Read and encode the payloads, start the users, connect them; send nothing yet."""

    target: Target
    grpc: GrpcImplementation
    model: str
    payloads: Path
    known_answers: Path | None
    outputs: tuple[TensorSpec, ...]
    workload: Workload
    share: int
    """How many of the requests in flight this process keeps."""
    first_user: int
    """The parts of the processes before this one, added up."""
    worker: int
    workers: int
    request_timeout_s: float
    records: Path | None = None
    """Where this process writes every request, as Parquet; None keeps histograms only."""
    bounds: tuple[RequestBound, ...] = ()
    """The clauses by which requests are counted as good."""
    order: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Measure:
    """Start at a common instant, report as it goes, drain at the end."""

    start_ns: int
    """CLOCK_MONOTONIC at the start of the first slice."""
    slice_ns: int
    end_ns: int
    """Nothing is scheduled from then on; a `stop` may bring it forward."""
    order: Literal["measure"] = "measure"


@dataclass(frozen=True)
class StopLoad:
    """Schedule nothing from this instant on."""

    end_ns: int
    order: Literal["stop"] = "stop"


@dataclass(frozen=True)
class Ready:
    """The process has done what `prepare` asked."""

    answer: Literal["ready"] = "ready"


@dataclass(frozen=True)
class LoadProgress:
    """What one process saw since its last progress message."""

    at_ns: int
    complete_before_ns: int
    """Every request scheduled before this instant has ended and is in the slices so far."""
    slices: tuple[TimeSlice, ...]
    """Additions to slices, to be summed with earlier ones."""
    cpu_s: float
    """CPU time of the process since its start."""
    loop_lag: SparseHistogram
    memory_bytes: int
    answer: Literal["progress"] = "progress"


@dataclass(frozen=True)
class LoadEnded:
    """The load is over: every request has ended and was reported."""

    first_failure: str
    first_failure_ns: int
    records_problem: str = ""
    """Why the records of this process are incomplete, where they are."""
    answer: Literal["measured"] = "measured"


@dataclass(frozen=True)
class GeneratorFailed:
    """The process could not do it: a fault of the harness or its input, not of the server."""

    message: str
    answer: Literal["failed"] = "failed"


Order = Prepare | Measure | StopLoad
GeneratorAnswer = Ready | LoadProgress | LoadEnded | GeneratorFailed

_ORDERS: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="order")])
_ANSWERS: TypeAdapter[GeneratorAnswer] = TypeAdapter(
    Annotated[GeneratorAnswer, Field(discriminator="answer")]
)


def encode_order(order: Order) -> bytes:
    """An order as one line of JSON."""
    return _ORDERS.dump_json(order) + b"\n"


def decode_order(line: bytes) -> Order:
    """Read an order; raises pydantic.ValidationError for anything else."""
    return _ORDERS.validate_json(line)


def encode_answer(answer: GeneratorAnswer) -> bytes:
    """An answer as one line of JSON."""
    return _ANSWERS.dump_json(answer) + b"\n"


def decode_answer(line: bytes) -> GeneratorAnswer:
    """Read an answer; raises pydantic.ValidationError for anything else."""
    return _ANSWERS.validate_json(line)

"""What the harness and a Locust process say to each other, in JSON.

`prepare` is answered by `ready`; `measure` by a stream of `progress` and, when the last request has
ended, one `measured`; `stop` only brings that end forward. All times are CLOCK_MONOTONIC, which the
processes of one machine share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from harness.errors import EXIT_ENVIRONMENT
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
    """Read and encode the payloads, start the users, connect them; send nothing yet.

    Where Locust starts the users (its page, its own command), they find all this when they come.
    """

    target: Target
    grpc: GrpcImplementation
    model: str
    payloads: Path
    known_answers: Path | None
    outputs: tuple[TensorSpec, ...]
    workload: Workload
    share: int
    """How many of the requests in flight this process keeps; of an open loop, 0 sends none."""
    first_user: int
    """The parts of the processes before this one, added up."""
    worker: int
    workers: int
    request_timeout_s: float
    records: Path | None = None
    """Where this process writes every request, as Parquet; None keeps histograms only."""
    bounds: tuple[RequestBound, ...] = ()
    """The clauses by which requests are counted as good."""
    inputs: tuple[TensorSpec, ...] = ()
    """To whose datatypes payloads are cast; empty sends them as they are."""
    load: str = ""
    """The load's name, which all that is reported of it bears: no report is taken for another's."""
    users_by_locust: bool = False
    """Locust starts and stops the users of a closed loop, and tells the open loop to begin."""
    order: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Measure:
    """Start at a common instant, report as it goes, drain at the end."""

    start_ns: int
    """CLOCK_MONOTONIC at the start of the first slice."""
    slice_ns: int
    end_ns: int
    """Nothing is scheduled from then on; a `stop` may bring it forward."""
    report_every_s: float = 0.1
    lead_ns: int = 0
    """From the start of the first slice to the 0 of an open loop's arrivals."""
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
    """What one process saw since its last progress message: additions, to be summed."""

    at_ns: int
    """When it was made."""
    complete_before_ns: int
    """Every request scheduled before this instant has ended and is in the slices so far."""
    slices: tuple[TimeSlice, ...]
    cpu_s: float
    """CPU time of the process, as are the lags between `since_ns` and `at_ns`."""
    loop_lag: SparseHistogram
    memory_bytes: int
    """Resident memory now."""
    since_ns: int = 0
    """When the one before was made, or the load began."""
    number: int = 0
    """The process's first of a load is 0."""
    final: bool = False
    """Whether it is the process's last of this load: then all of its requests are reported."""
    load: str = ""
    first_failure: str = ""
    """The process's first failure so far, in its own words."""
    first_failure_ns: int = 0
    answer: Literal["progress"] = "progress"


@dataclass(frozen=True)
class LoadEnded:
    """The load is over: every request has ended and was reported."""

    load: str = ""
    records_problem: str = ""
    """Why the records of this process are incomplete, where they are."""
    answer: Literal["measured"] = "measured"


@dataclass(frozen=True)
class GeneratorFailed:
    """The process could not do it: a fault of the harness or its input, not of the server."""

    message: str
    next_step: str = ""
    exit_code: int = EXIT_ENVIRONMENT
    answer: Literal["failed"] = "failed"


Order = Annotated[Prepare | Measure | StopLoad, Field(discriminator="order")]
GeneratorAnswer = Annotated[
    Ready | LoadProgress | LoadEnded | GeneratorFailed, Field(discriminator="answer")
]
ORDERS: TypeAdapter[Order] = TypeAdapter(Order)
ANSWERS: TypeAdapter[GeneratorAnswer] = TypeAdapter(GeneratorAnswer)
"""Write these as JSON and read them: `dump_json`, `validate_json`."""

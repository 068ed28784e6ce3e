"""What the harness and a Locust process say to each other: one JSON object a line.

An order goes in on the process's standard input, exactly one answer comes out on its standard
output. All times are CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from harness.load.recorder import WindowCounts
from harness.types import TensorSpec, WireProtocol


@dataclass(frozen=True)
class Prepare:
    """Read and encode the payloads, start the users, connect them; send nothing yet."""

    protocol: WireProtocol
    address: str
    model: str
    payloads: Path
    outputs: tuple[TensorSpec, ...]
    client_batch_size: int
    users: int
    """This process's share of the concurrency."""
    first_user: int
    """Users of the processes before this one."""
    seed: int
    request_timeout_s: float
    order: Literal["prepare"] = "prepare"


@dataclass(frozen=True)
class Measure:
    """Start at a common instant, record the window, drain, report."""

    start_ns: int
    """The warm-up's first request."""
    window_start_ns: int
    window_end_ns: int
    order: Literal["measure"] = "measure"


@dataclass(frozen=True)
class Ready:
    """The process is up, or has done what the order asked."""

    answer: Literal["ready"] = "ready"


@dataclass(frozen=True)
class Measured:
    """What the process saw of the window."""

    counts: WindowCounts
    cpu_cores: float
    """CPU time of the process over the window's length (1.0 = one core saturated)."""
    answer: Literal["measured"] = "measured"


@dataclass(frozen=True)
class Failed:
    """The process could not do it: a fault of the harness or its input, not of the server."""

    message: str
    answer: Literal["failed"] = "failed"


Order = Annotated[Prepare | Measure, Field(discriminator="order")]
Answer = Annotated[Ready | Measured | Failed, Field(discriminator="answer")]

_ORDERS: TypeAdapter[Prepare | Measure] = TypeAdapter(Order)
_ANSWERS: TypeAdapter[Ready | Measured | Failed] = TypeAdapter(Answer)


def encode_order(order: Prepare | Measure) -> bytes:
    """One line."""
    return _ORDERS.dump_json(order) + b"\n"


def decode_order(line: bytes) -> Prepare | Measure:
    """Raises pydantic.ValidationError for anything but an order."""
    return _ORDERS.validate_json(line)


def encode_answer(answer: Ready | Measured | Failed) -> bytes:
    """One line."""
    return _ANSWERS.dump_json(answer) + b"\n"


def decode_answer(line: bytes) -> Ready | Measured | Failed:
    """Raises pydantic.ValidationError for anything but an answer."""
    return _ANSWERS.validate_json(line)

"""What the harness, its switchboard and the workers say to each other beside orders and answers.

The harness speaks with its switchboard in lines of JSON: orders for a worker go in, its answers and
what is known of it come out (`Notice`). The switchboard speaks with workers in messages of Locust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.load.generators.messages import GeneratorAnswer, Prepare, decode_answer


@dataclass(frozen=True)
class Greeting:
    """What a worker is."""

    host: str
    """Name of its machine."""
    pid: int
    cores: int
    """That it may run on."""
    release: str
    """Of the harness; of another it could not have joined."""
    machine: str
    """An id that the processes under one running kernel share; empty where it cannot be told."""
    label: str = ""
    """What whoever started it calls it."""


@dataclass(frozen=True)
class SentFile:
    """A file that a worker needs, by what is in it."""

    path: Path
    """Where it is on the side that has it."""
    sha256: str
    size: int


@dataclass(frozen=True)
class Give:
    """An order for a worker."""

    worker: str
    load: str
    """The load that it is about: answers to an earlier one are not mixed up with it."""
    order: dict[str, Any]
    """As `harness.load.generators.messages` writes it."""
    files: tuple[SentFile, ...] = ()
    """What the paths of a `prepare` mean, for a worker that does not share them."""
    records: Path | None = None
    """Where that worker's records are kept here when the load is over."""
    what: Literal["give"] = "give"


@dataclass(frozen=True)
class Dismiss:
    """A worker ends what it does of a load, at once."""

    worker: str
    load: str
    what: Literal["dismiss"] = "dismiss"


@dataclass(frozen=True)
class Listening:
    """The switchboard is up."""

    pid: int
    what: Literal["listening"] = "listening"


@dataclass(frozen=True)
class Joined:
    """A worker has come, or come back."""

    worker: str
    greeting: Greeting
    what: Literal["joined"] = "joined"


@dataclass(frozen=True)
class Gone:
    """A worker is not heard of any more, or has said that it leaves."""

    worker: str
    why: str
    what: Literal["gone"] = "gone"


@dataclass(frozen=True)
class Back:
    """One that was not heard of is heard again."""

    worker: str
    what: Literal["back"] = "back"


@dataclass(frozen=True)
class ClockKnown:
    """How a worker's clock compares with the switchboard's, which is this machine's."""

    worker: str
    offset_ns: int
    """Added to an instant here it is the same instant there."""
    error_ns: int
    """How wrong the offset may be at most."""
    round_trip_ns: int
    """Shortest seen."""
    what: Literal["clock"] = "clock"


@dataclass(frozen=True)
class Answered:
    """An answer of a worker."""

    worker: str
    load: str
    answer: GeneratorAnswer


@dataclass(frozen=True)
class RecordsKept:
    """The records that a worker wrote elsewhere are here, or why not."""

    worker: str
    load: str
    problem: str
    what: Literal["records"] = "records"


@dataclass(frozen=True)
class Told:
    """Something that a person should read: who was refused, which connection was ended."""

    line: str
    what: Literal["told"] = "told"


Command = Give | Dismiss
_Known = Listening | Joined | Gone | Back | ClockKnown | RecordsKept | Told
Notice = _Known | Answered

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="what")])
_NOTICES: TypeAdapter[_Known] = TypeAdapter(Annotated[_Known, Field(discriminator="what")])
_GREETING: TypeAdapter[Greeting] = TypeAdapter(Greeting)


def encode_command(command: Command) -> bytes:
    """One line of JSON."""
    return _COMMANDS.dump_json(command) + b"\n"


def decode_command(line: bytes) -> Command:
    """Read a line; raises pydantic.ValidationError for anything else."""
    return _COMMANDS.validate_json(line)


def encode_notice(notice: _Known) -> bytes:
    """One line of JSON; `relay_answer` has those of answers."""
    return _NOTICES.dump_json(notice) + b"\n"


_ANSWER = b"answered "


def relay_answer(worker: str, load: str, answer: bytes) -> bytes:
    """The line of an `Answered`, with an answer's JSON that nobody has read yet.

    Raises:
        ValueError: it has an end of line in it, which no JSON of ours has.
    """
    if b"\n" in answer:
        raise ValueError("an answer of several lines")
    return b"%s%s %s %s\n" % (_ANSWER, worker.encode(), load.encode(), answer)


def decode_notice(line: bytes) -> Notice:
    """Read a line.

    Raises:
        ValueError: it is none (pydantic.ValidationError is one).
        UnreadableAnswerError: an answer that cannot be read, of a worker that is known.
    """
    if not line.startswith(_ANSWER):
        return _NOTICES.validate_json(line)
    worker, load, answer = line.removeprefix(_ANSWER).split(b" ", 2)
    try:
        return Answered(worker.decode(), load.decode(), decode_answer(answer))
    except ValidationError as error:
        raise UnreadableAnswerError(worker.decode()) from error


class UnreadableAnswerError(Exception):
    """What a worker has sent is no answer; the argument is the worker."""


def encode_greeting(greeting: Greeting) -> bytes:
    """As JSON."""
    return _GREETING.dump_json(greeting)


def decode_greeting(encoded: bytes) -> Greeting:
    """Raises pydantic.ValidationError for anything else."""
    return _GREETING.validate_json(encoded)


def sent_file(path: Path) -> SentFile:
    """What is in a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SentFile(path, digest, path.stat().st_size)


def paths_of(order: Prepare) -> list[Path]:
    """The files that an order names: what is sent, known answers, a trace, certificates."""
    named = (
        order.payloads,
        order.known_answers,
        order.workload.arrivals.trace,
        order.target.ca_file,
    )
    return [one for one in named if one is not None]


def with_paths(order: Prepare, local: Callable[[Path], Path]) -> Prepare:
    """An order whose files are elsewhere."""
    trace, certificates = order.workload.arrivals.trace, order.target.ca_file
    arrivals = replace(order.workload.arrivals, trace=trace and local(trace))
    return replace(
        order,
        payloads=local(order.payloads),
        known_answers=order.known_answers and local(order.known_answers),
        workload=replace(order.workload, arrivals=arrivals),
        target=replace(order.target, ca_file=certificates and local(certificates)),
    )

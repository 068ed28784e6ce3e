"""What the harness, its switchboard and the workers say to each other beside orders and answers.

The harness speaks with its switchboard in lines of JSON: commands go in, the workers' answers and
what is known of them come out (`Notice`). The switchboard speaks with workers in messages of
Locust.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.load.generators.messages import ANSWERS, GeneratorAnswer, Order, Prepare


@dataclass(frozen=True)
class Greeting:
    """What a worker is."""

    host: str
    """Name of the worker's machine."""
    pid: int
    cores: int
    """Number of cores that the worker may run on."""
    release: str
    """Release of the worker's harness; with another than the master's it could not have joined."""
    machine: str
    """An id that the processes under one running kernel share; empty where it cannot be told."""
    label: str = ""
    """What whoever started the worker calls it."""


@dataclass(frozen=True)
class SentFile:
    """A file that a worker needs, by what is in it."""

    path: Path
    """Where the file is on the side that has it."""
    sha256: str
    size: int


@dataclass(frozen=True)
class Give:
    """An order for a worker."""

    worker: str
    load: str
    """The load that the order is about: answers to an earlier one are not mixed up with it."""
    order: Order
    files: tuple[SentFile, ...] = ()
    """What the paths of a `prepare` mean, for a worker that does not share them."""
    what: Literal["give"] = "give"


@dataclass(frozen=True)
class Dismiss:
    """A worker ends what it does of a load, at once."""

    worker: str
    load: str
    what: Literal["dismiss"] = "dismiss"


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
    """What is added to an instant here to have the same instant there."""
    error_ns: int
    """How wrong the offset may be at most."""
    round_trip_ns: int
    """Shortest round trip seen."""
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


Command = Annotated[Give | Dismiss, Field(discriminator="what")]
Known = Annotated[
    Joined | Gone | Back | ClockKnown | RecordsKept | Told, Field(discriminator="what")
]
"""What is known of the workers."""
Notice = Known | Answered

COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)
GREETINGS: TypeAdapter[Greeting] = TypeAdapter(Greeting)
_KNOWN: TypeAdapter[Known] = TypeAdapter(Known)


def encode_notice(notice: Known) -> bytes:
    """One line of JSON; `relay_answer` has those of answers."""
    return _KNOWN.dump_json(notice) + b"\n"


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
        return _KNOWN.validate_json(line)
    worker, load, answer = line.removeprefix(_ANSWER).split(b" ", 2)
    try:
        return Answered(worker.decode(), load.decode(), ANSWERS.validate_json(answer))
    except ValidationError as error:
        raise UnreadableAnswerError(worker.decode()) from error


class UnreadableAnswerError(Exception):
    """What a worker has sent is no answer; the argument is the worker."""


def sent_file(path: Path) -> SentFile:
    """What is in a file; it is read again only when it has changed.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return SentFile(path, _sha256(path, status.st_mtime_ns, status.st_size), status.st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(order: Order) -> tuple[SentFile, ...]:
    """The files that an order names, by what is in them; OSError where one cannot be read."""
    return tuple(map(sent_file, paths_of(order))) if isinstance(order, Prepare) else ()


def paths_of(order: Prepare) -> list[Path]:
    """The files that an order names: what is sent, known answers, a trace, certificates.

    Of a model that writes also the tokenizer: its file, and not a folder.
    """
    generation = order.workload.generation
    named = (
        order.payloads,
        order.known_answers,
        order.workload.arrivals.trace,
        None if generation is None else generation.tokenizer,
        order.target.ca_file,
    )
    return [one for one in named if one is not None]


def with_paths(order: Prepare, local: Callable[[Path], Path]) -> Prepare:
    """An order whose files are elsewhere."""
    trace, certificates = order.workload.arrivals.trace, order.target.ca_file
    arrivals = replace(order.workload.arrivals, trace=trace and local(trace))
    generation = order.workload.generation
    if generation is not None and generation.tokenizer is not None:
        generation = replace(generation, tokenizer=local(generation.tokenizer))
    return replace(
        order,
        payloads=local(order.payloads),
        known_answers=order.known_answers and local(order.known_answers),
        workload=replace(order.workload, arrivals=arrivals, generation=generation),
        target=replace(order.target, ca_file=certificates and local(certificates)),
    )

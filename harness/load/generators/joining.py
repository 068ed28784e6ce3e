"""What the harness, its switchboard and the workers say to each other beside orders and answers.

The harness speaks with its switchboard in lines of JSON: orders for a worker go in, its answers and
what is known of it come out (`Notice`). The switchboard speaks with workers in messages of Locust.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.load.generators.messages import GeneratorAnswer, Prepare, decode_answer

TOKEN_VARIABLE = "HARNESS_JOIN_TOKEN"  # noqa: S105  (its name, not the secret)
DEFAULT_PORT = 5557
SHORTEST_TOKEN = 8
_LOCAL = "ipc://@"
"""Names of sockets that live in the kernel alone: no file, and reachable on this machine only."""


@dataclass(frozen=True)
class MasterEndpoint:
    """Where a master listens: HOST:PORT, or a name that only this machine's processes reach."""

    host: str
    port: int = 0

    @property
    def local(self) -> bool:
        """Whether only processes of this machine can reach it."""
        if self.host.startswith(_LOCAL) or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """For ZeroMQ."""
        if self.host.startswith(_LOCAL):
            return self.host
        return f"tcp://{self}"

    @property
    def advertised(self) -> MasterEndpoint:
        """As other machines can write it: with this one's name where it listens everywhere."""
        everywhere = self.host in {"0.0.0.0", "::"}  # noqa: S104  (compared, not listened at)
        return MasterEndpoint(socket.gethostname(), self.port) if everywhere else self

    def resolved(self) -> MasterEndpoint | None:
        """With the host's address in place of its name; None where nobody knows the name."""
        if self.host.startswith(_LOCAL):
            return self
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return None
        return MasterEndpoint(str(found[0][4][0]), self.port)

    def __str__(self) -> str:
        if self.host.startswith(_LOCAL):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def own_endpoint() -> MasterEndpoint:
    """One that nobody else has, for a switchboard and the workers that the harness starts."""
    return MasterEndpoint(f"{_LOCAL}harness-{os.getpid()}-{secrets.token_hex(8)}")


def parse_endpoint(text: str, option: str) -> MasterEndpoint:
    """Read `HOST:PORT`, `HOST`, `[::1]:5557` or what `own_endpoint` made.

    Args:
        text: as it was typed.
        option: after which.

    Raises:
        UsageError: it is none of these.
    """
    if text.startswith(_LOCAL):
        return MasterEndpoint(text)
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.*-]+))(?::(\d{1,5}))?", text)
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 2**16:
        raise UsageError(
            f"{option} {text}: not an address",
            next_step=f"write it as HOST:PORT, for example {option} 10.0.0.1:{DEFAULT_PORT}",
        )
    return MasterEndpoint("0.0.0.0" if match[2] == "*" else match[1] or match[2], port)  # noqa: S104


def parse_allowed(text: str) -> tuple[str, int | None]:
    """Read `HOST`, `HOST:PORT` or `[::1]:PORT` after --allow.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]+))(?::(\d{1,5}))?", text)
    if match is None:
        raise UsageError(
            f"--allow {text}: not a server's address", next_step="write it as HOST or HOST:PORT"
        )
    return match[1] or match[2], int(match[3]) if match[3] else None


def join_token(endpoints: Iterable[MasterEndpoint]) -> bytes:
    """The secret by which workers join, from the environment.

    Returns:
        Empty where there is none, which is enough among the processes of one machine.

    Raises:
        UsageError: other machines can reach an endpoint and there is no secret, or a short one.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    abroad = [str(one) for one in endpoints if not one.local]
    if abroad and len(token) < SHORTEST_TOKEN:
        said = f"is shorter than {SHORTEST_TOKEN} characters" if token else "is not set"
        raise UsageError(
            f"{abroad[0]} is reached by other machines, and {TOKEN_VARIABLE} {said}",
            next_step=f"give the master and its workers one secret: export {TOKEN_VARIABLE}="
            "$(openssl rand -hex 16)",
        )
    return token.encode()


def check_free(endpoint: MasterEndpoint) -> None:
    """Make sure that an address can be listened at, before anything is started.

    Raises:
        UsageError: another program listens there, or this machine does not have the address.
    """
    if endpoint.address.startswith(_LOCAL):
        return
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UsageError(
            f"--listen {endpoint}: {error.strerror or error}",
            next_step="is another master running? Choose an address of this machine and a port "
            "that is free",
        ) from error


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

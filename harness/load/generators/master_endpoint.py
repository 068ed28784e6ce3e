"""Where a master listens for workers, and the secret by which they join it."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UsageError

TOKEN_VARIABLE = "HARNESS_JOIN_TOKEN"  # noqa: S105  (its name, not the secret)
DEFAULT_PORT = 5557
SHORTEST_TOKEN = 8
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.*-]+))(?::(\d{1,5}))?")
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
    match = _ADDRESS.fullmatch(text)
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
    match = _ADDRESS.fullmatch(text)
    if match is None or "*" in text:
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

"""The one kept-alive HTTP/1.1 connection of a user: opened when it is needed, watched, replaced.

A connection that the server hung up on while it was idle is replaced before anything is sent.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.http.http1 import ProtocolViolation, StreamEnd
from harness.load.transports.sockets import Inbox, ReadWaiter, Taken, open_socket, stands, watch
from harness.words.numbers import asked

ALPN = "http/1.1"
RECEIVE_BYTES = 65536
IDLE_S = 0.1
"""A connection at rest for longer is looked at before it is used; a busy one is not."""


class KeptTransport:
    """What the transports over HTTP/1.1 have in common: the one connection of a user.

    Args:
        target: the server.
        timeout_s: for the connection to be made, and for its answers.
        waiter: of the process's event loop.
    """

    def __init__(
        self, target: Target, *, timeout_s: float, waiter: ReadWaiter | None = None
    ) -> None:
        self._target, self._timeout_s, self._waiter = target, timeout_s, waiter
        self._connection: KeptConnection | None = None
        self.received_ns = 0
        self.identity = b""

    def connect(self) -> None:
        """Open the connection, unless there is one that stands."""
        self._ready()

    def _ready(self) -> KeptConnection:
        """The connection, opened again if there is none that stands.

        Raises:
            RequestFailure: it cannot be made.
        """
        if self._connection is not None and self._connection.usable():
            return self._connection
        self.close()
        try:
            connected = open_socket(self._target, alpn=ALPN, timeout_s=self._timeout_s)
        except OSError as error:
            raise broken(self._target, error, self._timeout_s) from error
        self._connection = KeptConnection(connected, self._waiter)
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _broken(self, connection: KeptConnection, error: Exception) -> RequestFailure:
        connection.guard.clear()
        self.close()
        if connection.guard.expired:
            return self._too_late()
        return broken(self._target, error, self._timeout_s)

    def _too_late(self) -> RequestFailure:
        return too_late(self._target, "answer from", self._timeout_s)


class KeptConnection:
    """An open socket and the deadline of what it carries."""

    def __init__(self, connected: socket.socket, waiter: ReadWaiter | None) -> None:
        self.guard = watch(connected)
        self.inbox = Inbox(connected, waiter)
        self._socket = connected
        self.asked = 0
        """Requests that were sent over it."""
        self._asked_s = time.monotonic()
        self._gave_up = False

    def usable(self) -> bool:
        """Whether a request may be sent over it."""
        if time.monotonic() - self._asked_s > IDLE_S and not stands(self._socket):
            return False
        return not self._gave_up

    @property
    def asked_ago_s(self) -> float:
        """Seconds since the last request was sent."""
        return time.monotonic() - self._asked_s

    def ask(
        self, request: bytes, timeout_s: float, heard_ns: Callable[[], int] | None = None
    ) -> bytes:
        """Send a request and wait for the first bytes of its answer.

        Args:
            request: in its protocol's bytes.
            timeout_s: as `Guard.start` takes it.
            heard_ns: too.
        """
        self.guard.start(timeout_s, heard_ns)
        self._asked_s = time.monotonic()
        self.asked += 1
        try:
            # Nearly always all of it at once; `sendall` costs more under gevent.
            sent = self._socket.send(request)
            if sent < len(request):
                self._socket.sendall(memoryview(request)[sent:])
        except ConnectionError as error:
            return self._parting_words(error)
        received = self.inbox.wait(RECEIVE_BYTES)
        if not received:
            raise StreamEnd("the server closed the connection instead of answering")
        return received

    def receive(self) -> bytes:
        """Take what may be there already, or wait for it; empty when the server has closed."""
        return self.inbox.receive(RECEIVE_BYTES)

    def wait(self, taken: Taken | None = None) -> bytes:
        """Wait for what is not there yet and not `taken`; empty when the server has closed."""
        return self.inbox.wait(RECEIVE_BYTES, taken)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _parting_words(self, error: ConnectionError) -> bytes:
        """What a server said before it hung up on a request it did not read to its end.

        A refusal (413, 503) says more than that sending broke (RFC 9112, 9.5).
        """
        self._gave_up = True
        with suppress(OSError):
            if received := self.inbox.receive(RECEIVE_BYTES):
                return received
        raise error


def broken(target: Target, error: Exception, timeout_s: float) -> RequestFailure:
    """The failure of a request whose connection could not be made, or broke."""
    if isinstance(error, TimeoutError):
        return too_late(target, "connection to", timeout_s, f": {error}")
    kind = "malformed" if isinstance(error, ProtocolViolation) else "connection"
    return RequestFailure(kind, f"{target.authority}: {error}")


def too_late(target: Target, what: str, timeout_s: float, why: str = "") -> RequestFailure:
    """The failure of a request that had no `what` (`answer from`) in time."""
    where = f"{target.authority} in {asked(timeout_s)} s"
    return RequestFailure("timeout", f"no {what} {where}{why}")

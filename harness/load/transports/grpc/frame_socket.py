"""A socket that HTTP/2 frames are sent and received over, within a time limit for each request."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType

from harness.load.transports.grpc.frames import (
    ErrorCode,
    Frame,
    FrameReader,
    make_goaway,
)
from harness.load.transports.sockets import Inbox, ReadWaiter, Taken, watch

IDLE_S = 0.01
"""After a pause so long the connection is read first: the server may have said that it closes."""
RECEIVE_BYTES = 2**16
LARGE_RECEIVE_BYTES = 2**20


class FrameSocket:
    """Entered for each request: what is sent and received inside has `timeout_s`.

    Inside, OSError says that the connection broke. Leaving after too long raises TimeoutError in
    its place, or instead of success; the socket has then been shut.

    Args:
        connected: in blocking mode.
        timeout_s: for everything between entering and leaving.
        waiter: waits until the socket can be read; None leaves that to the socket.
    """

    def __init__(
        self, connected: socket.socket, *, timeout_s: float, waiter: ReadWaiter | None = None
    ) -> None:
        self._socket = connected
        self.inbox = Inbox(connected, waiter)
        self._guard = watch(connected)
        self._timeout_s = timeout_s
        self._reader = FrameReader()
        self._last_used_s = time.monotonic()
        self._last_piece = b""

    def __enter__(self) -> None:
        self._guard.start(self._timeout_s)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guard.clear()
        if self._guard.expired:  # the watchdog hung up, whatever it looks like from here
            raise TimeoutError from error
        self._last_used_s = time.monotonic()

    def renew(self, heard_ns: Callable[[], int]) -> None:
        """Let the time begin anew, now and whenever something comes; as `Guard.start` takes it."""
        self._guard.start(self._timeout_s, heard_ns)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole frames.

        Raises:
            OSError: the connection broke.
        """
        # Nearly always all of it at once; `sendall` costs more under gevent.
        sent = self._socket.send(data)
        if sent < len(data):
            self._socket.sendall(memoryview(data)[sent:])

    def receive(self, taken: Taken | None = None) -> Frame:
        """Wait for a frame.

        Args:
            taken: asked of what comes where a frame begins; what it takes is no frame for us.

        Raises:
            OSError: the connection broke or was closed.
            Http2Violation: what came is not a frame.
        """
        while (frame := self._reader.next()) is None:
            asked = taken if self._reader.is_empty else None
            self._reader.feed(self._receive_piece(self._reader.missing_bytes, asked))
        return frame

    def received_data(self, stream_id: int) -> list[bytes]:
        """The payloads of a stream's plain DATA frames that have been taken in already."""
        return self._reader.next_data(stream_id)

    def receive_whole(self) -> bytes | None:
        """What the next wait brings, to be looked at in one piece; None if there is a rest before.

        What is not recognised must be given back with `put_back`.

        Raises:
            OSError: the connection broke or was closed.
        """
        return self._receive_piece(0) if self._reader.is_empty else None

    def put_back(self, piece: bytes) -> None:
        """Have a piece read as frames after all."""
        self._reader.feed(piece)

    def was_whole(self, piece: bytes) -> bool:
        """Whether a piece that was put back was all that came, and has been read to its end."""
        return self._last_piece is piece and self._reader.is_empty

    def is_idle(self) -> bool:
        """Whether the last request ended so long ago that the server may have sent something."""
        return time.monotonic() - self._last_used_s > IDLE_S

    def receive_what_came(self) -> None:
        """Take in what lies in the socket, without waiting.

        Raises:
            OSError: the connection was closed.
        """
        self._socket.settimeout(0)
        try:
            while piece := self._socket.recv(RECEIVE_BYTES):
                self._reader.feed(piece)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._socket.settimeout(None)
            return
        raise ConnectionResetError("the server closed the connection")

    def received(self) -> Iterator[Frame]:
        """The frames that have been taken in already.

        Raises:
            Http2Violation: what came is not a frame.
        """
        while not self._reader.is_empty and (frame := self._reader.next()) is not None:
            yield frame

    def close(self, code: ErrorCode) -> None:
        """Say goodbye if that takes no waiting, and close the socket."""
        with suppress(OSError):
            self._socket.settimeout(0)
            self._socket.send(make_goaway(code))
        self._socket.close()

    def _receive_piece(self, missing_bytes: int, taken: Taken | None = None) -> bytes:
        large = missing_bytes > RECEIVE_BYTES
        size = min(missing_bytes, LARGE_RECEIVE_BYTES) if large else RECEIVE_BYTES
        piece = self.inbox.wait(size, taken)
        if not piece:
            raise ConnectionResetError("the server closed the connection before it answered")
        self._last_piece = piece
        return piece

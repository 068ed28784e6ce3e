"""HTTP/1.1 over one kept-alive socket: just what a load generator needs, and cheap.

Under Locust the `socket` module is gevent's, so waiting for an answer lets other users run.
A general client (requests, tritonclient) costs four times the CPU a request, which would be
taken from the server under test wherever both share a machine.
Framing as in RFC 9112: Content-Length, chunked, or until the server closes.
"""

from __future__ import annotations

import socket
import time
from functools import lru_cache
from typing import NamedTuple

HEAD_END = b"\r\n\r\n"
LINE_END = b"\r\n"
MAX_HEAD_BYTES = 65536
RECEIVE_BYTES = 65536
_FIRST_FINAL_STATUS = 200


class ProtocolViolation(ValueError):  # noqa: N818  (named for what the server did)
    """The bytes that came are not HTTP/1.1."""


class Head(NamedTuple):
    """What the framing, and KServe's binary extension, need of an answer's head."""

    status: int
    content_length: int | None
    chunked: bool
    keep_alive: bool
    header_length: int | None
    """`Inference-Header-Content-Length`: bytes of JSON before the raw tensors."""


class HttpConnection:
    """Sends pre-encoded requests and reads whole answers, one at a time."""

    def __init__(self, connected: socket.socket, *, timeout_s: float) -> None:
        self._socket = connected
        self._timeout_s = timeout_s
        self._deadline_s = 0.0
        self._buffer = b""

    @classmethod
    def open(cls, host: str, port: int, *, timeout_s: float) -> HttpConnection:
        """Connect; raises OSError."""
        connected = socket.create_connection((host, port), timeout=timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connected, timeout_s=timeout_s)

    def exchange(self, request: bytes) -> tuple[Head, bytes]:
        """Send a request and read its answer: head and body.

        Raises:
            TimeoutError: the whole answer did not come in time.
            OSError: the connection broke; it is of no use any more.
            ProtocolViolation: the answer is not HTTP/1.1.
        """
        self._deadline_s = time.monotonic() + self._timeout_s
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(request)
        head = parse_head(self._read_until(HEAD_END))
        while head.status < _FIRST_FINAL_STATUS:
            head = parse_head(self._read_until(HEAD_END))
        return head, self._read_body(head)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _read_body(self, head: Head) -> bytes:
        if head.chunked:
            return self._read_chunks()
        if head.content_length is not None:
            return self._read_exactly(head.content_length)
        return self._read_to_close()

    def _read_chunks(self) -> bytes:
        chunks = []
        while size := _chunk_size(self._read_until(LINE_END)):
            chunks.append(self._read_exactly(size))
            if self._read_exactly(len(LINE_END)) != LINE_END:
                raise ProtocolViolation("a chunk does not end where its size says")
        while self._read_until(LINE_END) != LINE_END:
            pass  # trailer fields
        return b"".join(chunks)

    def _read_to_close(self) -> bytes:
        while piece := self._receive():
            self._buffer += piece
        body, self._buffer = self._buffer, b""
        return body

    def _read_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ProtocolViolation(f"no end of a head within {MAX_HEAD_BYTES} bytes")
            self._fill()
        return self._take(end + len(mark))

    def _read_exactly(self, size: int) -> bytes:
        if len(self._buffer) < size:
            self._gather(size)
        return self._take(size)

    def _gather(self, size: int) -> None:
        """Fill the buffer up to `size`, joining the pieces once: an answer may be large."""
        pieces, missing = [self._buffer], size - len(self._buffer)
        while missing > 0:
            self._buffer = b""
            self._fill()
            pieces.append(self._buffer)
            missing -= len(self._buffer)
        self._buffer = b"".join(pieces)

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self) -> None:
        piece = self._receive()
        if not piece:
            raise ConnectionResetError("the server closed the connection before its answer ended")
        self._buffer += piece

    def _receive(self) -> bytes:
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(remaining_s)
        return self._socket.recv(RECEIVE_BYTES)


@lru_cache(maxsize=64)
def parse_head(head: bytes) -> Head:
    """Parse a status line and header fields; a server's heads are few, so they are remembered.

    Raises:
        ProtocolViolation: it is not the head of an HTTP/1 answer.
    """
    status_line, *lines = head.removesuffix(HEAD_END).split(LINE_END)
    version, _, rest = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ProtocolViolation(f"the answer starts with {status_line[:40]!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    chunked = fields.get(b"transfer-encoding", b"").endswith(b"chunked")
    content_length = _number(fields.get(b"content-length"))
    return Head(
        status=_number(rest[:3]) or 0,
        content_length=content_length,
        chunked=chunked,
        keep_alive=(
            fields.get(b"connection") != b"close"
            and version != b"HTTP/1.0"
            and (chunked or content_length is not None)
        ),
        header_length=_number(fields.get(b"inference-header-content-length")),
    )


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        return int(digits, 16)
    except ValueError as error:
        raise ProtocolViolation(f"{digits[:40]!r} is no chunk size") from error


def _number(text: bytes | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit():
        raise ProtocolViolation(f"{text[:40]!r} is no number")
    return int(text)

"""The body of an HTTP/1.1 answer as it comes: what each piece of the connection's bytes adds to it.

`http1.read_message` waits for a whole answer; here every piece is passed on at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from harness.load.transports.http.http1 import LINE_END, Head, ProtocolViolation, chunk_size

_LONGEST_SIZE_LINE = 1024
_size = lru_cache(maxsize=4096)(chunk_size)
"""A server's chunks have few sizes."""


class ArrivingBody(Protocol):
    """The body of one answer, fed as it arrives."""

    ended: bool
    """Whether it is there as a whole."""

    @property
    def between(self) -> bool:
        """Whether more may come as it came so far: nothing of it has begun and not ended."""

    def feed(self, piece: bytes) -> bytes:
        """What these bytes of the connection add to the body.

        Raises:
            ProtocolViolation: they do not go on as the head said, or go beyond the answer's end.
        """

    def close(self) -> bool:
        """The server has closed the connection; whether the body may end so."""


def body_of(head: Head) -> ArrivingBody:
    """The body that an answer's head announces."""
    if head.chunked:
        return ChunkedBody()
    return PlainBody(head.content_length)


class PlainBody:
    """A body of a known length, or one that ends with the connection."""

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.ended = length == 0

    @property
    def between(self) -> bool:
        """As `ArrivingBody` says; where the length is known all that comes has to be counted."""
        return self._left is None

    def feed(self, piece: bytes) -> bytes:
        """As `ArrivingBody` says."""
        if self._left is not None:
            if len(piece) > self._left:
                raise ProtocolViolation(f"{len(piece) - self._left} bytes follow the answer's end")
            self._left -= len(piece)
            self.ended = self._left == 0
        return piece

    def close(self) -> bool:
        """As `ArrivingBody` says."""
        self.ended = self._left in {None, 0}
        return self.ended


class ChunkedBody:
    """A body in chunks, each behind its length in hexadecimal digits (RFC 9112, 7.1).

    What is there of a chunk is passed on before the rest of it has come: an event may end in it.
    """

    def __init__(self) -> None:
        self._rest = b""
        """What came and was not read: part of a size line, of a chunk's end, of the trailer."""
        self._left = 0
        """Bytes of the present chunk that are still to come."""
        self._at_end = False
        """The present chunk is there: its line's end must follow."""
        self._last = False
        """The last chunk has come: only trailer fields may follow."""
        self.ended = False

    @property
    def between(self) -> bool:
        """As `ArrivingBody` says."""
        return not (self._left or self._at_end or self._last or self._rest)

    def feed(self, piece: bytes) -> bytes:
        """As `ArrivingBody` says."""
        data = self._rest + piece if self._rest else piece
        parts: list[bytes] = []
        begun = self._left or self._at_end or self._last
        at = 0 if begun else _whole_chunks(data, parts)
        size = len(data)
        while at < size and not self._last:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                self._at_end = not self._left
            elif self._at_end:
                if size - at < len(LINE_END):
                    break
                if not data.startswith(LINE_END, at):
                    raise ProtocolViolation("a chunk does not end where its size says")
                at, self._at_end = at + len(LINE_END), False
            else:
                start = data.find(LINE_END, at) + len(LINE_END)
                if start < len(LINE_END):
                    if size - at > _LONGEST_SIZE_LINE:
                        raise ProtocolViolation(f"{data[at : at + 40]!r} is not a chunk size")
                    break
                self._left = _size(data[at:start])
                at, self._last = start, not self._left
        if self._last:
            at = self._read_trailer(data, at)
        self._rest = data[at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> bool:
        """As `ArrivingBody` says."""
        return self.ended

    def _read_trailer(self, data: bytes, at: int) -> int:
        while not self.ended and (line_end := data.find(LINE_END, at)) >= 0:
            self.ended, at = line_end == at, line_end + len(LINE_END)
        if self.ended and at < len(data):
            raise ProtocolViolation(f"{len(data) - at} bytes follow the end of the answer")
        return at


def _whole_chunks(data: bytes, parts: list[bytes]) -> int:
    """Append the chunks that are there as a whole, and say where the first begins that is not.

    Most of what a load generator reads is taken here: it is the loop of `ChunkedBody.feed` without
    its cases.
    """
    at, find = 0, data.find
    while (line_end := find(LINE_END, at)) > 0:
        start = line_end + 2
        end = start + _size(data[at:start])
        if end == start or data[end : end + 2] != LINE_END:
            break
        parts.append(data[start:end])
        at = end + 2
    return at

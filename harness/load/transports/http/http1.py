"""HTTP/1.1 requests as bytes, and answers cut out of a stream of them, as RFC 9112 has it.

Framing by Content-Length, by chunks, or until the server closes; interim (1xx) answers are passed
over. Nothing here knows of sockets: pieces come from a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from harness.load.transports.address import Target

HEAD_END = b"\r\n\r\n"
LINE_END = b"\r\n"
MAX_HEAD_BYTES = 65536
MAX_BODY_BYTES = 2**30
"""More than any model answers: a server that says so is broken, and would fill our memory."""

_STATUS_LINE = re.compile(rb"HTTP/1\.(\d) (\d{3})(?: .*)?", re.DOTALL)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r\n", re.DOTALL)
_DIGITS = re.compile(rb"\d{1,18}")
OK = 200
WORDS_OF_A_REFUSAL = 500
"""Bytes of a refusal that are quoted."""
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_NEVER_A_BODY = {_SWITCHING_PROTOCOLS, 204, 304}


class ProtocolViolation(ValueError):  # noqa: N818  (named for what the server did)
    """The bytes that came are not HTTP/1.1."""


class StreamEnd(ConnectionResetError):  # noqa: N818  (what happened, not an error of ours)
    """The server closed the connection before its answer ended."""


class Head(NamedTuple):
    """What the framing, and KServe's binary extension, need of an answer's head."""

    status: int
    content_length: int | None
    """Length of the body; None where it is chunked or ends with the connection."""
    chunked: bool
    keep_alive: bool
    """Whether the connection may carry another request."""
    header_length: int | None
    """`Inference-Header-Content-Length`: bytes of JSON before the raw tensors."""
    content_type: bytes = b""
    """Media type in lower case; empty where the answer has none."""
    retry_after: bytes = b""
    """`Retry-After` of a refusal: seconds, or a date."""

    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come."""
        return self.status < _FIRST_FINAL_STATUS and self.status != _SWITCHING_PROTOCOLS


class Message(NamedTuple):
    """A whole HTTP answer: status, headers and body."""

    head: Head
    data: bytes
    """Head and body as they came where the body has a Content-Length; else the body alone."""
    body_start: int

    @property
    def body(self) -> bytes:
        """The message's body, as it follows the head."""
        return self.data[self.body_start :]


def post(target: Target, path: str, content: bytes, fields: Iterable[tuple[str, str]]) -> bytes:
    """A whole request; the target's own headers go before ours of the same name.

    Args:
        target: the server.
        path: behind the target's prefix.
        content: the body.
        fields: what the head says of it.
    """
    ours = (("Host", target.authority), *fields, ("Content-Length", str(len(content))))
    given = {name.lower() for name, _ in target.headers}
    said = [*(one for one in ours if one[0].lower() not in given), *target.headers]
    lines = "".join(f"{name}: {value}\r\n" for name, value in said)
    head = f"POST {target.prefix}{path} HTTP/1.1\r\n{lines}\r\n"
    return head.encode("latin-1") + content


def read_message(received: bytes, receive: Callable[[], bytes]) -> Message:
    """Read one answer.

    Args:
        received: its first bytes, as many as have come.
        receive: waits for more; empty when the server has closed.

    Raises:
        StreamEnd: it closed too early.
        ProtocolViolation: not HTTP/1.1, or more than one answer to one request.
        OSError: from `receive`.
    """
    stream = _Stream(received, receive)
    raw_head = stream.until(HEAD_END)
    while (head := parse_head(raw_head)).interim:
        raw_head = stream.until(HEAD_END)
    if head.chunked:
        message = Message(head, b"".join(_chunks(stream)), 0)
    elif head.content_length is not None:
        data = stream.exactly(head.content_length, after=raw_head)
        message = Message(head, data, len(raw_head))
    else:
        message = Message(head, stream.to_close(), 0)
    if surplus := stream.left:
        raise ProtocolViolation(f"{surplus} bytes follow the end of the answer")
    return message


@lru_cache(maxsize=64)
def parse_head(head: bytes) -> Head:
    """Parse a status line and header fields; a server's heads are few, so they are remembered.

    Raises:
        ProtocolViolation: it is not the head of an HTTP/1 answer.
    """
    status_line, *lines = head.removesuffix(HEAD_END).split(LINE_END)
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise ProtocolViolation(f"the answer starts with {status_line[:40]!r}")
    version, status = int(match[1]), int(match[2])
    fields = _fields(lines)
    chunked = _is_chunked(fields.get(b"transfer-encoding"))
    length = _length(fields.get(b"content-length"))
    # Both at once: chunks rule, and the connection is not to be trusted (RFC 9112, 6.3).
    delimited = chunked != (length is not None)
    if status in _NEVER_A_BODY:
        chunked, length = False, 0
    return Head(
        status=status,
        content_length=None if chunked else length,
        chunked=chunked,
        keep_alive=delimited and _persists(version, fields.get(b"connection", b"")),
        header_length=_length(fields.get(b"inference-header-content-length")),
        content_type=fields.get(b"content-type", b""),
        retry_after=fields.get(b"retry-after", b""),
    )


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Values in lower case by name in lower case; those of a repeated name joined by commas."""
    fields: dict[bytes, bytes] = {}
    name = b""
    for line in lines:
        if name and line[:1] in {b" ", b"\t"}:  # obsolete folding goes on with the value before
            fields[name] += b" " + line.strip().lower()
            continue
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        if not colon or not name:
            raise ProtocolViolation(f"{line[:40]!r} is not a header field")
        value = value.strip().lower()
        fields[name] = fields[name] + b"," + value if name in fields else value
    return fields


def _is_chunked(coding: bytes | None) -> bool:
    if coding not in {None, b"chunked", b"identity"}:
        raise ProtocolViolation(f"transfer coding {coding!r}, which was not requested")
    return coding == b"chunked"


def _length(value: bytes | None) -> int | None:
    """A length in bytes; one that is repeated must be the same each time."""
    if value is None:
        return None
    first, *others = (part.strip() for part in value.split(b","))
    if _DIGITS.fullmatch(first) is None or any(other != first for other in others):
        raise ProtocolViolation(f"{value[:40]!r} is not a length")
    return _bounded(int(first))


def _persists(version: int, connection: bytes) -> bool:
    options = {option.strip() for option in connection.split(b",")}
    return b"close" not in options if version else b"keep-alive" in options


def _chunks(stream: _Stream) -> Iterator[bytes]:
    total = 0
    while size := chunk_size(stream.until(LINE_END)):
        total = _bounded(total + size)
        yield stream.exactly(size)
        if stream.exactly(len(LINE_END)) != LINE_END:
            raise ProtocolViolation("a chunk does not end where its size says")
    while stream.until(LINE_END) != LINE_END:
        pass  # trailer fields


def chunk_size(line: bytes) -> int:
    """The size that stands before a chunk.

    Raises:
        ProtocolViolation: none does.
    """
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise ProtocolViolation(f"{line[:40]!r} is not a chunk size")
    return int(match[1], 16)


def _bounded(size: int) -> int:
    if size > MAX_BODY_BYTES:
        raise ProtocolViolation(f"an answer of {size} bytes or more")
    return size


class _Stream:
    """What has come of an answer, how far it is read, and a way to get more."""

    def __init__(self, received: bytes, receive: Callable[[], bytes]) -> None:
        self._data = received
        self._at = 0
        self._receive = receive

    @property
    def left(self) -> int:
        """Bytes that have come and were not read."""
        return len(self._data) - self._at

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with the next `mark`."""
        while (end := self._data.find(mark, self._at)) < 0:
            if self.left > MAX_HEAD_BYTES:
                raise ProtocolViolation(f"no end of a head within {MAX_HEAD_BYTES} bytes")
            self._data = self._data[self._at :] + self._more()
            self._at = 0
        start, self._at = self._at, end + len(mark)
        return self._data[start : self._at]

    def exactly(self, size: int, *, after: bytes = b"") -> bytes:
        """`after` and the next `size` bytes, joined once: an answer may be large."""
        pieces = [after]
        while size > self.left:
            pieces.append(self._data[self._at :])
            size -= len(pieces[-1])
            self._data, self._at = self._more(), 0
        pieces.append(self._data[self._at : self._at + size])
        self._at += size
        return b"".join(pieces)

    def to_close(self) -> bytes:
        """Everything until the server closes."""
        pieces, total = [self._data[self._at :]], self.left
        while piece := self._receive():
            total = _bounded(total + len(piece))
            pieces.append(piece)
        self._data, self._at = b"", 0
        return b"".join(pieces)

    def _more(self) -> bytes:
        piece = self._receive()
        if not piece:
            raise StreamEnd("the server closed the connection before its answer ended")
        return piece

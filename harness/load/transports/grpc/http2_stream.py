"""One stream of HTTP/2: a request's frames on their way out, and its answer as it comes in."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from harness.load.transports.contract import MARK, WireAnswer
from harness.load.transports.grpc import frames
from harness.load.transports.grpc.frames import Http2Violation
from harness.load.transports.grpc.headers import Headers


class Stream:
    """One request, and what has come of its answer."""

    __slots__ = (
        "answer",
        "ended",
        "headers",
        "identity",
        "number",
        "piece",
        "pieces",
        "reset",
        "send_window",
        "trailers",
    )

    def __init__(self, number: int, send_window: int) -> None:
        self.number = number
        self.send_window = send_window
        """Bytes of DATA that the server still takes on this stream."""
        self.identity = b""
        """The id that the request was sent under, if it bears one."""
        self.headers: Headers | None = None
        self.pieces: list[bytes] = []
        """The body, as its DATA frames brought it."""
        self.trailers: Headers | None = None
        self.ended = False
        self.reset: int | None = None
        """The error code with which the server broke the stream off."""
        self.piece: bytes | None = None
        """All frames of the answer and nothing else, if they came together."""
        self.answer: WireAnswer | None = None
        """The whole of it, where its form was known: then nothing else is filled in."""

    def take_headers(self, headers: Headers, *, last: bool) -> None:
        """Take in a header block: an informational one, the answer's, or its trailers."""
        if self.ended:
            return
        if self.headers is not None:
            if not last:
                raise Http2Violation("header fields in the middle of an answer")
            self.trailers = headers
        elif last or not headers.get(":status", "").startswith("1"):
            self.headers = headers
        self.ended = last

    def take_data(self, payload: bytes, *, last: bool) -> None:
        """Take in a piece of the body."""
        if self.ended:
            return
        if self.headers is None:
            raise Http2Violation("a body before its header fields")
        self.pieces.append(payload)
        self.ended = last

    def take_reset(self, code: int) -> None:
        """Note that the server broke the stream off, unless it had ended already."""
        if not self.ended:
            self.reset, self.ended = code, True


class FramedRequest(NamedTuple):
    """A request of one HEADERS and one DATA frame, cut where its stream's number and id go."""

    before: bytes
    between: bytes
    after: bytes
    rest: bytes
    """Behind the id; empty if it has none."""
    data_bytes: int

    def on(self, number: bytes, identity: bytes) -> bytes:
        """The frames for a stream, whose number has four bytes; the id is empty if it has none."""
        parts = (self.before, number, self.between, number, self.after, identity, self.rest)
        return b"".join(parts)


_LONGEST_CUT = 2 * (frames.HEADER_BYTES + frames.SMALLEST_MAX_FRAME_BYTES)
"""What is longer has several DATA frames: it need not be remembered to be known again."""


def cut_request(framed: bytes) -> FramedRequest | None:
    """Cut a request of `frame_request`; None if it has more than one DATA frame."""
    return None if len(framed) > _LONGEST_CUT else _cut(framed)


def forget_requests() -> None:
    """Let go of the requests of a load that has ended."""
    _cut.cache_clear()


@lru_cache(maxsize=4096)
def _cut(framed: bytes) -> FramedRequest | None:
    data_at = frames.HEADER_BYTES + int.from_bytes(framed[:3], "big")
    data_bytes = int.from_bytes(framed[data_at : data_at + 3], "big")
    if data_at + frames.HEADER_BYTES + data_bytes != len(framed):
        return None
    after, _, rest = framed[data_at + 9 :].partition(MARK)
    return FramedRequest(framed[:5], framed[9 : data_at + 5], after, rest, data_bytes)


def frame_request(header_block: bytes, body: bytes) -> bytes:
    """HEADERS and DATA frames of a request, as every peer takes them, for stream 0.

    Args:
        header_block: at most 16,384 bytes.
        body: at least one byte.
    """
    size = frames.SMALLEST_MAX_FRAME_BYTES
    framed = [frames.make_frame(frames.HEADERS, frames.END_HEADERS, 0, header_block)]
    for start in range(0, len(body), size):
        flags = frames.END_STREAM if start + size >= len(body) else 0
        framed.append(frames.make_frame(frames.DATA, flags, 0, body[start : start + size]))
    return b"".join(framed)


def number_frames(framed: bytearray, number: int) -> None:
    """Give all frames of a request their stream."""
    at, number_bytes = 0, number.to_bytes(4, "big")
    while at < len(framed):
        framed[at + 5 : at + 9] = number_bytes
        at += frames.HEADER_BYTES + int.from_bytes(framed[at : at + 3], "big")


def frames_within(framed: bytearray, at: int, window: int) -> tuple[int, int]:
    """Where the whole frames end that fit into a window, and how much DATA they hold."""
    data_bytes = 0
    while at < len(framed):
        length = int.from_bytes(framed[at : at + 3], "big")
        if data_bytes + length > window:
            break
        data_bytes += length
        at += frames.HEADER_BYTES + length
    return at, data_bytes


def split_frame(framed: bytearray, at: int, size: int) -> bytes:
    """Cut the first bytes of DATA off a frame that is larger; they come as their own frame.

    What is left gets its header in their place, so that it starts `size` bytes further on.
    """
    length, kind, flags, number = frames.read_header(framed, at)
    payload = at + frames.HEADER_BYTES
    first = frames.make_frame(kind, 0, number, bytes(framed[payload : payload + size]))
    framed[at + size : payload + size] = frames.make_header(length - size, kind, flags, number)
    return first

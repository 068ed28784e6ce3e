"""HTTP/2 frames (RFC 9113, sections 4 and 6): built, and cut from the bytes that come.

Nothing here knows of streams' state; that is `http2.py`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
SMALLEST_MAX_FRAME_BYTES = 16_384
"""No peer may ask for smaller frames, so frames of this size suit every peer."""
OUR_MAX_FRAME_BYTES = 2**20
"""What the server may send. Far less than text instead of a frame would seem to announce."""
LARGEST_WINDOW_BYTES = 2**31 - 1
FIRST_WINDOW_BYTES = 65_535
LARGEST_STREAM_ID = 2**31 - 1
PING_BYTES = 8

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

SETTING_HEADER_TABLE_SIZE = 0x1
SETTING_ENABLE_PUSH = 0x2
SETTING_INITIAL_WINDOW_SIZE = 0x4
SETTING_MAX_FRAME_SIZE = 0x5

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload: a plain tuple, because each request makes four of them."""

_HEADER = struct.Struct(">IBI")  # length (24 bits) and kind (8), flags, stream
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")
_PRIORITY_BYTES = 5


class ErrorCode(IntEnum):
    """Why a stream or a connection ended (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Http2Violation(ValueError):  # noqa: N818  (named for what the server did)
    """The bytes that came break the protocol; the connection is of no use any more."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class FrameReader:
    """Cuts received bytes into frames, however the network split them."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._pieces: list[bytes] = []
        """What came after `_data` and does not yet complete its last frame."""
        self.missing_bytes = 0
        """How much must come before `next` has more; 0 when that is not known."""

    def feed(self, piece: bytes) -> None:
        """Take in what was received."""
        if self._at == len(self._data) and not self._pieces:
            self._data, self._at, self.missing_bytes = piece, 0, 0
            return
        self._pieces.append(piece)
        self.missing_bytes -= len(piece)
        if self.missing_bytes <= 0:  # joined once, not at every piece: an answer may be large
            self._data = b"".join((self._data[self._at :], *self._pieces))
            self._at = 0
            self._pieces.clear()

    def next(self) -> Frame | None:
        """The next whole frame; None when more must be fed.

        Raises:
            Http2Violation: it is larger than we told the server that frames may be.
        """
        at = self._at
        start = at + HEADER_BYTES
        if start > len(self._data):
            self.missing_bytes = start - len(self._data) - sum(map(len, self._pieces))
            return None
        length_and_kind, flags, stream_id = _HEADER.unpack_from(self._data, at)
        end: int = start + (length_and_kind >> 8)
        if end > len(self._data):
            if end - start > OUR_MAX_FRAME_BYTES:
                raise Http2Violation(
                    f"no frame of HTTP/2, or too large a one: {self._data[at : at + 40]!r}",
                    ErrorCode.FRAME_SIZE_ERROR,
                )
            self.missing_bytes = end - len(self._data) - sum(map(len, self._pieces))
            return None
        self._at = end
        return length_and_kind & 0xFF, flags, stream_id & LARGEST_STREAM_ID, self._data[start:end]

    def next_data(self, stream_id: int) -> list[bytes]:
        """The payloads of a stream's plain DATA frames that come next and are there as a whole.

        What `next` would give of them, without a call for each: an answer that comes token by token
        has a frame per token. A frame of any other kind, or with flags, is left to `next`.
        """
        data, at, size = self._data, self._at, len(self._data)
        payloads, start = [], at + HEADER_BYTES
        while start <= size:
            length_and_kind, flags, number = _HEADER.unpack_from(data, at)
            end = start + (length_and_kind >> 8)
            if length_and_kind & 0xFF or flags or number != stream_id or end > size:
                break
            payloads.append(data[start:end])
            at, start = end, end + HEADER_BYTES
        self._at = at
        return payloads

    @property
    def is_empty(self) -> bool:
        """Whether everything that was fed has been taken out."""
        return self._at == len(self._data) and not self._pieces


def make_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes that a frame starts with."""
    return _HEADER.pack(length << 8 | kind, flags, stream_id)


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as it goes over the wire."""
    return make_header(len(payload), kind, flags, stream_id) + payload


def data_alone(piece: bytes, stream_id: int) -> bytes | None:
    """The payload, if a piece is one plain DATA frame of a stream and nothing else."""
    if len(piece) < HEADER_BYTES:
        return None
    size = len(piece) - HEADER_BYTES
    is_alone = _HEADER.unpack_from(piece) == (size << 8 | DATA, 0, stream_id)
    return piece[HEADER_BYTES:] if is_alone else None


def make_settings(settings: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in settings.items())
    return make_frame(SETTINGS, 0, 0, payload)


def make_window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return make_frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(increment))


def make_rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return make_frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def make_goaway(code: ErrorCode) -> bytes:
    """A GOAWAY frame of a client that was pushed no stream."""
    return make_frame(GOAWAY, 0, 0, _NUMBER.pack(0) + _NUMBER.pack(code))


def read_header(framed: bytes | bytearray, at: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame that starts at an offset."""
    length_and_kind, flags, stream_id = _HEADER.unpack_from(framed, at)
    return length_and_kind >> 8, length_and_kind & 0xFF, flags, stream_id


def read_settings(payload: bytes) -> dict[int, int]:
    """The settings of a SETTINGS frame; of one named twice the last counts.

    Raises:
        Http2Violation: a size that no list of settings has.
    """
    if len(payload) % _SETTING.size:
        raise Http2Violation(
            f"SETTINGS of {len(payload)} bytes: not a multiple of {_SETTING.size}",
            ErrorCode.FRAME_SIZE_ERROR,
        )
    return dict(_SETTING.iter_unpack(payload))


def read_number(kind: str, payload: bytes) -> int:
    """The one number of a RST_STREAM or WINDOW_UPDATE frame.

    Raises:
        Http2Violation: it is not four bytes.
    """
    if len(payload) != _NUMBER.size:
        raise Http2Violation(f"{kind} of {len(payload)} bytes", ErrorCode.FRAME_SIZE_ERROR)
    number: int = _NUMBER.unpack(payload)[0]
    return number


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """The last stream that the peer will answer, the error code, and its words.

    Raises:
        Http2Violation: it is too short.
    """
    if len(payload) < 2 * _NUMBER.size:
        raise Http2Violation(f"GOAWAY of {len(payload)} bytes", ErrorCode.FRAME_SIZE_ERROR)
    last_stream_id, code = struct.unpack_from(">II", payload)
    return last_stream_id & LARGEST_STREAM_ID, code, payload[2 * _NUMBER.size :]


def without_padding(flags: int, payload: bytes) -> bytes:
    """The content of a DATA or HEADERS frame: no padding, no priority.

    Raises:
        Http2Violation: more padding than frame.
    """
    start, padding = 0, 0
    if flags & PADDED:
        padding, start = (payload[0] if payload else len(payload) + 1), 1
    if flags & HAS_PRIORITY:
        start += _PRIORITY_BYTES
    if start + padding > len(payload):
        raise Http2Violation(f"{padding} bytes of padding in a frame of {len(payload)}")
    return payload[start : len(payload) - padding]


def name_of(code: int) -> str:
    """An error code in words."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code:#x}"


SETTINGS_ACK = make_frame(SETTINGS, ACK, 0)
CLIENT_GREETING = (
    PREFACE
    + make_settings(
        {
            # No shared table: every header block the server sends then means the same every time.
            SETTING_HEADER_TABLE_SIZE: 0,
            SETTING_ENABLE_PUSH: 0,
            SETTING_INITIAL_WINDOW_SIZE: LARGEST_WINDOW_BYTES,
            SETTING_MAX_FRAME_SIZE: OUR_MAX_FRAME_BYTES,
        }
    )
    + make_window_update(0, LARGEST_WINDOW_BYTES - FIRST_WINDOW_BYTES)
)
"""The first that a client sends: windows for answers as wide as can be."""

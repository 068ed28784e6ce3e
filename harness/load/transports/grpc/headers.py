"""Headers of gRPC: HTTP/2's header blocks (RFC 7541), call metadata, and an answer's status.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, under Custom-Metadata.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from harness.errors import UsageError
from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    PADDED,
    ErrorCode,
    Http2Violation,
    name_of,
    without_padding,
)
from harness.words.numbers import asked

Headers = dict[str, str]
"""Header values by lower-case name; equal blocks give the same object, so that it is judged only
once."""

MAX_BLOCK_BYTES = 2**18

_REMEMBERED_BLOCKS = 64
_DECORATED = PADDED | HAS_PRIORITY


def encode_headers(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block that means the same on every connection at any time.

    It uses the static table and literals that are never indexed, so it neither reads nor changes
    the state that the two ends of a connection share. Strings are not Huffman-coded: the server
    under test shall not have to decode them.
    """
    tuples = [NeverIndexedHeaderTuple(name, value) for name, value in fields]
    return Encoder().encode(tuples, huffman=False)


class HeaderBlocks:
    """Puts the header blocks of one connection together and decodes them, in order.

    Each different one is decoded once where that is sound. What a block means, and what it does to
    the decoder's table, depends on the table alone. So a block that leaves the table as it was
    means the same again for as long as the table stays so, and skipping its decoding changes
    nothing. Any change of the table forgets all blocks.

    Args:
        on_change: called with every change of the table: earlier blocks may mean something else
            from then on.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._decoder = Decoder()
        self._on_change = on_change
        self._known: dict[bytes, Headers] = {}
        self._stream_id = 0
        self._last = 0
        """END_STREAM of the block that is to be continued."""
        self._block: bytes | None = None

    def take(
        self, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> tuple[Headers, int] | None:
        """Take in a HEADERS or CONTINUATION frame.

        Returns:
            The fields and END_STREAM; None while the block is to be continued.

        Raises:
            Http2Violation: a continuation of nothing, a block that is too large or no block.
        """
        last = flags & END_STREAM
        if kind == CONTINUATION:
            if self._block is None or self._stream_id != stream_id:
                raise Http2Violation("a header block is continued that was not begun")
            payload, last, self._block = self._block + payload, self._last, None
        elif flags & _DECORATED:
            payload = without_padding(flags, payload)
        if len(payload) > MAX_BLOCK_BYTES:
            raise Http2Violation(
                f"header fields of more than {MAX_BLOCK_BYTES} bytes", ErrorCode.ENHANCE_YOUR_CALM
            )
        if not flags & END_HEADERS:
            self._stream_id, self._last, self._block = stream_id, last, payload
            return None
        return self.decode(payload), last

    def decode(self, block: bytes) -> Headers:
        """The fields of a block; every block of the connection must come here, in order.

        Raises:
            Http2Violation: it is not a header block.
        """
        known = self._known.get(block)
        return self._decode(block) if known is None else known

    def is_settled(self, block: bytes) -> bool:
        """Whether a block is remembered."""
        return block in self._known

    def _decode(self, block: bytes) -> Headers:
        before = self._table()
        try:
            fields = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise Http2Violation(
                f"a header block that cannot be decoded: {error}", ErrorCode.COMPRESSION_ERROR
            ) from error
        headers: Headers = {}
        for raw_name, raw_value in fields:
            name, value = _text(raw_name).lower(), _text(raw_value)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if self._table() != before:
            self._known.clear()
            self._on_change()
        else:
            self._remember(block, headers)
        return headers

    def _remember(self, block: bytes, headers: Headers) -> None:
        if len(self._known) >= _REMEMBERED_BLOCKS:
            self._known.clear()
        self._known[block] = headers

    def _table(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        table = self._decoder.header_table
        return table.maxsize, list(table.dynamic_entries)


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="replace")


BINARY_SUFFIX = "-bin"

_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")
_RESERVED = frozenset({
    "connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te",
    "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
_RESERVED_PREFIX = "grpc-"


def read_metadata(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Metadata as it goes over the wire: names in lower case, values in ASCII.

    The value of a name that ends in `-bin` is bytes; it is given, and sent, in base64.

    Raises:
        UsageError: a name or a value that gRPC cannot carry, or a name that is gRPC's own.
    """
    metadata = []
    for given, value in headers:
        name = given.lower()
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"'{given}' is not a name of gRPC metadata",
                next_step="use letters, digits, and the signs - _ .",
            )
        if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
            raise UsageError(f"'{given}' cannot be sent as metadata: gRPC sets it itself")
        if not _VALUE.fullmatch(value):
            raise UsageError(
                f"the metadata '{given}' has a value with signs other than printable ASCII",
                next_step=f"name it '{given}{BINARY_SUFFIX}' and give the value in base64",
            )
        if name.endswith(BINARY_SUFFIX):
            decode_binary(name, value)
        metadata.append((name, value.strip()))
    return metadata


def decode_binary(name: str, value: str) -> bytes:
    """The bytes that a `-bin` value stands for; padding may be left out.

    Raises:
        UsageError: it is not base64.
    """
    text = value.strip().rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise UsageError(
            f"the metadata '{name}' has a value that is not base64: {error}",
            next_step="encode it: printf VALUE | base64 -w0",
        ) from error


_STATUS_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_OK = 0
_STATUS_OF_RESET = {
    ErrorCode.REFUSED_STREAM: "UNAVAILABLE",
    ErrorCode.CANCEL: "CANCELLED",
    ErrorCode.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    ErrorCode.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}
_DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
_CONTENT_TYPE = "application/grpc"


def check_headers(headers: Headers) -> None:
    """Pass if they begin a gRPC answer.

    Raises:
        RequestFailure: `http_STATUS` of what is not a gRPC server, or `malformed`.
    """
    status, content_type = headers.get(":status", "(none)"), headers.get("content-type", "(none)")
    if status != "200":
        raise RequestFailure(f"http_{status}", f"HTTP status {status}, content type {content_type}")
    # A serialisation (+proto) or a parameter (;) may follow.
    kind, rest = content_type[: len(_CONTENT_TYPE)], content_type[len(_CONTENT_TYPE) :]
    if kind != _CONTENT_TYPE or rest[:1] not in {"", "+", ";"}:
        raise RequestFailure("malformed", f"an answer of content type {content_type}, not gRPC")


def check_trailers(trailers: Headers, timeout_s: float) -> None:
    """Pass if they say that the call went well.

    Raises:
        RequestFailure: `grpc_STATUS` in the server's words; `timeout` if the server kept the
            deadline itself; `malformed` without a status.
    """
    status = trailers.get("grpc-status")
    if status is None:
        raise RequestFailure("malformed", "the answer ends without a grpc-status")
    if status.isdecimal() and int(status) == _OK:
        return
    known = status.isdecimal() and int(status) < len(_STATUS_NAMES)
    name = _STATUS_NAMES[int(status)] if known else "UNKNOWN"
    words = unquote(trailers.get("grpc-message", ""), errors="replace") or "(no message)"
    if name == _DEADLINE_EXCEEDED:
        raise RequestFailure(
            "timeout", f"no answer in {asked(timeout_s)} s, says the server: {words}"
        )
    raise RequestFailure(f"grpc_{name}", words)


def reset_failure(code: int) -> RequestFailure:
    """The failure that a stream ends in which the server broke off."""
    known = code in {int(one) for one in _STATUS_OF_RESET}
    name = _STATUS_OF_RESET[ErrorCode(code)] if known else "INTERNAL"
    return RequestFailure(f"grpc_{name}", f"the server reset the stream: {name_of(code)}")

"""KServe v2 over gRPC on HTTP/2 frames of our own: a fraction of grpcio's CPU per request.

`grpcio.py` is the reference that tests compare this with. Answers and failures are the same, but
for a server that cannot be reached, which here is a `connection` as it is over HTTP.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from harness.errors import UsageError
from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure, WireAnswer
from harness.load.transports.grpc import frames
from harness.load.transports.grpc.frames import ErrorCode, Http2Violation
from harness.load.transports.grpc.headers import (
    Headers,
    check_headers,
    check_trailers,
    encode_headers,
    read_metadata,
    reset_failure,
)
from harness.load.transports.grpc.http2 import Http2Connection
from harness.load.transports.grpc.http2_stream import Stream, frame_request
from harness.load.transports.grpc.messages import MODEL_INFER, AnswerForms, encode_infer_request
from harness.load.transports.sockets import ReadWaiter
from harness.words.numbers import asked

ENVELOPE = struct.Struct(">BI")
"""What stands before every message: whether it is compressed, and its length."""
_LARGEST_TIMEOUT = 99_999_999
"""`grpc-timeout` has eight digits."""


class GrpcTransport:
    """A `Transport` over one HTTP/2 connection."""

    _forms: ClassVar = AnswerForms(envelope_bytes=ENVELOPE.size)

    def __init__(
        self, target: Target, *, timeout_s: float, waiter: ReadWaiter | None = None
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._waiter = waiter
        self._connection: Http2Connection | None = None
        self._header_block = request_headers(target, timeout_s)
        self.received_ns = 0
        self.identity = b""
        self._good_headers: Headers = {}
        self._good_trailers: Headers = {}
        """Found in order before; equal blocks are the same object (`HeaderBlocks`)."""

    def encode(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
        """Frames of a `ModelInfer` call that lack only the stream's number."""
        message = encode_infer_request(model, inputs)
        return frame_request(self._header_block, ENVELOPE.pack(0, len(message)) + message)

    def connect(self) -> None:
        """Connect and exchange HTTP/2's settings."""
        try:
            self._open()
        except (OSError, Http2Violation) as error:
            raise self._broken(error) from error

    def send(self, request: bytes) -> WireAnswer:
        """Call `ModelInfer` under its own id."""
        self.identity = b""
        try:
            connection = self._open()
            stream = connection.exchange(request)
        except (OSError, Http2Violation) as error:
            if self._connection is not None:
                self.identity = self._connection.identity
            raise self._broken(error) from error
        self.identity = stream.identity
        self.received_ns = connection.received_ns
        if stream.answer is not None:
            return stream.answer
        if stream.trailers is not self._good_trailers or stream.headers is not self._good_headers:
            self._judge(stream)
        data = stream.pieces[0] if len(stream.pieces) == 1 else b"".join(stream.pieces)
        layout = self._forms.recall(data, stream.identity)
        if layout is None:
            _check_envelope(data)
            layout = self._forms.learn(data, stream.identity)
        connection.learn(stream, layout)
        return WireAnswer(layout, data)

    def close(self) -> None:
        """Close the connection."""
        self._drop(ErrorCode.NO_ERROR)

    def _open(self) -> Http2Connection:
        """A connection that takes a request: the one there is, or a new one.

        The server may have closed the one there is while nothing was asked of it, which is no
        failure of the request that comes next. Once a request is on its way there is no retry.
        """
        if self._connection is not None and not self._connection.is_ready():
            self.close()
        if self._connection is None:
            self._connection = Http2Connection.open(
                self._target, timeout_s=self._timeout_s, waiter=self._waiter
            )
        return self._connection

    def _judge(self, stream: Stream) -> None:
        """Raise what the header fields say, or take note that they are in order."""
        if stream.reset is not None:
            raise reset_failure(stream.reset)
        headers = stream.headers or {}
        check_headers(headers)
        # An answer without a body may consist of trailers alone.
        trailers = headers if stream.trailers is None else stream.trailers
        check_trailers(trailers, self._timeout_s)
        self._good_headers, self._good_trailers = headers, trailers

    def _broken(self, error: Exception) -> RequestFailure:
        where = self._target.authority
        if isinstance(error, Http2Violation):
            self._drop(error.code)
            return RequestFailure("malformed", f"{where}: {error}")
        self._drop(ErrorCode.CANCEL)
        if isinstance(error, TimeoutError):
            why = f": {error}" if str(error) else ""
            text = f"no answer from {where} in {asked(self._timeout_s)} s{why}"
            return RequestFailure("timeout", text)
        return RequestFailure("connection", f"{where}: {error}")

    def _drop(self, code: ErrorCode) -> None:
        if self._connection is not None:
            self._connection.close(code)
            self._connection = None
        # The next connection has its own header memory.
        self._good_headers, self._good_trailers = {}, {}


def request_headers(target: Target, timeout_s: float, path: str = MODEL_INFER) -> bytes:
    """The header block of a call, with the target's own metadata.

    Raises:
        UsageError: metadata that gRPC cannot carry, or too much of it.
    """
    block = encode_headers(
        [
            (":method", "POST"),
            (":scheme", "https" if target.encrypted else "http"),
            (":path", path),
            (":authority", target.authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", _timeout_text(timeout_s)),
            *read_metadata(target.headers),
        ]
    )
    if len(block) > frames.SMALLEST_MAX_FRAME_BYTES:
        raise UsageError(f"{len(block)} bytes of metadata are more than a gRPC server takes")
    return block


def _timeout_text(timeout_s: float) -> str:
    """A `grpc-timeout`: eight digits and a unit, the finest that holds it."""
    for unit, per_s in (("u", 1_000_000), ("m", 1_000), ("S", 1)):
        if timeout_s * per_s <= _LARGEST_TIMEOUT:
            return f"{max(1, round(timeout_s * per_s))}{unit}"
    return f"{_LARGEST_TIMEOUT}S"


def _check_envelope(data: bytes) -> None:
    if len(data) < ENVELOPE.size:
        raise RequestFailure("malformed", "an answer without a message")
    compressed, length = ENVELOPE.unpack_from(data)
    if compressed:
        raise RequestFailure("malformed", "a compressed message, which was not asked for")
    if length != len(data) - ENVELOPE.size:
        came = len(data) - ENVELOPE.size
        raise RequestFailure("malformed", f"a message of {length} bytes announced, {came} came")

"""Triton's `ModelStreamInfer` on HTTP/2 frames of our own: one call for each request.

The request goes out and the client's side of the call is closed with it; the call's end is the end
of the answer. Each message is timed by the kernel's stamp of the bytes that completed it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from harness.load.transports.address import Target
from harness.load.transports.contract import ELEMENTS, ClientLeft, RequestFailure, WireAnswer
from harness.load.transports.grpc.frames import Http2Violation
from harness.load.transports.grpc.http2_stream import frame_request
from harness.load.transports.grpc.messages import SERVICE
from harness.load.transports.grpc.transport import ENVELOPE, GrpcTransport, request_headers
from harness.load.transports.sockets import ReadWaiter
from harness.load.transports.streams.events import add_response, finish_generate
from harness.load.transports.streams.http import LONGEST_S, STREAMED, late_token
from harness.load.transports.streams.tokens import (
    NOTHING_CAME,
    StreamRequest,
    TokenCounter,
    TokenStream,
)
from harness.types.generation import (
    FINISH_REASON,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    QUEUE_TIME_US,
    TEXT_OUTPUT,
    TOKEN_IDS,
)

MODEL_STREAM_INFER = f"{SERVICE}/ModelStreamInfer"
_LENGTH = struct.Struct("<I")
_INT32_BYTES = 4
_LONGEST_QUOTE = 300


class GrpcStreamTransport(GrpcTransport):
    """A `StreamTransport` over one HTTP/2 connection.

    Args:
        target: the server.
        timeout_s: for the connection, and for each gap of an answer.
        waiter: of the process's event loop.
        counter: counts tokens where the server does not say how many a response carries.
    """

    def __init__(
        self,
        target: Target,
        *,
        timeout_s: float,
        waiter: ReadWaiter | None = None,
        counter: TokenCounter | None = None,
    ) -> None:
        super().__init__(target, timeout_s=timeout_s, waiter=waiter)
        self._header_block = request_headers(target, LONGEST_S, MODEL_STREAM_INFER)
        self._counter = counter
        self.stream = NOTHING_CAME

    def encode_message(self, message: bytes) -> bytes:
        """Frames of a call that sends one serialised `ModelInferRequest`."""
        return frame_request(self._header_block, ENVELOPE.pack(0, len(message)) + message)

    def send(self, request: bytes) -> WireAnswer:
        """Call `ModelStreamInfer` under the request's own id, and read its answer into `stream`."""
        self.identity, self.stream = b"", NOTHING_CAME
        plan = request if isinstance(request, StreamRequest) else StreamRequest(request)
        try:
            connection = self._open()
            stream = self.stream = TokenStream(plan.input_tokens)
            reader = ResponseReader(stream, plan.leave_after)
            call = connection.exchange_as_it_comes(
                request, reader.take, reader.recognise, lambda: stream.completed_ns
            )
        except (OSError, Http2Violation) as error:
            if self._connection is not None:
                self.identity = self._connection.identity
            if isinstance(error, TimeoutError) and self.stream is not NOTHING_CAME:
                self.close()
                raise late_token(self._target, self.stream, self._timeout_s) from error
            raise self._broken(error) from error
        except BaseException:
            if self._connection is not None and self.stream is not NOTHING_CAME:
                self.identity = self._connection.identity
            self.close()
            raise
        self.identity = call.identity
        if reader.left:
            raise ClientLeft(sum(self.stream.tokens))
        self._judge(call)
        reader.check_whole()
        self.stream.ended_ns = connection.received_ns
        finish_generate(self.stream)
        self.stream.settle(plan.max_tokens, self._counter)
        self.received_ns = self.stream.completed_ns
        return STREAMED


class ResponseReader:
    """Reads one call's messages (`ModelStreamInferResponse`) into its `TokenStream`.

    Args:
        stream: what is filled in.
        leave_after: tokens after which the client goes away; 0: it stays.
    """

    def __init__(self, stream: TokenStream, leave_after: int = 0) -> None:
        self._stream = stream
        self._leave_after = leave_after
        self._rest = b""
        self._forms: dict[int, _Form] = {}
        """By length, the messages of this answer that differ only in their text."""
        self.left = False

    def take(self, pieces: Sequence[bytes], at_ns: int) -> bool:
        """Take in pieces of the call's body that came together; false: the client goes away now.

        Raises:
            RequestFailure: `stream_error`, or `malformed`.
        """
        for piece in pieces:
            if not self._is_known(piece, at_ns):
                self._take(piece, at_ns)
        if self._leave_after:
            self.left = sum(self._stream.tokens) >= self._leave_after
        return not self.left

    def recognise(self, piece: bytes, at_ns: int) -> bool:
        """Take in a piece if it is one token's message like those before, and nothing else."""
        return not self._leave_after and self._is_known(piece, at_ns)

    def _is_known(self, piece: bytes, at_ns: int) -> bool:
        form = self._forms.get(len(piece))
        if form is None or self._rest:
            return False
        prefix, suffix, tokens = form
        if not (piece.startswith(prefix) and piece.endswith(suffix)):
            return False
        self._stream.add(at_ns, tokens, piece[len(prefix) : len(piece) - len(suffix)])
        return True

    def _take(self, piece: bytes, at_ns: int) -> None:
        """Read the messages that end in a piece."""
        data = self._rest + piece if self._rest else piece
        at = 0
        while len(data) - at >= ENVELOPE.size:
            compressed, length = ENVELOPE.unpack_from(data, at)
            if compressed:
                raise RequestFailure("malformed", "a compressed message, which was not asked for")
            end = at + ENVELOPE.size + length
            if end > len(data):
                break
            text, tokens = self._read(data[at + ENVELOPE.size : end], at_ns)
            if end == len(data) == len(piece) and at == 0:
                self._learn(piece, text, tokens)
            at = end
        self._rest = data[at:]

    def _learn(self, piece: bytes, text: bytes, tokens: int) -> None:
        """Recognise from now on what has the same bytes around a text of the same length."""
        raw = _LENGTH.pack(len(text)) + text
        if text and tokens and not self._stream.finish_reason and piece.count(raw) == 1:
            start = piece.index(raw) + _LENGTH.size
            self._forms[len(piece)] = piece[:start], piece[start + len(text) :], tokens

    def check_whole(self) -> None:
        """Make sure that the body did not end within a message.

        Raises:
            RequestFailure: `malformed`.
        """
        if self._rest:
            raise RequestFailure("malformed", f"{len(self._rest)} bytes of an unfinished message")

    def _read(self, message: bytes, at_ns: int) -> tuple[bytes, int]:
        """Take in a message; its text, and how many tokens it carries."""
        try:
            told = service_pb2.ModelStreamInferResponse.FromString(message)
        except DecodeError as error:
            raise RequestFailure("malformed", f"no ModelStreamInferResponse: {error}") from error
        if told.error_message:
            raise RequestFailure("stream_error", told.error_message[:_LONGEST_QUOTE])
        response = told.infer_response
        raw = response.raw_output_contents
        places = {output.name: place for place, output in enumerate(response.outputs)}

        def number(name: str) -> int | None:
            return (
                _number(raw, place, response) if (place := places.get(name)) is not None else None
            )

        def text(name: str) -> bytes:
            return _text(raw, place, response) if (place := places.get(name)) is not None else b""

        ids, said = places.get(TOKEN_IDS), text(TEXT_OUTPUT)
        tokens = add_response(
            self._stream,
            at_ns,
            said,
            tokens=number(NUM_OUTPUT_TOKENS),
            ids=None if ids is None or ids >= len(raw) else _elements(raw[ids], response, ids),
            reason=text(FINISH_REASON).decode(errors="replace"),
            input_tokens=number(NUM_INPUT_TOKENS),
        )
        if QUEUE_TIME_US in places:
            self._stream.queue_us = number(QUEUE_TIME_US)
        return said, tokens


_Form = tuple[bytes, bytes, int]
"""What precedes and follows a text, and the tokens that the message carries."""


def _text(raw: Sequence[bytes], place: int, response: Any) -> bytes:
    """The elements of a BYTES tensor, joined."""
    if place >= len(raw):
        return b"".join(response.outputs[place].contents.bytes_contents)
    data, at, elements = raw[place], 0, []
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        elements.append(data[at - length : at])
    if at != len(data):
        name = response.outputs[place].name
        raise RequestFailure("malformed", f"{name} is no tensor of BYTES")
    return elements[0] if len(elements) == 1 else b"".join(elements)


def _elements(data: bytes, response: Any, place: int) -> int:
    """How many numbers a tensor holds: a model of somebody else's may write ids as INT64."""
    kind = ELEMENTS.get(response.outputs[place].datatype)
    return len(data) // (_INT32_BYTES if kind is None else kind.itemsize)


def _number(raw: Sequence[bytes], place: int, response: Any) -> int:
    """The one element of a UINT32 or INT32 tensor; 0 where it has none."""
    if place >= len(raw):
        contents = response.outputs[place].contents
        held = [*contents.uint_contents, *contents.int_contents]
        return held[0] if held else 0
    return int.from_bytes(raw[place][:_INT32_BYTES], "little")

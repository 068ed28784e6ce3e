"""The server's gRPC: `ModelStreamInfer`, framed by `h2`, every message in a write of its own.

By hand, because grpcio hands messages to threads of its own: when it wrote one is not known.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor

from token_server.described import unary
from token_server.play import Stage
from token_server.records import Played, Protocol
from token_server.scripts import Fault, Finish, Piece, StreamScript
from token_server.timeline import Kind, play

_STREAM = "ModelStreamInfer"
_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
_UNIMPLEMENTED = 12
_EMPTY_FINAL = "triton_enable_empty_final_response"


@dataclass
class _Stream:
    method: str
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes = b""
    answered: bool = False
    """Its headers have been sent."""
    half_closed: bool = False
    """The client sends no more requests."""
    playing: set[asyncio.Task[None]] = field(default_factory=set)


class GrpcConnection(asyncio.Protocol):
    """One client's HTTP/2 connection."""

    _transport: asyncio.Transport

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._http2 = H2Connection(H2Configuration(client_side=False))
        self._streams: dict[int, _Stream] = {}
        self._window = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stage.connections += 1
        self._http2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams.values():
            stream.gone.set()

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        try:
            events = self._http2.receive_data(data)
        except ProtocolError:
            self._transport.close()
            return
        # First: of a stream that was ended and then reset, nothing may be written any more.
        for event in events:
            if isinstance(event, StreamReset):
                self._streams[event.stream_id].gone.set()
        for event in events:
            self._take(event, now_ns)
        self.flush()

    def _take(self, event: Any, now_ns: int) -> None:
        if isinstance(event, RequestReceived):
            fields = {_text(name): _text(value) for name, value in event.headers}
            self._streams[event.stream_id] = _Stream(fields[":path"].rpartition("/")[2])
        elif isinstance(event, DataReceived):
            self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = self._streams[event.stream_id]
            stream.body += event.data
            while stream.method == _STREAM and (message := _message(stream)) is not None:
                self._request(event.stream_id, stream, message, now_ns)
        elif isinstance(event, StreamEnded):
            self._ended(event.stream_id, self._streams[event.stream_id])
        elif isinstance(event, WindowUpdated):
            self._window.set()

    def _request(self, stream_id: int, stream: _Stream, message: bytes, now_ns: int) -> None:
        request = service_pb2.ModelInferRequest.FromString(message)
        asked = _inputs(request)
        prompt = str(asked.get("text_input", ""))
        asked["model"] = request.model_name
        script, played = self._stage.begin(Protocol.GRPC, prompt, asked, request.id, now_ns)
        answer = GrpcAnswer(self, stream_id, script, played, request)
        task = asyncio.ensure_future(self._answered(answer, played, stream_id, stream))
        stream.playing.add(task)

    async def _answered(
        self, answer: GrpcAnswer, played: Played, stream_id: int, stream: _Stream
    ) -> None:
        try:
            await self._stage.whole(answer.give(), played, stream.gone)
        except ConnectionError:
            stream.gone.set()
            return
        stream.playing.discard(asyncio.current_task())  # type: ignore[arg-type]
        if stream.half_closed and not stream.playing:
            self.trailers(stream_id, 0)

    def _ended(self, stream_id: int, stream: _Stream) -> None:
        stream.half_closed = True
        if stream.gone.is_set():
            return
        if stream.method == _STREAM:
            if not stream.playing:
                self.trailers(stream_id, 0)
            return
        answer = unary(stream.method)
        if answer is None:
            self.trailers(stream_id, _UNIMPLEMENTED, "no such method here")
            return
        self.headers(stream_id)
        self._http2.send_data(stream_id, _enveloped(answer))
        self.trailers(stream_id, 0)

    def headers(self, stream_id: int) -> None:
        """Begin the answer."""
        if not self._streams[stream_id].answered:
            self._streams[stream_id].answered = True
            self._http2.send_headers(stream_id, _HEADERS)

    def trailers(self, stream_id: int, status: int, message: str = "") -> None:
        """End the stream."""
        if self._streams[stream_id].gone.is_set():
            return
        self._streams[stream_id].gone.set()
        self.headers(stream_id)
        told = [("grpc-message", message)] if message else []
        self._http2.send_headers(stream_id, [("grpc-status", str(status)), *told], end_stream=True)
        self.flush()

    async def send(self, stream_id: int, data: bytes) -> None:
        """Write these bytes of a message now, in a frame of their own."""
        self.headers(stream_id)
        while self._http2.local_flow_control_window(stream_id) < len(data):
            self._window.clear()
            await self._window.wait()
        self._http2.send_data(stream_id, data)
        self.flush()

    def flush(self) -> None:
        """Hand what `h2` has made to the kernel."""
        if data := self._http2.data_to_send():
            self._transport.write(data)

    def reset(self) -> None:
        """Break the connection."""
        connected = self._transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class GrpcAnswer:
    """One request's responses; the `Wire` of its stream."""

    def __init__(
        self,
        connection: GrpcConnection,
        stream_id: int,
        script: StreamScript,
        played: Played,
        request: Any,
    ) -> None:
        if script.finish is Finish.APART:
            script = script.but(finish=Finish.WITH_LAST)
        self._connection, self._stream_id = connection, stream_id
        self._script, self._played = script, played
        self._head = {
            "model_name": request.model_name, "model_version": "1", "id": request.id
        }  # fmt: skip
        self._empty_final = request.parameters[_EMPTY_FINAL].bool_param
        limit = played.asked.get("sampling_parameters", {}).get("max_tokens")
        self._limit = None if limit is None else int(limit)
        self._left = len(script.within(self._limit)[0])

    async def give(self) -> None:
        """Answer."""
        refusal = self._script.refusal
        if refusal is None:
            await play(self._script, self._limit, self, self._played, usage=False)
        elif refusal.grpc_status is not None:
            self._connection.trailers(self._stream_id, refusal.grpc_status, refusal.message)
        else:
            await self.write(self._failed(refusal.message))

    def event(self, kind: Kind, piece: Piece | None, finish_reason: str | None) -> bytes:
        """A response in gRPC's envelope; none for what Triton has not."""
        apart = self._script.final_apart
        if kind is Kind.DONE and apart and self._empty_final:
            return self._response(None, None, is_final=True)
        if kind not in {Kind.PIECE, Kind.FINISH}:
            return b""
        self._left -= 1
        return self._response(piece, finish_reason, is_final=self._left <= 0 and not apart)

    async def write(self, data: bytes) -> None:
        """Send it as a frame."""
        if data:
            await self._connection.send(self._stream_id, data)

    async def break_off(self, fault: Fault) -> None:
        """Do what the fault says."""
        if fault is Fault.RESET:
            self._connection.reset()
            raise ConnectionResetError
        if fault is Fault.ERROR:
            await self.write(self._failed("the engine died"))
        elif fault is Fault.ENDED:
            self._connection.trailers(self._stream_id, 0)
        else:
            await asyncio.Event().wait()

    def _response(self, piece: Piece | None, finish_reason: str | None, *, is_final: bool) -> bytes:
        answer = service_pb2.ModelStreamInferResponse()
        response = answer.infer_response
        response.MergeFrom(service_pb2.ModelInferResponse(**self._head))
        response.parameters["triton_final_response"].bool_param = is_final
        if piece is not None or finish_reason is not None:
            text, tokens = ("", 0) if piece is None else (piece.text, piece.tokens)
            self._output(response, "text_output", "BYTES", _packed(text))
            asked = self._played.asked
            if asked.get("return_finish_reason"):
                self._output(response, "finish_reason", "BYTES", _packed(finish_reason or ""))
            if asked.get("return_num_input_tokens"):
                count = len(self._played.prompt.split())
                self._output(response, "num_input_tokens", "UINT32", struct.pack("<I", count))
            if asked.get("return_num_output_tokens"):
                self._output(response, "num_output_tokens", "UINT32", struct.pack("<I", tokens))
        return _enveloped(answer.SerializeToString())

    @staticmethod
    def _output(response: Any, name: str, datatype: str, raw: bytes) -> None:
        response.outputs.add(name=name, datatype=datatype, shape=[1])
        response.raw_output_contents.append(raw)

    def _failed(self, message: str) -> bytes:
        answer = service_pb2.ModelStreamInferResponse(error_message=message)
        answer.infer_response.id = self._head["id"]
        return _enveloped(answer.SerializeToString())


def _inputs(request: Any) -> dict[str, Any]:
    """The request's tensors: texts, truth values, and the sampling parameters as a mapping."""
    found: dict[str, Any] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            found[tensor.name] = deserialize_bytes_tensor(raw)[0].decode("utf-8", "surrogateescape")
        elif tensor.datatype == "BOOL":
            found[tensor.name] = bool(raw[0])
        else:
            found[tensor.name] = [one for (one,) in struct.iter_unpack("<i", raw)]
    found["sampling_parameters"] = json.loads(found.get("sampling_parameters") or "{}")
    return found


def _packed(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<I", len(raw)) + raw


def _message(stream: _Stream) -> bytes | None:
    """Take the next whole message off a stream."""
    if len(stream.body) < 5:
        return None
    length = int.from_bytes(stream.body[1:5], "big")
    if len(stream.body) < 5 + length:
        return None
    message, stream.body = stream.body[5 : 5 + length], stream.body[5 + length :]
    return message


def _enveloped(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()

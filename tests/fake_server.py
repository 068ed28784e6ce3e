"""A KServe v2 server whose latency is known and whose faults are chosen: the truth to measure.

HTTP (binary tensors) and gRPC on free ports of the loopback, in a thread of the test's process.
It answers every model name, each row with its own number, so that an answer says whose it is, and
repeats the request's id, as Triton does;
`described_model` is what it says of itself.
What it served, and how long it really took over it, is in `served`.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import grpc
import numpy as np
from described_model import DescribingServicer, described_over_http
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from harness.types import TensorSpec

LOGITS = TensorSpec("logits", "FP32", (4,))
TOKEN_LOGPROBS = TensorSpec("token_logprobs", "FP32", (-1,))
_TYPES = {"FP32": "<f4", "INT64": "<i8"}
PATIENCE_S = 120.0
"""For what its thread does at once, where the machine lets it."""


class Fault(StrEnum):
    """What can go wrong with an answer."""

    UNAVAILABLE = "unavailable"
    EMPTY_OUTPUT = "empty_output"
    WRONG_SHAPE = "wrong_shape"
    WRONG_DATATYPE = "wrong_datatype"
    WRONG_SIZE = "wrong_size"
    MISSING_OUTPUT = "missing_output"
    NON_FINITE = "non_finite"
    WRONG_ANSWER = "wrong_answer"
    """A tenth more than it should be."""
    WRONG_ROW = "wrong_row"
    """Each row gets its neighbour's answer."""
    RESET = "reset"
    """The connection breaks instead of an answer (HTTP only)."""
    GARBAGE = "garbage"
    """Bytes that are not the protocol (HTTP only)."""
    STALL = "stall"
    """No answer, ever."""


@dataclass(frozen=True)
class Behaviour:
    """How the server answers; may be exchanged while it runs."""

    latency_s: Callable[[int], float] = lambda _: 0.0
    """By the request's ordinal."""
    fault: Fault | None = None
    fault_every: int = 1
    """Each so-many-th request meets the fault."""
    outputs: tuple[TensorSpec, ...] = (LOGITS,)
    chunked: bool = False
    """HTTP answers come in chunks."""

    def fault_of(self, ordinal: int) -> Fault | None:
        """The fault that a request meets."""
        return self.fault if ordinal % self.fault_every == 0 else None


def constant(seconds: float) -> Callable[[int], float]:
    """The same latency for all."""
    return lambda _: seconds


def stalled_until(instant_ns: int, otherwise_s: float) -> Callable[[int], float]:
    """Nothing is answered before an instant of CLOCK_MONOTONIC, and then all at once."""
    return lambda _: max(otherwise_s, (instant_ns - time.monotonic_ns()) / 1e9)


def bimodal(fast_s: float, slow_s: float, *, slow_share: float) -> Callable[[int], float]:
    """Mostly fast, some slow, drawn by the request's ordinal."""
    return lambda ordinal: slow_s if random.Random(ordinal).random() < slow_share else fast_s


@dataclass(frozen=True)
class Served:
    """One request as the server saw it."""

    received_ns: int
    answered_ns: int
    rows: bytes
    """Raw bytes of its first input."""
    shape: tuple[int, ...]
    identity: str
    """The id that it bore."""

    @property
    def latency_ms(self) -> float:
        return (self.answered_ns - self.received_ns) / 1e6


def right_answer(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What `LOGITS` should be, for `harness.load.requests.answers`."""
    numbers = inputs["input_ids"][:, :1] + 1
    return {LOGITS.name: np.broadcast_to(numbers, (len(numbers), *LOGITS.shape)).astype("<f4")}


@dataclass
class _Answer:
    name: str
    datatype: str
    shape: list[int]
    data: bytes


@dataclass
class FakeServer:
    """A context manager: `http` and `grpc` are its addresses while it is entered."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    ports: tuple[int, int] = (0, 0)
    """HTTP, gRPC; 0 is any free one."""
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.served: list[Served] = []
        self.connections = 0
        self.held = 0
        """Requests that wait for `release`."""
        self.http = self.grpc = ""
        self._ordinal = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._up = threading.Event()
        self._stop: asyncio.Event
        self._answering: asyncio.Event

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(PATIENCE_S)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def begin(self, behaviour: Behaviour) -> None:
        """Behave anew, answer, and keep apart what is received from now on."""
        self.release()
        self.behaviour, self.served = behaviour, []

    def hold(self) -> None:
        """Answer nobody until `release`; holds by the time it returns."""
        self._let("clear")

    def release(self) -> None:
        """Answer again, those first that wait."""
        self._let("set")

    def _let(self, action: str) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(getattr(self._answering, action))
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE_S)

    def stop_soon(self) -> None:
        """Begin to stop; a behaviour may call it from within."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.stop_soon()
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop, self._answering = asyncio.Event(), asyncio.Event()
        self._answering.set()
        http = await asyncio.start_server(self._http_connection, self.host, self.ports[0])
        self.http = f"{self.host}:{http.sockets[0].getsockname()[1]}"
        rpc = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(self), rpc)
        self.grpc = f"{self.host}:{rpc.add_insecure_port(f'{self.host}:{self.ports[1]}')}"
        self.ports = int(self.http.rpartition(":")[2]), int(self.grpc.rpartition(":")[2])
        await rpc.start()
        self._up.set()
        await self._stop.wait()
        await rpc.stop(grace=None)
        http.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def next_fault(self) -> tuple[int, Fault | None]:
        self._ordinal += 1
        return self._ordinal, self.behaviour.fault_of(self._ordinal)

    async def answers(
        self, shape: tuple[int, ...], rows: bytes, identity: str, ordinal: int, fault: Fault | None
    ) -> list[_Answer]:
        """Take the time it takes, and make the outputs."""
        received_ns, served = time.monotonic_ns(), self.served
        delay_s = self.behaviour.latency_s(ordinal)
        if delay_s:
            await asyncio.sleep(delay_s)
        if not self._answering.is_set():
            self.held += 1
            try:
                await self._answering.wait()
            finally:
                self.held -= 1
        if fault is Fault.STALL:
            await self._stop.wait()
        numbers = np.frombuffer(rows, "<i8").reshape(shape)[:, 0]
        made = [_make(spec, shape, numbers, fault) for spec in self.behaviour.outputs]
        served.append(Served(received_ns, time.monotonic_ns(), rows, shape, identity))
        return made[1:] if fault is Fault.MISSING_OUTPUT else made

    async def _http_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            while True:
                await self._http_exchange(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _http_exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in head[1:] if line)
        verb, path, _ = head[0].split(" ", 2)
        if verb == "get" or path == "/v2/repository/index":
            await reader.readexactly(int(fields.get("content-length", 0)))
            described = described_over_http(path, self.behaviour.outputs)
            writer.write(_http_answer(*described, None, chunked=False))
            return
        if "content-length" not in fields:  # gRPC at the wrong door
            writer.write(_http_answer(400, b"", None, chunked=False))
            raise ConnectionError
        body = await reader.readexactly(int(fields["content-length"]))
        split = int(fields["inference-header-content-length"])
        asked = json.loads(body[:split])
        tensor = asked["inputs"][0]
        ordinal, fault = self.next_fault()
        rows = body[split : split + tensor["parameters"]["binary_data_size"]]
        identity = asked.get("id", "")
        answers = await self.answers(tuple(tensor["shape"]), rows, identity, ordinal, fault)
        if fault is Fault.RESET:
            _reset(writer)
        elif fault is Fault.GARBAGE:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        elif fault is Fault.UNAVAILABLE:
            writer.write(_http_answer(503, b'{"error":"overloaded"}', None, chunked=False))
        else:
            told: dict[str, Any] = {"id": identity} if identity else {}
            told["outputs"] = [_described(answer) for answer in answers]
            header = json.dumps(told).encode()
            raw = b"".join(answer.data for answer in answers)
            chunked = self.behaviour.chunked
            writer.write(_http_answer(200, header + raw, len(header), chunked=chunked))
        await writer.drain()


class _Servicer(DescribingServicer):
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.outputs = server.behaviour.outputs

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802  (the protocol's)
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802  (the protocol's)
        ordinal, fault = self._server.next_fault()
        shape = tuple(request.inputs[0].shape)
        rows = request.raw_input_contents[0]
        answers = await self._server.answers(shape, rows, request.id, ordinal, fault)
        if fault is Fault.UNAVAILABLE:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "overloaded")
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for answer in answers:
            response.outputs.add(name=answer.name, datatype=answer.datatype, shape=answer.shape)
            response.raw_output_contents.append(answer.data)
        return response


def _make(
    spec: TensorSpec, shape: tuple[int, ...], numbers: NDArray[np.int64], fault: Fault | None
) -> _Answer:
    batch, length = shape[0], shape[1]
    sizes = [length if size == -1 else size for size in spec.shape]
    if fault is Fault.WRONG_SHAPE:
        sizes[-1] += 1
    answers = np.roll(numbers, 1) if fault is Fault.WRONG_ROW else numbers
    values = np.ones([batch, *sizes], _TYPES[spec.datatype])
    values += answers.reshape(batch, *[1] * len(sizes)).astype(values.dtype)
    if fault is Fault.WRONG_ANSWER:
        values *= 1.1
    if fault is Fault.NON_FINITE:
        values.flat[-1] = np.nan
    datatype = "INT64" if fault is Fault.WRONG_DATATYPE else spec.datatype
    if fault is Fault.WRONG_DATATYPE:
        values = values.astype("<i8")
    data = values.tobytes()
    if fault is Fault.EMPTY_OUTPUT:
        data = b""
    if fault is Fault.WRONG_SIZE:
        data = data[:-1]
    return _Answer(spec.name, datatype, list(values.shape), data)


def _described(answer: _Answer) -> dict[str, Any]:
    return {
        "name": answer.name,
        "datatype": answer.datatype,
        "shape": answer.shape,
        "parameters": {"binary_data_size": len(answer.data)},
    }


def _http_answer(status: int, body: bytes, split: int | None, *, chunked: bool) -> bytes:
    fields = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/octet-stream"]
    if split is not None:
        fields.append(f"Inference-Header-Content-Length: {split}")
    if chunked:
        fields.append("Transfer-Encoding: chunked")
        pieces = [body[start : start + 50] for start in range(0, len(body), 50)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*fields, "", ""]).encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset instead of the orderly end."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""A KServe v2 server with known latencies: the truth that `fidelity` measures against.

A separate process, so that it shares no interpreter with a client. It answers every inference
alike, after a time drawn from the case's distribution, and writes down what each one *really*
took: from the moment the kernel received its bytes (`SO_TIMESTAMPNS`, socket(7)) to the moment its
answer was handed to the kernel. What it takes to wake this process, the timer, Python and the
protocol libraries add is thus part of the truth, as it is of any server's latency; what is not in
it is the loopback and the client. Sleeping is exact to some 50 us, because the event loop waits in
`select`, whose timeout is in microseconds (that of `epoll` is in milliseconds).

    python benchmarks/timed_server.py lognormal truth.npy    # prints its two ports

It ends when its standard input does, and then writes the log: int64 (requests, 2), received and
answered in nanoseconds of CLOCK_MONOTONIC; and beside it `truth.ids.npy`, the id of each request as
this server read it, empty where it bore none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h11
import numpy as np
from latency_cases import CASES, Stall, draw_latency
from tritonclient.grpc import service_pb2

CLASSES = 10

_LOGITS = np.arange(CLASSES, dtype="<f4")[None].tobytes()
_INFER = "ModelInfer"
_ENVELOPE_BYTES = 5
"""gRPC's, before a message: whether it is compressed, and its length."""
_HEADER_LENGTH = b"inference-header-content-length"
_GRPC_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
_GRPC_TRAILERS = [("grpc-status", "0")]

_SO_TIMESTAMPNS = 35
"""From <asm-generic/socket.h>; its message is a struct timespec of CLOCK_REALTIME."""
_TIMESPEC = struct.Struct("qq")
_RECEIVE_BYTES = 65536

Write = Callable[[bytes], None]


class Clock:
    """Draws latencies, waits for them, and keeps the log."""

    def __init__(self, draw: Callable[[int], float], loop: asyncio.AbstractEventLoop) -> None:
        self._draw = draw
        self._loop = loop
        self.log: list[tuple[int, int]] = []
        self.ids: list[str] = []

    def later(
        self, received_ns: int, identity: str, build: Callable[[], bytes], write: Write
    ) -> asyncio.TimerHandle:
        """Build and write an answer when its latency is over."""
        due_s = received_ns / 1e9 + self._draw(received_ns)
        return self._loop.call_at(due_s, self._answer, received_ns, identity, build, write)

    def _answer(
        self, received_ns: int, identity: str, build: Callable[[], bytes], write: Write
    ) -> None:
        answer = build()
        self.log.append((received_ns, time.monotonic_ns()))
        self.ids.append(identity)
        write(answer)


class Connection(ABC):
    """A socket whose bytes come with the instant at which the kernel received them."""

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket = connected
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected, self._read)

    @abstractmethod
    def take(self, data: bytes, received_ns: int) -> None:
        """What the client sent."""

    @abstractmethod
    def cancel(self) -> None:
        """Nobody waits for the answers any more."""

    def write(self, data: bytes) -> None:
        """Send an answer, all of which fits the socket's buffer, unless the client has left."""
        with suppress(OSError):
            self._socket.sendall(data)

    def _read(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(16))
        except OSError:
            data, notes = b"", []
        if data:
            self.take(data, _received_ns(notes))
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self.cancel()


def _received_ns(notes: list[tuple[int, int, bytes]]) -> int:
    """The kernel's stamp as an instant of CLOCK_MONOTONIC; now, where it gave none.

    Not the harness's own `sockets.py` on purpose: a truth must not share code with what it judges.
    """
    # In this order: losing the processor between the two makes it later than it was, not sooner.
    wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
    for _, kind, stamp in notes:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(stamp)
            waited_ns: int = wall_ns - seconds * 1_000_000_000 - nanoseconds
            return now_ns - max(0, waited_ns)
    return now_ns


class HttpConnection(Connection):
    """HTTP/1.1: one request at a time on a kept-alive connection."""

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        super().__init__(connected, clock)
        self._http = h11.Connection(h11.SERVER)
        self._received_ns = 0
        self._split = 0
        self._body = bytearray()
        self._pending: asyncio.TimerHandle | None = None

    def take(self, data: bytes, received_ns: int) -> None:
        """Answer once a whole request is there."""
        self._received_ns = self._received_ns or received_ns
        self._http.receive_data(data)
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                lengths = [int(value) for name, value in event.headers if name == _HEADER_LENGTH]
                self._split = sum(lengths)
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                identity = _http_id(self._body[: self._split])
                self._pending = self._clock.later(
                    self._received_ns, identity, self._answer, self.write
                )
                self._received_ns, self._body = 0, bytearray()
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break

    def cancel(self) -> None:
        """Forget the answer that was to come."""
        if self._pending is not None:
            self._pending.cancel()

    def _answer(self) -> bytes:
        headers = [
            ("Content-Type", "application/octet-stream"),
            ("Inference-Header-Content-Length", str(len(_HTTP_HEADER))),
            ("Content-Length", str(len(_HTTP_HEADER) + len(_LOGITS))),
        ]
        parts = [
            self._http.send(h11.Response(status_code=200, headers=headers)),
            self._http.send(h11.Data(_HTTP_HEADER + _LOGITS)),
            self._http.send(h11.EndOfMessage()),
        ]
        self._http.start_next_cycle()
        return b"".join(part for part in parts if part)


class GrpcConnection(Connection):
    """gRPC over HTTP/2 without encryption; as many streams at once as the client opens."""

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        super().__init__(connected, clock)
        self._http2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._methods: dict[int, str] = {}
        self._bodies: dict[int, bytearray] = {}
        self._pending: dict[int, asyncio.TimerHandle] = {}
        self._http2.initiate_connection()
        self.write(self._http2.data_to_send())

    def take(self, data: bytes, received_ns: int) -> None:
        """Answer the streams that the client has ended."""
        for event in self._http2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {str(name): str(value) for name, value in event.headers}
                self._methods[event.stream_id] = headers[":path"].rpartition("/")[2]
                self._bodies[event.stream_id] = bytearray()
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] += event.data
                self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._respond(received_ns, event.stream_id)
            elif isinstance(event, h2.events.StreamReset) and event.stream_id in self._pending:
                self._pending.pop(event.stream_id).cancel()
        self.write(self._http2.data_to_send())

    def _respond(self, received_ns: int, stream_id: int) -> None:
        body = self._bodies.pop(stream_id)
        if self._methods.pop(stream_id) == _INFER:
            identity = service_pb2.ModelInferRequest.FromString(bytes(body[_ENVELOPE_BYTES:])).id
            self._pending[stream_id] = self._clock.later(
                received_ns, identity, lambda: self._infer(stream_id), self.write
            )
        else:  # a question whether the server lives or is ready
            self.write(self._answer(stream_id, _GRPC_YES))

    def cancel(self) -> None:
        """Forget the answers that were to come."""
        for pending in self._pending.values():
            pending.cancel()

    def _infer(self, stream_id: int) -> bytes:
        del self._pending[stream_id]
        return self._answer(stream_id, _GRPC_ANSWER)

    def _answer(self, stream_id: int, message: bytes) -> bytes:
        self._http2.send_headers(stream_id, _GRPC_HEADERS)
        self._http2.send_data(stream_id, b"\0" + len(message).to_bytes(4, "big") + message)
        self._http2.send_headers(stream_id, _GRPC_TRAILERS, end_stream=True)
        return self._http2.data_to_send()


def _http_id(header: bytes | bytearray) -> str:
    """The id in a request's JSON; empty where it has none."""
    return str(json.loads(bytes(header)).get("id", "")) if header else ""


def _http_header() -> bytes:
    output = {
        "name": "logits",
        "datatype": "FP32",
        "shape": [1, CLASSES],
        "parameters": {"binary_data_size": len(_LOGITS)},
    }
    return json.dumps({"model_name": "timed", "outputs": [output]}).encode()


def _grpc_answer() -> bytes:
    answer = service_pb2.ModelInferResponse(model_name="timed", raw_output_contents=[_LOGITS])
    answer.outputs.add(name="logits", datatype="FP32", shape=[1, CLASSES])
    serialised: bytes = answer.SerializeToString()
    return serialised


_HTTP_HEADER = _http_header()
_GRPC_ANSWER = _grpc_answer()
_GRPC_YES = service_pb2.ServerLiveResponse(live=True).SerializeToString()


async def _accept(
    listener: socket.socket, kind: Callable[[socket.socket, Clock], Connection], clock: Clock
) -> None:
    """Serve every connection; its reader, which the loop holds, keeps it alive."""
    listener.setblocking(False)
    while True:
        connected, _ = await asyncio.get_running_loop().sock_accept(listener)
        kind(connected, clock)


async def _serve(clock: Clock) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    accepting = [
        asyncio.create_task(_accept(listener, kind, clock))
        for listener, kind in zip(listeners, (HttpConnection, GrpcConnection), strict=True)
    ]
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    # The parent keeps our standard input open for as long as it wants us.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in accepting:
        task.cancel()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("log", type=Path)
    parser.add_argument("--stall-s", type=float, default=1.0)
    parser.add_argument("--period-s", type=float, default=10.0)
    options = parser.parse_args()
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    clock = Clock(draw_latency(options.case, Stall(options.stall_s, options.period_s)), loop)
    loop.run_until_complete(_serve(clock))
    np.save(options.log, np.array(clock.log, dtype=np.int64).reshape(-1, 2))
    np.save(options.log.with_suffix(".ids.npy"), np.array(clock.ids, dtype=np.str_))


if __name__ == "__main__":
    main()

"""Servers that send tokens from plain sockets, answers made beforehand: what costs is the client.

As fast as the socket takes them, where many tokens come in one read; or at a given pace, one packet
for each. One thread serves all connections and sends when each token is due, so that tokens of
several streams come apart, as a model's do.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from multiprocessing.queues import SimpleQueue
from typing import Any

TOKENS = 128
"""Of each answer."""
KINDS = ("chat", "generate", "grpc")
STREAM = b"\0\1\2\3"
"""Stands in an answer over gRPC for the number of its stream."""
Answer = tuple[bytes, Sequence[bytes], bytes]
"""What precedes the tokens, an event for each, and what follows them; made once a connection."""


def chunk(data: bytes) -> bytes:
    """A chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chat_answer() -> Answer:
    """As vLLM writes it."""
    begin = (
        'data: {"id":"chatcmpl-00000001","object":"chat.completion.chunk",'
        '"created":1700000000,"model":"m","choices":['
    )
    delta = '{"index":0,"delta":{"content":"%s"},"logprobs":null,"finish_reason":%s}'
    events = [
        chunk(f"{begin}{delta % (f' tok{n % 997}', 'null')}]}}\n\n".encode()) for n in range(TOKENS)
    ]
    usage = f'"usage":{{"prompt_tokens":7,"completion_tokens":{TOKENS}}}'
    last = f"{begin}{delta % ('', chr(34) + 'stop' + chr(34))}]}}\n\n"
    end = [last, f"{begin}],{usage}}}\n\n", "data: [DONE]\n\n"]
    return HEAD, events, b"".join(chunk(one.encode()) for one in end) + b"0\r\n\r\n"


def generate_answer() -> Answer:
    """As Triton writes it."""

    def event(text: str, tokens: int, reason: str) -> bytes:
        told = f'"num_input_tokens":7,"num_output_tokens":{tokens},"text_output":"{text}"'
        body = f'{{"finish_reason":"{reason}","model_name":"m","model_version":"1",{told}}}'
        return chunk(f"data: {body}\n\n".encode())

    events = [event(f" tok{n % 997}", 1, "") for n in range(TOKENS)]
    return HEAD, events, event("", 0, "stop") + b"0\r\n\r\n"


def grpc_answer() -> Answer:
    """As Triton writes it: a DATA frame for each response."""
    from tritonclient.grpc import service_pb2

    from harness.load.transports.grpc import frames
    from harness.load.transports.grpc.headers import encode_headers

    stream = int.from_bytes(STREAM, "big")

    def event(text: str, tokens: int, reason: str) -> bytes:
        response = service_pb2.ModelStreamInferResponse()
        told = response.infer_response
        told.model_name, told.model_version, told.id = "m", "1", "0" * 24
        for name, datatype, raw in (
            ("text_output", "BYTES", struct.pack("<I", len(text)) + text.encode()),
            ("finish_reason", "BYTES", struct.pack("<I", len(reason)) + reason.encode()),
            ("num_output_tokens", "UINT32", struct.pack("<I", tokens)),
        ):
            told.outputs.add(name=name, datatype=datatype, shape=[1])
            told.raw_output_contents.append(raw)
        message = response.SerializeToString()
        return frames.make_frame(
            frames.DATA, 0, stream, struct.pack(">BI", 0, len(message)) + message
        )

    head = encode_headers([(":status", "200"), ("content-type", "application/grpc")])
    trailers = encode_headers([("grpc-status", "0")])
    last = frames.END_HEADERS | frames.END_STREAM
    return (
        frames.make_frame(frames.HEADERS, frames.END_HEADERS, stream, head),
        [event(f" tok{n % 997}", 1, "") for n in range(TOKENS)],
        event("", 0, "stop") + frames.make_frame(frames.HEADERS, last, stream, trailers),
    )


ANSWERS: dict[str, Callable[[], Answer]] = {
    "chat": chat_answer,
    "generate": generate_answer,
    "grpc": grpc_answer,
}
SHORTEST_REQUEST = 64
"""What comes beside requests, acknowledgements of settings and windows, is shorter."""
_RECEIVE_BYTES = 65536


def serve(ports: SimpleQueue[int], kind: str, gap_s: float, sent: Any) -> None:
    """Answer every request on every connection, for ever.

    Args:
        ports: told where.
        kind: of `ANSWERS`.
        gap_s: between the tokens of a stream; 0 sends answers whole.
        sent: a shared number, which counts packets.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    ports.put(listener.getsockname()[1])
    clients: dict[socket.socket, _Client] = {}
    due: list[tuple[float, int, socket.socket, Iterator[bytes]]] = []
    numbers = count()
    while True:
        left_s = due[0][0] - time.monotonic() if due else None
        readable = select.select([listener, *clients], (), (), left_s and max(0.0, left_s))[0]
        for connected in readable:
            if connected is listener:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[accepted] = _Client(accepted, kind)
                continue
            try:
                parts = clients[connected].parts_of_answer(whole=not gap_s)
            except OSError:
                del clients[connected]
                continue
            if parts is not None:
                begin_s = time.monotonic() + random.uniform(0.0, gap_s)  # noqa: S311  (no secret)
                heappush(due, (begin_s, next(numbers), connected, parts))
        while due and due[0][0] <= time.monotonic():
            at_s, _, connected, parts = heappop(due)
            part = next(parts, None)
            if part is None or connected not in clients:
                continue
            try:
                connected.sendall(part)
            except OSError:
                del clients[connected]
                continue
            sent.value += 1
            heappush(due, (at_s + gap_s, next(numbers), connected, parts))


class _Client:
    """One connection."""

    def __init__(self, connected: socket.socket, kind: str) -> None:
        self._connected = connected
        self._answer = ANSWERS[kind]()
        self._stream = -1
        self._greets = kind == "grpc"

    def parts_of_answer(self, *, whole: bool) -> Iterator[bytes] | None:
        """Read what came; if it is a request, the packets of its answer.

        Raises:
            OSError: the client has gone.
        """
        came = self._connected.recv(_RECEIVE_BYTES)
        if not came:
            raise ConnectionResetError
        if self._greets:
            self._greets = False
            from harness.load.transports.grpc import frames

            widest = frames.make_window_update(0, 2**30)
            self._connected.sendall(frames.make_settings({}) + widest)
            return None
        if len(came) < SHORTEST_REQUEST:
            return None
        self._stream += 2
        number = self._stream.to_bytes(4, "big")
        head, events, end = self._answer
        parts = (b"".join((head, *events, end)),) if whole else (head, *events, end)
        return (part.replace(STREAM, number) for part in parts)

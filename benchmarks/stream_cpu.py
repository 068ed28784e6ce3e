"""Client CPU per streamed token, against servers that send faster than any model writes.

    .venv/bin/python benchmarks/stream_cpu.py [--seconds 5] [--streams 8]

Each server is a process of plain sockets whose answers are made before the load; the client is the
harness's own, as one generator process runs it: transports under gevent, the closed loop, the
recorder, reports ten times per second. Two speeds: as fast as the socket takes tokens, where many
come in one read, and one packet per token at a given pace, where each costs a waking of the event
loop. The CPU is that of the client's whole process, divided by the tokens that it recorded.
"""

from __future__ import annotations

import argparse
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import Process, get_context
from multiprocessing.queues import SimpleQueue
from typing import Any

TOKENS = 512
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


def serve(ports: SimpleQueue[int], kind: str, gap_s: float) -> None:
    """Answer every request on every connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    ports.put(listener.getsockname()[1])
    while True:
        connected, _ = listener.accept()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer_all, args=(connected, kind, gap_s), daemon=True).start()


def _answer_all(connected: socket.socket, kind: str, gap_s: float) -> None:
    number = -1
    head, events, end = ANSWERS[kind]()
    whole = b"".join((head, *events, end))
    if kind == "grpc":
        from harness.load.transports.grpc import frames

        connected.recv(65536)
        connected.sendall(frames.make_settings({}) + frames.make_window_update(0, 2**30))
    while piece := connected.recv(65536):
        if len(piece) < SHORTEST_REQUEST:
            continue
        number += 2
        stream = number.to_bytes(4, "big")
        for part in (head, *events, end) if gap_s else (whole,):
            connected.sendall(part.replace(STREAM, stream))
            time.sleep(gap_s)


def drive(port: int, kind: str, streams: int, seconds: float) -> tuple[int, float, dict[str, int]]:
    """Tokens, CPU seconds and failures of a client with so many streams at a time."""
    from gevent import monkey

    monkey.patch_all()
    import gevent

    from harness.load.engine.closed_loop import ClosedLoop, Ending
    from harness.load.engine.recorder import Recorder
    from harness.load.engine.streams import StreamSink
    from harness.load.requests.answers import AnswerCheck
    from harness.load.requests.generation import GenerationRequest, encode_requests
    from harness.load.transports.address import parse_target
    from harness.load.transports.opening import stream_opener
    from harness.types import Generation, StreamApi, WireProtocol
    from harness_locust.triton_users import read_waiter

    protocol = WireProtocol.GRPC if kind == "grpc" else WireProtocol.HTTP
    generation = Generation(StreamApi.CHAT if kind == "chat" else StreamApi.TRITON)
    target = parse_target(f"127.0.0.1:{port}")
    opener: Any = stream_opener(generation, protocol, target, timeout_s=30.0, waiter=read_waiter)
    requests = encode_requests(
        [GenerationRequest("say " * 32, TOKENS)], generation, protocol, target, "m"
    )
    begun_ns = time.monotonic_ns()
    recorder, ending = Recorder(begun_ns, 50_000_000), Ending(begun_ns + int(seconds * 1e9))
    slices: list[Any] = []

    def use() -> None:
        transport = opener()
        transport.connect()
        sink = StreamSink(recorder, transport)
        ClosedLoop(transport, requests, AnswerCheck(), sink).run(ending)
        transport.close()

    def report() -> None:
        while True:
            gevent.sleep(0.1)
            slices.extend(recorder.take())

    before_s = time.process_time()
    users, reporter = [gevent.spawn(use) for _ in range(streams)], gevent.spawn(report)
    gevent.joinall(users)
    reporter.kill()
    slices.extend(recorder.take())
    cpu_s = time.process_time() - before_s
    failures = {kind: number for one in slices for kind, number in one.failures.items()}
    return sum(one.streams.output_tokens for one in slices), cpu_s, failures


def measured(
    results: SimpleQueue[Any], kind: str, gap_s: float, streams: int, seconds: float
) -> None:
    """One row, in a process of its own: patching is for good."""
    ports: SimpleQueue[int] = get_context().SimpleQueue()
    server = Process(target=serve, args=(ports, kind, gap_s))
    server.start()
    try:
        results.put(drive(ports.get(), kind, streams, seconds))
    finally:
        server.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each interface and speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--gap-ms", type=float, default=2.0, help="between packets of one stream")
    options = parser.parse_args(arguments)
    print(f"{'interface':<10} {'server':<22} {'tokens':>9} {'tokens/s':>9} {'CPU us/token':>13}")
    for gap_s in (0.0, options.gap_ms / 1e3):
        for kind in KINDS:
            results: SimpleQueue[Any] = get_context().SimpleQueue()
            job = (results, kind, gap_s, options.streams, options.seconds)
            process = Process(target=measured, args=job)
            process.start()
            tokens, cpu_s, failures = results.get()
            process.join()
            speed = f"a packet per {options.gap_ms:g} ms" if gap_s else "as fast as can be"
            cost = 1e6 * cpu_s / max(1, tokens)
            row = f"{kind:<10} {speed:<22} {tokens:>9,} {tokens / options.seconds:>9,.0f}"
            print(f"{row} {cost:>13.2f}" + (f"  failed: {failures}" if failures else ""))


if __name__ == "__main__":
    main()

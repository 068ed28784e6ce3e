"""Answers over gRPC frame by frame: whole before their request was sent, or a token at a time."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from http2_server import ANSWER_HEADERS, OK_TRAILERS, Peer, envelope, scripted_server
from hyperframe import frame as frames
from tritonclient.grpc import service_pb2

from harness.load.requests.generation import GenerationRequest, encode_requests
from harness.load.transports.streams.grpc import GrpcStreamTransport
from harness.load.transports.streams.tokens import TokenStream
from harness.types import Generation, StreamApi, WireProtocol

LONG = "word " * 60_000
"""300,000 bytes: several times what a server takes before it gives way to more."""


def event(text: str, reason: str) -> bytes:
    """A response of a stream, as Triton writes it."""
    response = service_pb2.ModelStreamInferResponse()
    told = response.infer_response
    told.model_name = "m"
    for name, value in (("text_output", text), ("finish_reason", reason)):
        told.outputs.add(name=name, datatype="BYTES", shape=[1])
        told.raw_output_contents.append(struct.pack("<I", len(value)) + value.encode())
    told.outputs.add(name="num_output_tokens", datatype="UINT32", shape=[1])
    told.raw_output_contents.append(struct.pack("<I", 1))
    return envelope(response.SerializeToString())


def asked(script: Callable[[Peer], None], prompt: str) -> TokenStream:
    """What a client gets of a server that acts so."""
    with scripted_server(script) as server:
        transport = GrpcStreamTransport(server.target, timeout_s=20.0)
        (request,) = encode_requests(
            [GenerationRequest(prompt, 8)],
            Generation(StreamApi.TRITON),
            WireProtocol.GRPC,
            server.target,
            "m",
        )
        transport.send(request.body)
        transport.close()
    stream: TokenStream = transport.stream
    return stream


def test_an_answer_that_ends_while_its_request_waits_for_the_server_s_window_is_read() -> None:
    """The server never takes the rest of the prompt: no window is given, and none is needed."""

    def script(peer: Peer) -> None:
        peer.greet()
        number = peer.wait_for(frames.HeadersFrame).stream_id
        peer.wait_for(frames.DataFrame, stream_id=number)
        peer.send(
            peer.headers(number, ANSWER_HEADERS),
            frames.DataFrame(number, event("early ", "") + event("answer", "stop")),
            peer.headers(number, OK_TRAILERS, "END_STREAM"),
        )
        peer.wait_for_end()

    stream = asked(script, LONG)
    assert stream.answer == "early answer"
    assert stream.tokens == [1, 1]
    assert (stream.finish_reason, stream.reported_tokens) == ("stop", 2)


def test_tokens_that_are_recognised_are_given_back_to_the_connection_s_window(monkeypatch) -> None:
    """All of them, and not a byte of their frames' headers: a wider window is an error."""
    monkeypatch.setattr("harness.load.transports.grpc.http2.TOP_UP_BYTES", 100)
    sent = [event(f"w{number} ", "") for number in range(8)] + [event("end", "stop")]
    given: list[int] = []

    def script(peer: Peer) -> None:
        peer.greet()
        number = peer.wait_for(frames.HeadersFrame).stream_id
        peer.wait_for(frames.DataFrame, stream_id=number)
        peer.send(peer.headers(number, ANSWER_HEADERS))
        for one in sent:
            time.sleep(0.02)  # a read for each
            peer.send(frames.DataFrame(number, one))
        while sum(given) < sum(map(len, sent)):
            given.append(peer.wait_for(frames.WindowUpdateFrame, stream_id=0).window_increment)
        peer.send(peer.headers(number, OK_TRAILERS, "END_STREAM"))
        peer.wait_for_end()

    stream = asked(script, "words")
    assert stream.answer == "w0 w1 w2 w3 w4 w5 w6 w7 end"
    assert sum(given) == sum(map(len, sent))

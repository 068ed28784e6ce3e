"""Streams and connections that end: resets, farewells, stalls, broken rules."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import hpack
import numpy as np
import pytest
from http2_client import IDS, LARGE, MESSAGE, failure_of, greeted, send_all, transport_to
from http2_server import ANSWER_HEADERS, Peer, raw_frame, scripted_server
from hyperframe import frame as frames

from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.frame_socket import IDLE_S
from harness.load.transports.grpc.http2_stream import Stream

# Streams and connections that end


@pytest.mark.parametrize(
    ("code", "kind", "word"),
    [
        (7, "grpc_UNAVAILABLE", "REFUSED_STREAM"),
        (8, "grpc_CANCELLED", "CANCEL"),
        (0xB, "grpc_RESOURCE_EXHAUSTED", "ENHANCE_YOUR_CALM"),
        (2, "grpc_INTERNAL", "INTERNAL_ERROR"),
        (0x77, "grpc_INTERNAL", "error 0x77"),
    ],
)
@pytest.mark.parametrize("after", ["nothing", "headers", "an answer before"])
def test_a_reset_stream_fails_and_the_connection_goes_on(
    code: int, kind: str, word: str, after: str
) -> None:
    def script(peer: Peer) -> None:
        if after == "an answer before":
            peer.serve()
        number = peer.request().stream_id
        if after != "nothing":
            peer.send(peer.headers(number, ANSWER_HEADERS))
        peer.send(frames.RstStreamFrame(number, code))
        peer.serve()

    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        if after == "an answer before":
            transport.send(transport.encode("m", {"input_ids": IDS}))
        failure = failure_of(transport)
        assert failure.kind == kind
        assert word in str(failure)
        send_all(transport)


def test_late_frames_of_a_reset_stream_are_ignored_but_not_their_headers() -> None:
    def script(peer: Peer) -> None:
        peer.encoder = hpack.Encoder()  # so that the ignored block matters
        first = peer.request().stream_id
        peer.send(frames.RstStreamFrame(first, 8))
        second = peer.request().stream_id
        peer.send(
            peer.headers(first, ANSWER_HEADERS),
            frames.DataFrame(first, MESSAGE),
            frames.WindowUpdateFrame(first, 5),
            frames.RstStreamFrame(first, 8),
        )
        peer.answer(second)

    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        assert failure_of(transport).kind == "grpc_CANCELLED"
        send_all(transport)


def test_a_graceful_farewell_lets_the_answer_come_and_then_a_new_connection_is_made() -> None:
    def leaving(peer: Peer) -> None:
        number = peer.request().stream_id
        peer.send(frames.GoAwayFrame(0, last_stream_id=2**31 - 1))
        peer.send(frames.GoAwayFrame(0, last_stream_id=number))
        peer.answer(number)
        peer.wait_for_end()

    with scripted_server(greeted(leaving), greeted(lambda peer: peer.serve(2))) as server:
        send_all(transport_to(server.target), 3)
    assert len(server.peers) == 2


def test_a_farewell_that_leaves_the_request_out_is_a_failure() -> None:
    def leaving(peer: Peer) -> None:
        peer.request()
        peer.send(
            frames.GoAwayFrame(
                0, last_stream_id=0, error_code=11, additional_data=b"too_many_pings"
            )
        )
        peer.wait_for_end()

    with scripted_server(greeted(leaving), greeted(Peer.serve)) as server:
        transport = transport_to(server.target)
        failure = failure_of(transport)
        assert failure.kind == "connection"
        assert "ENHANCE_YOUR_CALM too_many_pings" in str(failure)
        send_all(transport)


@pytest.mark.parametrize("farewell", [True, False])
def test_a_connection_closed_while_idle_costs_no_request(farewell: bool) -> None:
    def leaving(peer: Peer) -> None:
        peer.serve()
        if farewell:
            peer.send(frames.GoAwayFrame(0, last_stream_id=1))
            peer.wait_for_end()

    with scripted_server(greeted(leaving), greeted(Peer.serve)) as server:
        transport = transport_to(server.target)
        transport.send(transport.encode("m", {"input_ids": IDS}))
        time.sleep(20 * IDLE_S)
        send_all(transport)


@pytest.mark.parametrize("way", [Peer.close, Peer.reset])
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_connection_that_breaks_under_a_request(way: Callable[[Peer], None], when: str) -> None:
    def leaving(peer: Peer) -> None:
        number = peer.request().stream_id
        if when == "within":
            peer.send(peer.headers(number, ANSWER_HEADERS), b"\0\0")
        way(peer)

    with scripted_server(greeted(leaving), greeted(Peer.serve)) as server:
        transport = transport_to(server.target)
        assert failure_of(transport).kind == "connection"
        send_all(transport)


def test_when_stream_numbers_run_out_a_new_connection_is_made() -> None:
    with scripted_server(greeted(Peer.serve), greeted(lambda peer: peer.serve(2))) as server:
        transport = transport_to(server.target)
        transport.connect()
        transport._connection._stream = last_but_one = Stream(2**31 - 3, 0)
        last_but_one.ended = True
        send_all(transport, 3)
    assert [frame.stream_id for frame in server.peers[0].got if frame.stream_id] == [2**31 - 1] * 2


def test_an_answer_before_the_request_was_all_sent() -> None:
    def script(peer: Peer) -> None:
        number = peer.wait_for(frames.HeadersFrame).stream_id
        refusal = [*ANSWER_HEADERS, ("grpc-status", "8"), ("grpc-message", "too large")]
        peer.send(peer.headers(number, refusal, "END_STREAM"))
        assert peer.wait_for(frames.RstStreamFrame).error_code == 8  # CANCEL
        peer.send(frames.WindowUpdateFrame(0, 10**6))
        peer.serve()

    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        failure = failure_of(transport, LARGE)
        assert str(failure) == "grpc_RESOURCE_EXHAUSTED: too large"
        send_all(transport)


# Time


@pytest.mark.parametrize("until", ["connected", "greeted", "sending", "dripping", "closed"])
def test_a_stall_is_a_timeout_wherever_it_happens(until: str) -> None:
    def script(peer: Peer) -> None:
        if until != "connected":
            peer.greet()
        if until == "dripping":
            peer.request()
            while True:
                peer.send(frames.PingFrame(0, b"12345678"))
                time.sleep(0.02)
        peer.wait_for_end() if until != "sending" else time.sleep(1)

    def tolerant(peer: Peer) -> None:
        with suppress(OSError):
            script(peer)

    ids = np.zeros((1, 2**20), np.int64) if until == "sending" else IDS
    with scripted_server(tolerant) as server:
        transport = transport_to(server.target, timeout_s=0.3)
        start = time.monotonic()
        failure = failure_of(transport, ids)
        assert failure.kind == "timeout"
        assert 0.29 < time.monotonic() - start < 2
        transport.close()


def test_after_a_timeout_the_next_request_has_a_connection_of_its_own() -> None:
    with scripted_server(greeted(Peer.wait_for_end), greeted(lambda peer: peer.serve(3))) as server:
        transport = transport_to(server.target, timeout_s=0.3)
        assert failure_of(transport).kind == "timeout"
        send_all(transport, 3)


# Broken rules


def bad_frames() -> dict[str, tuple[bytes, int]]:
    """Each breaks a rule, for stream 1; and the error code that RFC 9113 wants."""
    status = hpack.Encoder().encode(ANSWER_HEADERS)
    head = frames.HeadersFrame(1, status, flags=["END_HEADERS"]).serialize()
    return {
        "short ping": (raw_frame(6, 0, b"123"), 6),
        "ping on a stream": (raw_frame(6, 1, b"12345678"), 1),
        "odd settings": (raw_frame(4, 0, b"12345"), 6),
        "settings on a stream": (raw_frame(4, 1, b""), 1),
        "window too large": (frames.SettingsFrame(0, settings={4: 2**31}).serialize(), 3),
        "short reset": (raw_frame(3, 1, b"12"), 6),
        "short window update": (raw_frame(8, 0, b"12"), 6),
        "short goaway": (raw_frame(7, 0, b"1234"), 6),
        "push": (frames.PushPromiseFrame(1, 2, flags=["END_HEADERS"]).serialize(), 1),
        "data first": (frames.DataFrame(1, b"x").serialize(), 1),
        "headers thrice": (head * 2, 1),
        "continuation of nothing": (frames.ContinuationFrame(1, b"").serialize(), 1),
        "interrupted block": (
            frames.HeadersFrame(1, status).serialize() + frames.PingFrame(0, bytes(8)).serialize(),
            1,
        ),
        "another's continuation": (
            frames.HeadersFrame(1, status).serialize()
            + frames.ContinuationFrame(3, b"", flags=["END_HEADERS"]).serialize(),
            1,
        ),
        "headers of no stream": (head.replace(b"\0\0\0\1", bytes(4), 1), 1),
        "data of a later stream": (head + frames.DataFrame(9, b"x").serialize(), 1),
        "a stream of the server's": (head + frames.RstStreamFrame(2, 0).serialize(), 1),
        "padding": (head + raw_frame(0, 1, b"\x09ab", flags=8), 1),
        "garbage block": (
            frames.HeadersFrame(1, b"\xff\xff", flags=["END_HEADERS"]).serialize(),
            9,
        ),
        "huge frame": (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", 6),
        "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", 6),
    }


@pytest.mark.parametrize("name", bad_frames())
def test_a_broken_rule_ends_the_connection_and_the_next_request_works(name: str) -> None:
    sent, code = bad_frames()[name]

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(sent)
        assert peer.wait_for(frames.GoAwayFrame).error_code == code

    with scripted_server(greeted(script), greeted(Peer.serve)) as server:
        transport = transport_to(server.target)
        assert failure_of(transport).kind == "malformed"
        send_all(transport)


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frames.PingFrame(0, bytes(8)).serialize()]
)
def test_what_does_not_greet_does_not_speak_http2(first: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(first)
        peer.wait_for_end()

    with scripted_server(script) as server, pytest.raises(RequestFailure, match="HTTP/2") as caught:
        transport_to(server.target).connect()
    assert caught.value.kind == "malformed"

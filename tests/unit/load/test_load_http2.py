"""gRPC's HTTP/2 against a server that plays every case of the book, good and bad."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import hpack
import numpy as np
import pytest
from http2_server import ANSWER_HEADERS, Peer, envelope, infer_response, raw_frame, scripted_server
from hyperframe import frame as frames

from harness.load.transports.address import Target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.frame_socket import IDLE_S
from harness.load.transports.grpc import GrpcTransport
from harness.load.transports.hpack_headers import encode_headers
from harness.load.transports.http2_stream import Stream

IDS = np.arange(8, dtype=np.int64).reshape(1, 8)
LARGE = np.zeros((1, 50_000), np.int64)  # 400,000 bytes: six first windows
MESSAGE = envelope(infer_response())

PLAIN_HEADERS = encode_headers(ANSWER_HEADERS)


def transport_to(target: Target, timeout_s: float = 10) -> GrpcTransport:
    return GrpcTransport(target, timeout_s=timeout_s)


def send_all(transport: GrpcTransport, count: int = 1, ids: np.ndarray = IDS) -> None:
    """Send requests that must be answered, and close."""
    request = transport.encode("m", {"input_ids": ids})
    for _ in range(count):
        answer = transport.send(request)
        (output,) = answer.layout.outputs
        assert (output.name, output.shape) == ("logits", (1, 2))
        assert answer.bytes_of(output) == bytes(8)
    transport.close()


def failure_of(transport: GrpcTransport, ids: np.ndarray = IDS) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        transport.send(transport.encode("m", {"input_ids": ids}))
    return caught.value


def greeted(script: Callable[[Peer], object]) -> Callable[[Peer], None]:
    def run(peer: Peer) -> None:
        peer.greet()
        script(peer)

    return run


# What the client says


def test_the_greeting_opens_the_windows_wide_and_forbids_a_shared_table() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.serve(2)
        peer.wait_for_end()

    with scripted_server(script) as server:
        send_all(transport_to(server.target), 2)
    settings, window, acknowledged, *rest = server.peers[0].got
    assert settings.settings == {1: 0, 2: 0, 4: 2**31 - 1, 5: 2**20}
    assert (window.stream_id, window.window_increment) == (0, 2**31 - 1 - 65_535)
    assert acknowledged.flags == {"ACK"}
    kinds = [type(frame).__name__ for frame in rest]
    assert kinds == ["HeadersFrame", "DataFrame"] * 2 + ["GoAwayFrame"]
    assert [frame.stream_id for frame in rest[:4]] == [1, 1, 3, 3]


def test_the_request_headers_are_grpcs() -> None:
    requests = []

    def script(peer: Peer) -> None:
        requests.extend(peer.serve())

    with scripted_server(greeted(script)) as server:
        target = Target("127.0.0.1", server.target.port, headers=(("Authorization", "Bearer x"),))
        send_all(transport_to(target, timeout_s=2.5))
    assert requests[0].headers == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": server.target.authority,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": "2500000u",
        "authorization": "Bearer x",
    }


# Flow control


def test_a_large_body_waits_for_the_servers_windows() -> None:
    """Never more than 65,535 bytes ahead, on the connection as on the stream."""
    sizes = []

    def script(peer: Peer) -> None:
        ahead = total = 0
        number = peer.wait_for(frames.HeadersFrame).stream_id
        while total < len(LARGE.tobytes()):
            data = peer.wait_for(frames.DataFrame)
            ahead, total = ahead + len(data.data), total + len(data.data)
            sizes.append(len(data.data))
            assert ahead <= 65_535
            if ahead == 65_535 or total > len(LARGE.tobytes()):
                peer.send(
                    frames.WindowUpdateFrame(number, ahead), frames.WindowUpdateFrame(0, ahead)
                )
                ahead = 0
        if "END_STREAM" not in data.flags:
            peer.wait_for(frames.DataFrame, flags={"END_STREAM"})
        peer.answer(number)

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), ids=LARGE)
    assert max(sizes) == 16_384


def test_a_first_window_smaller_than_a_frame() -> None:
    """Also one that was made smaller while the stream was open: the window may go below zero."""

    def script(peer: Peer) -> None:
        peer.greet({4: 100})
        number = peer.wait_for(frames.HeadersFrame).stream_id
        assert len(peer.wait_for(frames.DataFrame).data) == 100
        peer.send(frames.SettingsFrame(0, settings={4: 40}))  # 60 below zero
        peer.send(frames.WindowUpdateFrame(number, 70))
        assert len(peer.wait_for(frames.DataFrame).data) == 10
        peer.send(frames.SettingsFrame(0, settings={4: 1_000_000}))
        peer.wait_for(frames.DataFrame, flags={"END_STREAM"})
        peer.answer(number)

    ids = np.zeros((1, 1000), np.int64)
    with scripted_server(script) as server:
        send_all(transport_to(server.target), ids=ids)


def test_the_connections_window_runs_out_over_many_small_requests() -> None:
    def script(peer: Peer) -> None:
        ahead = 0
        for _ in range(8):
            request = peer.request()
            ahead += len(request.body)
            assert ahead <= 65_535
            if ahead > 40_000:
                peer.send(frames.WindowUpdateFrame(0, ahead))
                ahead = 0
            peer.answer(request.stream_id)

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 8, np.zeros((1, 1500), np.int64))


def test_the_answers_window_is_topped_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.load.transports.http2.TOP_UP_BYTES", 100)

    def script(peer: Peer) -> None:
        peer.serve(3)
        update = peer.wait_for(frames.WindowUpdateFrame)
        assert (update.stream_id, update.window_increment) == (0, len(MESSAGE) * 3)

    assert len(MESSAGE) * 2 < 100 <= len(MESSAGE) * 3
    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 3)


@pytest.mark.parametrize("stream_id", [0, 1])
@pytest.mark.parametrize("increment", [0, 2**31 - 1])
def test_a_window_that_cannot_be(stream_id: int, increment: int) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        update = frames.WindowUpdateFrame(stream_id, 1).serialize()[:-4]
        peer.send(update + increment.to_bytes(4, "big"))
        assert peer.wait_for(frames.GoAwayFrame).error_code == 3  # FLOW_CONTROL_ERROR

    with scripted_server(greeted(script)) as server:
        assert failure_of(transport_to(server.target)).kind == "malformed"


# The server's other frames


def test_pings_settings_and_unknown_frames_between_the_pieces_of_an_answer() -> None:
    def script(peer: Peer) -> None:
        number = peer.request().stream_id
        half = len(MESSAGE) // 2
        peer.send(
            frames.PingFrame(0, b"12345678"),
            frames.SettingsFrame(0, settings={3: 10}),
            peer.headers(number, [(":status", "103")]),
            peer.headers(number, ANSWER_HEADERS),
            raw_frame(0xBE, number, b"grease", flags=0xFF),
            frames.PriorityFrame(number, depends_on=0),
            frames.DataFrame(number, MESSAGE[:half], pad_length=9, flags=["PADDED"]),
            frames.DataFrame(number, b""),
            frames.DataFrame(number, MESSAGE[half:]),
            peer.headers(number, [("grpc-status", "0")], "END_STREAM"),
            frames.RstStreamFrame(number, 0),
        )
        assert peer.wait_for(frames.PingFrame).opaque_data == b"12345678"
        assert peer.wait_for(frames.SettingsFrame).flags == {"ACK"}
        peer.serve()

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 2)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_answers_in_small_pieces(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.split = size
        peer.serve(3)

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 3)


def test_headers_with_padding_priority_and_continuations() -> None:
    def script(peer: Peer) -> None:
        number = peer.request().stream_id
        block = peer.encoder.encode(ANSWER_HEADERS)
        head = frames.HeadersFrame(number, block[:5], pad_length=3, flags=["PADDED", "PRIORITY"])
        peer.send(
            head,
            frames.ContinuationFrame(number, block[5:7]),
            frames.ContinuationFrame(number, block[7:], flags=["END_HEADERS"]),
            frames.DataFrame(number, MESSAGE),
            frames.HeadersFrame(number, b"", flags=["END_STREAM"]),
            frames.ContinuationFrame(
                number, peer.encoder.encode([("grpc-status", "0")]), flags=["END_HEADERS"]
            ),
        )

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target))


def test_a_server_that_indexes_headers_whatever_it_was_told() -> None:
    """Its table changes with every varying field; each block depends on all before it."""

    def script(peer: Peer) -> None:
        peer.encoder = hpack.Encoder()  # 4,096 bytes of table
        for index in range(120):
            number = peer.request().stream_id
            varying = [*ANSWER_HEADERS, ("x-request-id", f"{index // 3:060d}")]
            peer.answer(number, headers=varying)

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 120)


def test_a_form_of_answer_that_was_learned_is_forgotten_when_its_bytes_mean_something_else() -> (
    None
):
    """The same byte is `grpc-status: 0` at first and `grpc-status: 13` later."""
    sent = []

    def script(peer: Peer) -> None:
        peer.encoder = hpack.Encoder()
        for status in ["0", "0", "0", "13", "13"]:
            number = peer.request().stream_id
            block = peer.encoder.encode([("grpc-status", status)])
            sent.append(block)
            peer.send(
                # Named by the static table alone, so that these bytes stay as they are.
                frames.HeadersFrame(number, PLAIN_HEADERS, flags=["END_HEADERS"]),
                frames.DataFrame(number, MESSAGE),
                frames.HeadersFrame(number, block, flags=["END_HEADERS", "END_STREAM"]),
            )

    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        request = transport.encode("m", {"input_ids": IDS})
        for _ in range(3):
            assert transport.send(request)
        for _ in range(2):
            with pytest.raises(RequestFailure, match="grpc_INTERNAL"):
                transport.send(request)
        transport.close()
    assert sent[1] == sent[2] == sent[4] != sent[3]


@pytest.mark.parametrize("update", ["none", "before", "behind"])
def test_answers_that_are_recognised_whole_count_like_others(update: str) -> None:
    """Their bytes differ in the stream, the body and the window's widening, and nothing else."""
    contents = [bytes([index] * 8) for index in range(40)]
    bodies = [envelope(infer_response(content)) for content in contents]

    def script(peer: Peer) -> None:
        ahead = 0
        for body in bodies:
            request = peer.request()
            ahead += len(request.body)
            assert ahead <= 65_535
            widened = frames.WindowUpdateFrame(0, len(request.body)).serialize()
            ahead -= len(request.body) if update != "none" else 0
            number = request.stream_id
            peer.send(
                widened if update == "before" else b"",
                peer.headers(number, ANSWER_HEADERS),
                frames.DataFrame(number, body),
                peer.headers(number, [("grpc-status", "0")], "END_STREAM"),
                widened if update == "behind" else b"",
            )

    rows = 1000 if update != "none" else 8
    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        request = transport.encode("m", {"input_ids": np.zeros((1, rows), np.int64)})
        answers = [transport.send(request) for _ in bodies]
        forms = transport._connection._whole_answers._forms
        transport.close()
    assert [one.bytes_of(one.layout.outputs[0]) for one in answers] == contents
    assert len(forms) == 1


def test_a_ping_while_idle_is_answered_before_the_next_request() -> None:
    def script(peer: Peer) -> None:
        peer.serve()
        peer.send(frames.PingFrame(0, b"idleidle"))
        peer.serve()
        kinds = [type(frame).__name__ for frame in peer.got]
        assert kinds.index("PingFrame") < len(kinds) - 2

    with scripted_server(greeted(script)) as server:
        transport = transport_to(server.target)
        request = transport.encode("m", {"input_ids": IDS})
        transport.send(request)
        time.sleep(20 * IDLE_S)
        transport.send(request)
        transport.close()


def test_a_ping_behind_an_answer_does_not_stay_unanswered() -> None:
    def script(peer: Peer) -> None:
        number = peer.request().stream_id
        peer.send(
            peer.headers(number, ANSWER_HEADERS),
            frames.DataFrame(number, MESSAGE),
            peer.headers(number, [("grpc-status", "0")], "END_STREAM"),
            frames.PingFrame(0, b"12345678"),
        )
        assert isinstance(peer.receive(), frames.SettingsFrame | frames.PingFrame)
        peer.serve()

    with scripted_server(greeted(script)) as server:
        send_all(transport_to(server.target), 2)


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

"""Answers between, in and behind every other frame that a server may send."""

from __future__ import annotations

import time

import hpack
import numpy as np
import pytest
from http2_client import IDS, MESSAGE, PLAIN_HEADERS, greeted, send_all, transport_to
from http2_server import ANSWER_HEADERS, Peer, envelope, infer_response, raw_frame, scripted_server
from hyperframe import frame as frames

from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.frame_socket import IDLE_S


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

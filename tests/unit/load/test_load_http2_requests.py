"""What the client says over HTTP/2, and how it keeps to the server's windows."""

from __future__ import annotations

import numpy as np
import pytest
from http2_client import LARGE, MESSAGE, failure_of, greeted, send_all, transport_to
from http2_server import Peer, scripted_server
from hyperframe import frame as frames

from harness.load.transports.address import Target
from harness.load.transports.grpc import http2_stream
from harness.load.transports.grpc.http2_stream import cut_request, frame_request

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


def test_only_requests_that_are_cut_are_remembered_and_those_until_the_load_ends() -> None:
    http2_stream.forget_requests()
    small, large = frame_request(b"h", b"x" * 16_384), frame_request(b"h", b"x" * 100_000)
    assert cut_request(large) is None
    assert http2_stream._cut.cache_info().currsize == 0
    found = cut_request(small)
    assert found is not None
    assert found.data_bytes == 16_384
    assert cut_request(small) is found
    assert cut_request(frame_request(b"h", b"x" * 16_385)) is None
    http2_stream.forget_requests()
    assert http2_stream._cut.cache_info().currsize == 0


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
    monkeypatch.setattr("harness.load.transports.grpc.http2.TOP_UP_BYTES", 100)

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

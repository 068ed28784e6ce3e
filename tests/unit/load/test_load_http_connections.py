"""The HTTP transport in time and place: deadlines, addresses, TLS, crowds."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from http1_server import Peer, ScriptedServer, kserve_answer, make_certificate
from http_client import ONE, TWO, ask, kind_of_failure, talking_to, values

from harness.load.transports.address import Target, parse_target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.http import http1
from harness.load.transports.http import transport as http
from harness.load.transports.http.connections import IDLE_S
from harness.load.transports.http.transport import HttpTransport


def test_a_stall_a_drip_and_a_stalled_upload_end_at_the_deadline() -> None:
    def stall(peer: Peer) -> None:
        peer.request()
        peer.wait_for_end()

    def drip(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        while True:
            peer.say(b".")
            time.sleep(0.02)

    def drip_to_close(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.wait_for_end()

    def never_read(peer: Peer) -> None:
        time.sleep(2)

    scripts = (stall, drip, drip_to_close, never_read, lambda peer: peer.answer(ONE))
    with talking_to(ScriptedServer(*scripts), timeout_s=0.3) as transport:
        for _ in range(3):
            started_s = time.monotonic()
            assert kind_of_failure(transport) == "timeout"
            assert 0.3 <= time.monotonic() - started_s < 1.5
        large = transport.encode("m", {"x": np.ones((64, 200_000), np.float32)})
        with pytest.raises(RequestFailure, match=r"timeout: no answer from .* in 0\.3 s"):
            transport.send(large)
        assert values(ask(transport)) == [1.5]


def test_answers_just_in_time_leave_the_next_request_alone() -> None:
    def slowly(peer: Peer) -> None:
        for _ in range(6):
            peer.request()
            time.sleep(0.5)
            peer.say(ONE)

    with talking_to(server := ScriptedServer(slowly), timeout_s=2.0) as transport:
        assert [values(ask(transport)) for _ in range(6)] == [[1.5]] * 6
    assert server.connections == 1


def test_nobody_listening_and_nobody_of_that_name_are_connection_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for target, words in (
        (Target("127.0.0.1", port), "Connection refused"),
        (Target("nobody.invalid", 1), "nobody.invalid:1: "),
    ):
        transport = HttpTransport(target, timeout_s=60)
        with pytest.raises(RequestFailure, match=words) as caught:
            transport.connect()
        assert caught.value.kind == "connection"
        assert kind_of_failure(transport) == "connection"
        transport.close()
        transport.close()


def test_ipv6_and_headers_reach_the_server() -> None:
    server = ScriptedServer(lambda peer: peer.answer(ONE), host="::1")
    headers = (("Authorization", "Bearer abc"), ("host", "triton.example"))
    with server:
        transport = HttpTransport(parse_target(server.address, headers=headers), timeout_s=5)
        assert values(ask(transport)) == [1.5]
        transport.close()
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"Authorization: Bearer abc" in head
    assert [line for line in head if line.lower().startswith(b"host")] == [b"host: triton.example"]


def test_tls_with_its_own_authority_without_and_unverified(tmp_path: Path) -> None:
    certificate, context = make_certificate(tmp_path)

    def split(peer: Peer) -> None:
        peer.request()
        peer.say(ONE[:50], ONE[50:])
        peer.answer(TWO)

    with ScriptedServer(split, split, split, tls=context) as server:
        address = f"https://{server.address}"
        for target in (
            parse_target(address, ca_file=certificate),
            parse_target(address, verify=False),
        ):
            transport = HttpTransport(target, timeout_s=5)
            assert [values(ask(transport)) for _ in range(2)] == [[1.5], [2.5]]
            transport.close()
        stranger = HttpTransport(parse_target(address), timeout_s=5)
        with pytest.raises(RequestFailure, match=r"connection: .*certificate verify failed"):
            stranger.connect()


def test_over_tls_too_an_idle_close_is_noticed_and_a_stall_ends(tmp_path: Path) -> None:
    _, context = make_certificate(tmp_path)

    def stall(peer: Peer) -> None:
        peer.request()
        peer.wait_for_end()

    with ScriptedServer(lambda p: p.answer(ONE), lambda p: p.answer(TWO), stall, tls=context) as s:
        transport = HttpTransport(parse_target(f"https://{s.address}", verify=False), timeout_s=0.5)
        assert values(ask(transport)) == [1.5]
        time.sleep(IDLE_S + 0.1)
        assert values(ask(transport)) == [2.5]
        time.sleep(IDLE_S + 0.1)
        assert kind_of_failure(transport) == "timeout"


def test_tls_to_a_plain_server_and_a_handshake_that_stalls_are_failures() -> None:
    def plain(peer: Peer) -> None:
        peer.read_some()
        peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def silent(peer: Peer) -> None:
        peer.wait_for_end()

    with ScriptedServer(plain, silent) as server:
        transport = HttpTransport(parse_target(f"https://{server.address}"), timeout_s=0.5)
        assert kind_of_failure(transport) == "connection"
        assert kind_of_failure(transport) == "timeout"


def test_an_interrupted_request_leaves_no_answer_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    server = ScriptedServer(lambda peer: peer.answer(ONE), lambda peer: peer.answer(TWO))
    with talking_to(server) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(http._forms, "recall", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ask(transport)
        assert values(ask(transport)) == [2.5]


def test_what_is_remembered_of_a_hostile_server_is_bounded() -> None:
    sizes = [kserve_answer(*[1.0] * size, extra="x" * size) for size in range(1, 400)]
    with talking_to(ScriptedServer(lambda peer: peer.answer(*sizes))) as transport:
        for size in range(1, 400):
            assert len(values(ask(transport))) == size
    known = http._forms._by_length
    assert len(known) <= 256
    assert all(len(forms) <= 4 for forms in known.values())
    assert http1.parse_head.cache_info().maxsize == 64


UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, threading
import numpy as np
from harness.load.transports.address import parse_target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.http.transport import HttpTransport
target = parse_target(sys.argv[1])
outcomes = []
def user():
    transport = HttpTransport(target, timeout_s=3)
    request = transport.encode("m", {"x": np.ones((1, 4), np.int64)})
    for _ in range(3):
        try:
            outcomes.append(len(transport.send(request).layout.outputs))
        except RequestFailure as failure:
            outcomes.append(failure.kind)
users = [threading.Thread(target=user) for _ in range(64)]
for one in users: one.start()
for one in users: one.join()
print(outcomes.count(1), outcomes.count("timeout"))
"""


def test_many_users_under_gevent_get_answers_and_timeouts() -> None:
    def answer_then_stall(peer: Peer) -> None:
        peer.answer(ONE)
        peer.request()
        peer.say(*(TWO[i : i + 40] for i in range(0, len(TWO), 40)))
        peer.request()
        peer.wait_for_end()

    with ScriptedServer(*[answer_then_stall] * 64) as server:
        ended = subprocess.run(
            [sys.executable, "-c", UNDER_GEVENT, server.address],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (ended.stdout, ended.stderr) == ("128 64\n", "")


def test_many_threads_share_what_is_remembered() -> None:
    forms = [kserve_answer(*[float(size)] * size) for size in range(1, 9)]
    wrong = []

    def user(server: ScriptedServer) -> None:
        transport = HttpTransport(parse_target(server.address), timeout_s=10)
        wrong.extend(
            number for number in range(40) if len(values(ask(transport))) != number % 8 + 1
        )
        transport.close()

    with ScriptedServer(*[lambda peer: peer.answer(*forms * 5)] * 16) as server:
        users = [threading.Thread(target=user, args=(server,)) for _ in range(16)]
        for one in users:
            one.start()
        for one in users:
            one.join(30)
    assert len(server.requests) == 16 * 40
    assert wrong == []

"""The HTTP transport over real sockets: every way a server may answer, or fail to."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from http1_server import Peer, ScriptedServer, kserve_answer, make_certificate

from harness.load.transports import http, http1
from harness.load.transports.address import Target, parse_target
from harness.load.transports.contract import Answer, RequestFailure
from harness.load.transports.http import HttpTransport

IDS = np.arange(8, dtype=np.int64).reshape(2, 4)
ONE, TWO, WIDE = kserve_answer(1.5), kserve_answer(2.5), kserve_answer(1.0, 2.0)


@contextmanager
def talking_to(server: ScriptedServer, *, timeout_s: float = 5.0) -> Iterator[HttpTransport]:
    with server:
        transport = HttpTransport(parse_target(server.address), timeout_s=timeout_s)
        try:
            yield transport
        finally:
            transport.close()


def ask(transport: HttpTransport) -> Answer:
    return transport.send(transport.encode("m", {"ids": IDS}))


def values(answer: Answer) -> list[float]:
    (output,) = answer.layout.outputs
    assert (output.name, output.datatype) == ("logits", "FP32")
    numbers: list[float] = np.frombuffer(answer.bytes_of(output), "<f4").tolist()
    assert output.shape == (1, len(numbers))
    return numbers


def kind_of_failure(transport: HttpTransport) -> str:
    with pytest.raises(RequestFailure) as caught:
        ask(transport)
    return caught.value.kind


def test_answers_of_one_form_are_recognised_and_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with talking_to(ScriptedServer(lambda peer: peer.answer(ONE, TWO, WIDE, ONE))) as transport:
        first = ask(transport)
        with monkeypatch.context() as patched:
            patched.setattr(http, "read_message", lambda *_: pytest.fail("read again"))
            second = ask(transport)
        third, fourth = ask(transport), ask(transport)
    assert [values(one) for one in (first, second, third)] == [[1.5], [2.5], [1.0, 2.0]]
    assert first.layout is second.layout is fourth.layout
    assert third.layout is not first.layout


def test_two_forms_of_one_length_are_told_apart() -> None:
    other = ONE.replace(b'"logits"', b'"labels"')
    assert len(other) == len(ONE)
    with talking_to(ScriptedServer(lambda peer: peer.answer(*[ONE, other] * 3))) as transport:
        answers = [ask(transport) for _ in range(6)]
    names = [answer.layout.outputs[0].name for answer in answers]
    assert names == ["logits", "labels"] * 3
    assert len({id(answer.layout) for answer in answers}) == 2


def test_heads_that_vary_are_read_right_and_share_their_layout() -> None:
    answers = [kserve_answer(float(i), extra=f"id-{i:04d}") for i in range(40)]
    answers += [kserve_answer(float(i), fields=f"Date: {i:04d}\r\n") for i in range(40, 80)]
    with talking_to(ScriptedServer(lambda peer: peer.answer(*answers))) as transport:
        came = [ask(transport) for _ in answers]
    assert [values(answer) for answer in came] == [[float(i)] for i in range(80)]
    assert len({id(answer.layout) for answer in came}) == 2


def test_an_answer_may_come_byte_by_byte() -> None:
    def drip(peer: Peer) -> None:
        for answer in (ONE, TWO):
            peer.request()
            peer.say(*(answer[i : i + 1] for i in range(len(answer))))
        peer.answer(ONE)

    with talking_to(ScriptedServer(drip)) as transport:
        assert [values(ask(transport)) for _ in range(3)] == [[1.5], [2.5], [1.5]]


def test_a_chunked_answer_and_one_that_ends_with_the_connection() -> None:
    head, _, body = ONE.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    open_head = b"\r\n".join(lines)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:20], body[20:]))
    chunked = open_head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    to_close = open_head + b"\r\n\r\n" + body
    server = ScriptedServer(lambda peer: peer.answer(chunked, to_close), lambda p: p.answer(TWO))
    with talking_to(server) as transport:
        assert [values(ask(transport)) for _ in range(3)] == [[1.5], [1.5], [2.5]]
    assert server.connections == 2


def test_a_huge_answer_comes_whole() -> None:
    numbers = [float(i % 1000) for i in range(300_000)]
    huge = kserve_answer(*numbers)
    with talking_to(ScriptedServer(lambda peer: peer.answer(huge, ONE, huge))) as transport:
        assert values(ask(transport)) == numbers
        assert values(ask(transport)) == [1.5]
        assert values(ask(transport)) == numbers


def test_a_huge_request_goes_whole() -> None:
    server = ScriptedServer(lambda peer: peer.answer(ONE))
    with talking_to(server, timeout_s=60.0) as transport:  # the scripted server reads it slowly
        request = transport.encode("m", {"x": np.ones((64, 100_000), np.float32)})
        assert values(transport.send(request)) == [1.5]
    assert server.requests == [request]


def test_a_connection_that_the_server_says_it_closes_is_not_used_again() -> None:
    last = ONE.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")
    server = ScriptedServer(lambda peer: peer.answer(last), lambda peer: peer.answer(TWO))
    with talking_to(server) as transport:
        assert [values(ask(transport)) for _ in range(2)] == [[1.5], [2.5]]


def test_a_refusal_is_a_failure_with_the_servers_words_and_the_connection_lives() -> None:
    refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: 17\r\n\r\n" + b'{"error":"queue"}'
    with talking_to(server := ScriptedServer(lambda p: p.answer(refusal, ONE))) as transport:
        with pytest.raises(RequestFailure, match=r'http_503: \{"error":"queue"\}'):
            ask(transport)
        assert values(ask(transport)) == [1.5]
    assert server.connections == 1


def test_a_refusal_before_the_request_was_read_is_still_heard() -> None:
    def refuse(peer: Peer) -> None:
        peer.read_some()
        peer.say(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")

    with talking_to(ScriptedServer(refuse, lambda peer: peer.answer(ONE))) as transport:
        request = transport.encode("m", {"x": np.ones((64, 200_000), np.float32)})
        with pytest.raises(RequestFailure, match="http_413: big"):
            transport.send(request)
        assert values(ask(transport)) == [1.5]


def test_a_connection_closed_while_idle_is_replaced_before_anything_is_sent() -> None:
    server = ScriptedServer(lambda peer: peer.answer(ONE), lambda peer: peer.answer(TWO))
    with talking_to(server) as transport:
        assert values(ask(transport)) == [1.5]
        time.sleep(http.IDLE_S + 0.1)
        assert values(ask(transport)) == [2.5]
    assert (server.connections, len(server.requests)) == (2, 2)


def test_what_breaks_under_a_request_is_a_failure_and_is_not_sent_again() -> None:
    def close_unanswered(peer: Peer) -> None:
        peer.request()

    def reset_unanswered(peer: Peer) -> None:
        peer.request()
        peer.reset()

    def close_halfway(peer: Peer) -> None:
        peer.answer(ONE[:-1])

    scripts = (close_unanswered, reset_unanswered, close_halfway, lambda p: p.answer(ONE))
    with talking_to(server := ScriptedServer(*scripts)) as transport:
        assert [kind_of_failure(transport) for _ in range(3)] == ["connection"] * 3
        assert values(ask(transport)) == [1.5]
    assert len(server.requests) == server.connections == 4


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ONE + ONE, ONE + b"more"])
def test_garbage_is_malformed_and_its_connection_is_given_up(garbage: bytes) -> None:
    server = ScriptedServer(lambda peer: peer.answer(garbage), lambda peer: peer.answer(TWO))
    with talking_to(server) as transport:
        assert kind_of_failure(transport) == "malformed"
        assert values(ask(transport)) == [2.5]
    assert server.connections == 2


@pytest.mark.parametrize(
    "body",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ONE.replace(b'"binary_data_size": 4', b'"binary_data_size": 9'),
        ONE.replace(b"Header-Content-Length: ", b"Header-Content-Length: 9"),
    ],
)
def test_a_body_that_is_not_kserve_is_malformed_each_time(body: bytes) -> None:
    server = ScriptedServer(lambda peer: peer.answer(body, body, TWO))
    with talking_to(server) as transport:
        assert [kind_of_failure(transport) for _ in range(2)] == ["malformed"] * 2
        assert values(ask(transport)) == [2.5]
    assert server.connections == 1


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
            time.sleep(0.15)
            peer.say(ONE)

    with talking_to(server := ScriptedServer(slowly), timeout_s=0.3) as transport:
        assert [values(ask(transport)) for _ in range(6)] == [[1.5]] * 6
    assert server.connections == 1


def test_nobody_listening_and_nobody_of_that_name_are_connection_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for target, words in (
        (Target("127.0.0.1", port), "Connection refused"),
        (Target("nobody.invalid", 1), "nobody.invalid:1: "),
    ):
        transport = HttpTransport(target, timeout_s=5)
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
        time.sleep(http.IDLE_S + 0.1)
        assert values(ask(transport)) == [2.5]
        time.sleep(http.IDLE_S + 0.1)
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
from harness.load.transports.http import HttpTransport
target = parse_target(sys.argv[1])
outcomes = []
def user():
    transport = HttpTransport(target, timeout_s=1)
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

"""The HTTP transport over real sockets: every way a server may answer, or fail to."""

from __future__ import annotations

import time

import numpy as np
import pytest
from http1_server import Peer, ScriptedServer, kserve_answer
from http_client import ONE, TWO, WIDE, ask, kind_of_failure, talking_to, values

from harness.load.transports.contract import MARK, WIDTH, RequestFailure
from harness.load.transports.http import transport as http
from harness.load.transports.http.connections import IDLE_S


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
    answers = [kserve_answer(float(i), extra=f"no-{i:04d}") for i in range(40)]
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
    at = request.index(MARK)
    (came,) = server.requests
    assert came == request[:at] + came[at : at + WIDTH] + request[at + WIDTH :]


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
        time.sleep(IDLE_S + 0.1)
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

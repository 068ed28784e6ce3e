"""HTTP/1.1 framing: any cut into pieces gives the same answer; what is not HTTP is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.transports.http import http1
from harness.load.transports.http.http1 import (
    Message,
    ProtocolViolation,
    StreamEnd,
    parse_head,
    read_message,
)

PLACES = st.lists(st.integers(0, 2000), max_size=5)
OK = b"HTTP/1.1 200 OK\r\n"


def read(*pieces: bytes) -> Message:
    """What is made of an answer that comes in these pieces, after which the server closes."""
    coming = iter(pieces)
    receive: Callable[[], bytes] = lambda: next(coming, b"")  # noqa: E731
    return read_message(receive(), receive)


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(text), *(place % len(text) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


@given(st.binary(max_size=300), PLACES)
def test_an_answer_of_known_length_may_come_in_any_pieces(body: bytes, places: list[int]) -> None:
    answer = b"%bcontent-LENGTH: %d\r\nX: y\r\n\r\n%b" % (OK, len(body), body)
    message = read(*cut(answer, places))
    assert (message.head.status, message.head.keep_alive) == (200, True)
    assert message.data == answer
    assert message.body == body


@given(
    st.lists(st.binary(min_size=1, max_size=80), max_size=4),
    PLACES,
    st.sampled_from([b"", b"Checksum: 1\r\n", b"A: 1\r\nB: 2\r\n"]),
)
def test_a_chunked_answer_may_come_in_any_pieces(
    chunks: list[bytes], places: list[int], trailer: bytes
) -> None:
    framed = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n" + trailer + b"\r\n"
    message = read(*cut(answer, places))
    assert message.head.keep_alive
    assert message.body == b"".join(chunks)


@given(st.binary(max_size=300), PLACES)
def test_an_answer_without_length_ends_with_the_connection(body: bytes, places: list[int]) -> None:
    message = read(*cut(OK + b"\r\n" + body, places))
    assert message.body == body
    assert not message.head.keep_alive


def test_interim_answers_are_passed_over() -> None:
    answer = OK + b"Content-Length: 2\r\n\r\nok"
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    message = read(b"HTTP/1.1 100 Continue\r\n\r\n" + early + answer)
    assert (message.head.status, message.data) == (200, answer)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_never_have_a_body(status: int) -> None:
    message = read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)
    assert message.body == b""


def test_a_change_of_protocol_is_an_answer_and_ends_the_connection() -> None:
    message = read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")
    assert (message.head.status, message.head.keep_alive) == (101, False)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 0", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", False),
    ],
)
def test_whether_a_connection_may_be_kept(fields: bytes, kept: bool) -> None:
    assert parse_head(fields + b"\r\n\r\n").keep_alive is kept


def test_chunks_rule_over_a_length() -> None:
    fields = b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert read(OK + fields + b"2\r\nab\r\n0\r\n\r\n").body == b"ab"


def test_a_length_may_be_said_twice_and_a_value_folded() -> None:
    assert parse_head(OK + b"Content-Length: 5, 5\r\nX: a\r\n b\r\n\r\n").content_length == 5


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        OK + b"Content-Length: -4\r\n\r\n",
        OK + b"Content-Length: 4, 5\r\n\r\n",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n",
        OK + b"Content-Length: %d\r\n\r\n" % 10**12,
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b": nameless\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        *(
            OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
            for chunks in (b"zz\r\n", b"2\r\nabcd", b"0x2\r\nab\r\n", b"-1\r\n", b"+2\r\nab\r\n",
                           b"1_0\r\n", b"\r\n", b"FFFFFFFFFFFF\r\n", b"1" * 20 + b"\r\n")
        ),
        OK + b"X: " + b"x" * 70_000,
        OK + b"Content-Length: 1\r\n\r\nab",
        OK + b"Content-Length: 1\r\n\r\na" + OK,
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 9\r\n\r\nhalf",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\na",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_the_server_closing_early_is_an_error(answer: bytes) -> None:
    with pytest.raises(StreamEnd):
        read(answer)


def test_an_endless_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "MAX_BODY_BYTES", 1000)
    with pytest.raises(ProtocolViolation, match="1200 bytes or more"):
        read_message(OK + b"\r\n", lambda: b"x" * 400)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_nothing_that_comes_breaks_the_reader(pieces: list[bytes]) -> None:
    # A message or an error of its own; any other exception would escape.
    for start in (b"", OK, OK + b"Content-Length: ", OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            outcome: object = read(start, *filter(None, pieces))
        except (ProtocolViolation, StreamEnd) as error:
            outcome = error
        assert isinstance(outcome, Message | ProtocolViolation | StreamEnd)


@given(st.binary(max_size=120))
def test_no_head_breaks_the_parser(text: bytes) -> None:
    try:
        head = parse_head(OK + text)
    except ProtocolViolation:
        return
    assert head.status == 200
    assert head.content_length is None or 0 <= head.content_length <= http1.MAX_BODY_BYTES

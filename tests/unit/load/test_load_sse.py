"""Server-sent events, however the network cuts them, and the HTTP bodies that carry them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.load.transports.http.http1 import ProtocolViolation, parse_head
from harness.load.transports.streams import sse
from harness.load.transports.streams.body import ArrivingBody, body_of
from harness.load.transports.streams.sse import EventStream

END = {"\n": b"\n", "\r\n": b"\r\n", "\r": b"\r"}


def by_the_standard(data: bytes) -> list[bytes]:
    """The HTML standard's algorithm, line by line (9.2.6), of the events' data alone."""
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, _ = text.split(b"\n")
    events: list[bytes] = []
    buffer = b""
    for line in lines:
        if not line:
            if buffer:
                events.append(buffer.removesuffix(b"\n"))
            buffer = b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            if field == b"data":
                buffer += value.removeprefix(b" ") + b"\n"
    return events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


lines = st.sampled_from(
    [b"data: {}", b"data:x", b"data", b"data: a b", b": keep-alive", b":", b"event: m", b"id: 1",
     b"retry: 5", b"", b"", b"data:  two", b"datum: no", b"data: \xe4\xb8", b"data: \xad"]
)  # fmt: skip
streams = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20),
).map(lambda drawn: drawn[0] + b"".join(line + end for line, end in drawn[1]))


@example(b"\xef\xbb\xbfdata: {}\n\n", [1, 2])
@given(streams, st.lists(st.integers(0, 400), max_size=8))
def test_events_are_the_standard_s_however_the_bytes_are_cut(
    data: bytes, places: list[int]
) -> None:
    events = EventStream()
    found = [event for piece in cut(data, places) for event in events.feed(piece)]
    assert found == by_the_standard(data)


def test_an_event_is_there_as_soon_as_its_last_byte_is() -> None:
    events = EventStream()
    assert events.feed(b"data: a\r") == []
    assert events.feed(b"\n\r") == [b"a"]
    assert events.feed(b"\ndata: b\n\ndata: c\n\ndata: d") == [b"b", b"c"]
    assert events.rest == b"data: d"


def test_an_event_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(ProtocolViolation, match="an event of more than 100 bytes"):
        EventStream().feed(b"data: " + b"x" * 200)


def body(head: str) -> ArrivingBody:
    return body_of(parse_head(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode()))


@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=8),
    st.lists(st.integers(0, 400), max_size=10),
    st.sampled_from([b"", b";name=value"]),
    st.sampled_from([b"", b"Trailer: x\r\n"]),
)
def test_chunks_are_passed_on_as_they_come(
    chunks: list[bytes], places: list[int], extension: bytes, trailer: bytes
) -> None:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in chunks)
    framed += b"0\r\n" + trailer + b"\r\n"
    reading, came, expected = body("Transfer-Encoding: chunked"), b"", b"".join(chunks)
    for piece in cut(framed, places):
        assert not reading.ended
        came += reading.feed(piece)
    assert (came, reading.ended) == (expected, True)


def test_part_of_a_chunk_is_passed_on_before_the_rest_has_come() -> None:
    reading = body("Transfer-Encoding: chunked")
    assert reading.feed(b"10\r\ndata: a\n\n") == b"data: a\n\n"
    assert not reading.close()


def test_bodies_of_a_known_length_and_those_that_end_with_the_connection() -> None:
    known, open_end = body("Content-Length: 4"), body("Connection: close")
    assert (known.feed(b"ab"), known.ended, known.feed(b"cd"), known.ended) == (
        b"ab", False, b"cd", True,
    )  # fmt: skip
    assert (open_end.feed(b"ab"), open_end.ended, open_end.close()) == (b"ab", False, True)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        ("Transfer-Encoding: chunked", b"2\r\nabX\r\n"),
        ("Transfer-Encoding: chunked", b"zz\r\n"),
        ("Transfer-Encoding: chunked", b"1" * 2000),
        ("Transfer-Encoding: chunked", b"0\r\n\r\nHTTP/1.1"),
        ("Content-Length: 2", b"abc"),
    ],
)
def test_what_is_not_framed_as_the_head_says_is_refused(head: str, piece: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        body(head).feed(piece)

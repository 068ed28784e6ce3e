"""Pieces that are recognised whole say what they say when they are taken apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.transports.http.http1 import ProtocolViolation
from harness.load.transports.streams.answer import AnswerReader, Frames
from harness.load.transports.streams.body import ChunkedBody, PlainBody
from harness.load.transports.streams.events import EventReader, parse_generate
from harness.load.transports.streams.tokens import TokenStream

Read = tuple[list[bytes], list[int], list[int], str | None]


def event(text: str, token: int | None = None, **fields: Any) -> bytes:
    """An event of `/generate_stream`."""
    ids = {} if token is None else {"token_ids": token}
    body = {"finish_reason": "", "num_output_tokens": 1, "text_output": text, **ids, **fields}
    return b"data: %b\n\n" % json.dumps(body, ensure_ascii=False).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def read(pieces: Sequence[bytes], *, recognising: bool, frames: Frames | None = None) -> Read:
    stream = TokenStream()
    reader = EventReader(stream, parse_generate)
    answer = AnswerReader(ChunkedBody(), reader, {} if frames is None else frames)
    for at_ns, piece in enumerate(pieces):
        if not (recognising and answer.recognise(piece, at_ns)):
            answer.take(piece, at_ns)
    return stream.texts, stream.times_ns, stream.tokens, stream.finish_reason


texts = st.text(st.sampled_from(list('ab "\\\n\r{}:\u00e9\u2028')), min_size=1, max_size=3)
events = st.builds(
    event, texts, st.none() | st.integers(0, 120), num_output_tokens=st.integers(0, 2)
)
comments = st.sampled_from([b": alive\n\n", b":\n", b"event: message\n", b"\n\n", b"\r\n"])


@given(
    st.lists(st.lists(events | comments, min_size=1, max_size=3), max_size=40),
    st.lists(st.integers(0, 3000), max_size=5),
    st.booleans(),
)
def test_however_an_answer_is_cut_and_joined_it_reads_the_same(
    written: list[list[bytes]], cuts: list[int], one_by_one: bool
) -> None:
    chunks = [chunk(b"".join(one)) for one in written]
    chunks += [chunk(event("", finish_reason="stop")), b"0\r\n\r\n"]
    if one_by_one:
        pieces = chunks
    else:
        whole = b"".join(chunks)
        edges = sorted({0, len(whole), *(one for one in cuts if one < len(whole))})
        pieces = [whole[a:b] for a, b in pairwise(edges)]
    frames: Frames = {}
    plain = read(pieces, recognising=False)
    assert read(pieces, recognising=True, frames=frames) == plain
    assert read(pieces, recognising=True, frames=frames) == plain  # by what the first has taught


WORDS = [f"w{number:02}" for number in range(20)]
TAKEN = 2
"""Events of an answer that are taken apart: the first may begin with a byte order mark."""


@pytest.mark.parametrize(
    "framed",
    [chunk, lambda data: chunk(data).upper().replace(data.upper(), data), lambda data: data],
    ids=["chunks", "chunks of large digits", "no chunks"],
)
def test_all_but_the_first_events_are_recognised(framed: Callable[[bytes], bytes]) -> None:
    stream = TokenStream()
    pieces = [framed(event(word)) for word in WORDS]
    body = PlainBody(None) if pieces[0].startswith(b"data") else ChunkedBody()
    answer = AnswerReader(body, EventReader(stream, parse_generate), {})
    for at_ns, piece in enumerate(pieces):
        assert answer.recognise(piece, at_ns) == (at_ns >= TAKEN)
        if at_ns < TAKEN:
            answer.take(piece, at_ns)
    assert [text.decode() for text in stream.texts] == WORDS
    assert stream.times_ns == list(range(20))


def begun() -> AnswerReader:
    """The reader of an answer that has brought tokens enough to be recognised."""
    answer = AnswerReader(ChunkedBody(), EventReader(TokenStream(), parse_generate), {})
    for at_ns in range(TAKEN):
        answer.take(chunk(event("w00")), at_ns)
    return answer


def test_an_event_in_a_chunk_of_another_size_is_no_chunk() -> None:
    """It is as long as those before, and its chunk is said to be shorter than it is."""
    answer = begun()
    good = chunk(event("w01"))
    bad = b"%x" % (int(good[:2], 16) - 1) + good[2:]
    assert not answer.recognise(bad, 7)
    with pytest.raises(ProtocolViolation):
        answer.take(bad, 7)


@pytest.mark.parametrize("opening", [chunk(b": begun"), chunk(event("w00"))[:-1], b"5\r\n"])
def test_nothing_is_recognised_within_an_event_or_a_chunk(opening: bytes) -> None:
    answer = begun()
    answer.take(opening, 7)
    assert not answer.recognise(chunk(event("w01")), 8)

"""Frames and header blocks, compared with `hyperframe` and `hpack` encoders of our peers."""

from __future__ import annotations

from contextlib import suppress

import hpack
import pytest
from hyperframe import frame as theirs
from hypothesis import given
from hypothesis import strategies as st

from harness.load.transports.grpc import frames
from harness.load.transports.grpc.frames import ErrorCode, FrameReader, Http2Violation
from harness.load.transports.grpc.headers import (
    MAX_BLOCK_BYTES,
    HeaderBlocks,
    encode_headers,
)
from harness.load.transports.grpc.http2_stream import (
    frame_request,
    frames_within,
    number_frames,
    split_frame,
)

some_frames = st.lists(
    st.tuples(
        st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=60)
    ),
    max_size=8,
)


@given(some_frames, st.data())
def test_frames_come_out_however_the_network_split_them(sent, data) -> None:
    wire = b"".join(frames.make_frame(*frame) for frame in sent)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12).map(sorted))
    takes_after_each = data.draw(st.booleans())
    reader, got = FrameReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        if start == end:
            continue
        reader.feed(wire[start:end])
        while takes_after_each and (frame := reader.next()) is not None:
            got.append(frame)
    while (frame := reader.next()) is not None:
        got.append(frame)
    assert got == sent
    assert reader.is_empty


def test_a_plain_frame_of_data_is_told_from_all_else() -> None:
    plain = frames.make_frame(frames.DATA, 0, 7, b"token")
    assert frames.data_alone(plain, 7) == b"token"
    others = [
        plain[:-1],
        plain[:8],
        b"",
        plain + plain,
        frames.make_frame(frames.DATA, frames.END_STREAM, 7, b"token"),
        frames.make_frame(frames.DATA, 0, 9, b"token"),
        frames.make_frame(frames.PING, 0, 7, b"token"),
    ]
    assert [frames.data_alone(one, 7) for one in others] == [None] * len(others)


def test_a_large_frame_says_what_is_missing() -> None:
    reader = FrameReader()
    wire = frames.make_frame(frames.DATA, 0, 1, bytes(100_000))
    reader.feed(wire[:50])
    assert reader.next() is None
    assert reader.missing_bytes == len(wire) - 50
    reader.feed(wire[50:90_000])
    assert reader.next() is None
    assert reader.missing_bytes == len(wire) - 90_000
    reader.feed(wire[90_000:])
    assert reader.next() == (frames.DATA, 0, 1, bytes(100_000))


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_text_is_no_frame(text: bytes) -> None:
    reader = FrameReader()
    reader.feed(text)
    with pytest.raises(Http2Violation, match="no frame of HTTP/2"):
        reader.next()


def test_frames_are_what_others_read() -> None:
    settings, length = theirs.Frame.parse_frame_header(
        memoryview(frames.make_settings({1: 0, 4: 2**31 - 1})[:9])
    )
    settings.parse_body(memoryview(frames.make_settings({1: 0, 4: 2**31 - 1})[9:]))
    assert (settings.settings, length) == ({1: 0, 4: 2**31 - 1}, 12)
    assert frames.make_window_update(3, 77) == theirs.WindowUpdateFrame(3, 77).serialize()
    assert frames.make_rst_stream(5, ErrorCode.CANCEL) == theirs.RstStreamFrame(5, 8).serialize()
    assert frames.make_goaway(ErrorCode.NO_ERROR) == theirs.GoAwayFrame(0).serialize()


@given(st.binary(max_size=50), st.integers(0, 40))
def test_padding_is_taken_off(content: bytes, padding: int) -> None:
    padded = theirs.DataFrame(1, content, pad_length=padding, flags=["PADDED"]).serialize()
    assert frames.without_padding(padded[4], padded[9:]) == content


@pytest.mark.parametrize("payload", [b"", b"\x05abc"])
def test_more_padding_than_frame(payload: bytes) -> None:
    with pytest.raises(Http2Violation, match="padding"):
        frames.without_padding(frames.PADDED, payload)


def test_numbers_and_settings_of_wrong_size() -> None:
    for read in (frames.read_settings, frames.read_goaway):
        with pytest.raises(Http2Violation) as caught:
            read(b"12345")
        assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR
    with pytest.raises(Http2Violation, match="PING of 3 bytes"):
        frames.read_number("PING", b"123")


def test_error_codes_have_names() -> None:
    assert frames.name_of(7) == "REFUSED_STREAM"
    assert frames.name_of(99) == "error 0x63"


@given(st.binary(min_size=1, max_size=60_000), st.lists(st.integers(1, 20_000), min_size=1))
def test_a_body_arrives_whole_through_any_windows(body: bytes, windows: list[int]) -> None:
    framed = bytearray(frame_request(b"head", body))
    number_frames(framed, 7)
    at, sent, turn = 9 + len(b"head"), b"", 0
    while at < len(framed):
        window = windows[turn % len(windows)]
        turn += 1
        end, size = frames_within(framed, at, window)
        if end == at:
            sent += split_frame(framed, at, window)
            at, size = at + window, window
        else:
            sent += bytes(framed[at:end])
            at = end
        assert 0 < size <= window
    reader = FrameReader()
    reader.feed(sent)
    parts = list(iter(reader.next, None))
    assert b"".join(payload for *_, payload in parts) == body
    assert {(kind, number) for kind, _, number, _ in parts} == {(frames.DATA, 7)}
    ends = [flags & frames.END_STREAM for _, flags, _, _ in parts]
    assert ends == [0] * (len(ends) - 1) + [frames.END_STREAM]
    assert max(len(payload) for *_, payload in parts) <= 16_384


def test_request_headers_mean_the_same_at_any_time() -> None:
    fields = [
        (":method", "POST"),
        (":path", "/a"),
        ("authorization", "Bearer x"),
        ("te", "trailers"),
    ]
    block = encode_headers(fields)
    decoder = hpack.Decoder()
    for _ in range(3):
        assert [tuple(field) for field in decoder.decode(block)] == fields
        assert not decoder.header_table.dynamic_entries


names = st.sampled_from(["a", "b", "grpc-status", "content-type"])
values = st.sampled_from(["0", "1", "x" * 30, "application/grpc"])
field_lists = st.lists(st.tuples(names, values), min_size=1, max_size=4, unique_by=lambda f: f[0])


@given(
    st.lists(st.tuples(field_lists, st.sampled_from([None, 0, 40, 80, 4096])), max_size=30),
    st.sampled_from([0, 64, 4096]),
)
def test_remembered_blocks_never_go_stale(blocks, table_size: int) -> None:
    """The peer indexes as it likes, evicts, and resizes its table."""
    encoder, memory = hpack.Encoder(), HeaderBlocks(lambda: None)
    encoder.header_table_size = table_size
    for fields, resize in blocks:
        if resize is not None:
            encoder.header_table_size = resize
        assert memory.decode(encoder.encode(fields)) == dict(fields)


def test_equal_blocks_are_the_same_object_where_no_state_changes() -> None:
    memory = HeaderBlocks(lambda: None)
    block = encode_headers([("grpc-status", "0")])
    assert memory.decode(block) is memory.decode(block)
    indexing = hpack.Encoder().encode([("grpc-status", "0")])
    memory.decode(indexing)  # adds to the table, so it must be decoded each time
    before = len(memory._decoder.header_table.dynamic_entries)
    memory.decode(indexing)
    assert len(memory._decoder.header_table.dynamic_entries) == before + 1


def test_repeated_fields_are_joined() -> None:
    block = encode_headers([("x", "1"), ("x", "2")])
    assert HeaderBlocks(lambda: None).decode(block) == {"x": "1, 2"}


@given(st.binary(max_size=40))
def test_any_bytes_are_headers_or_a_violation(block: bytes) -> None:
    with suppress(Http2Violation):
        assert isinstance(HeaderBlocks(lambda: None).decode(block), dict)


def test_a_block_that_cannot_be_decoded() -> None:
    with pytest.raises(Http2Violation) as caught:
        HeaderBlocks(lambda: None).decode(b"\xff\xff\xff")
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_block_that_never_ends() -> None:
    blocks = HeaderBlocks(lambda: None)
    half = MAX_BLOCK_BYTES // 2
    assert blocks.take(frames.HEADERS, 0, 1, bytes(half)) is None
    assert blocks.take(frames.CONTINUATION, 0, 1, bytes(half)) is None
    with pytest.raises(Http2Violation, match="header fields of more than"):
        blocks.take(frames.CONTINUATION, 0, 1, b"x")

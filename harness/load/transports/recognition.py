"""Recognising answers of a known form by their length and their first bytes, without reading.

What precedes the tensors of an answer (the protocol's head, the outputs' names, types and shapes)
is the same byte for byte in all answers of one form, but for the request's id where a server
repeats it. So it is parsed once and compared after that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from harness.load.transports.contract import MARK, WIDTH, Layout, WireAnswer, holes_of, layout_of
from harness.load.transports.grpc.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    WINDOW_UPDATE,
    read_header,
)

LENGTHS = 256
FORMS_PER_LENGTH = 4
"""Answers of one length may differ in form (another output, a Date field): the latest are kept."""
LONGEST_PREFIX = 16384
"""Longer descriptions hold values themselves, and those are not worth remembering."""

Between = tuple[tuple[int, bytes], ...]
"""Offset and bytes of what stands before each tensor but the first."""


class KnownForms:
    """The forms of answers seen lately; bounded, whatever a server sends.

    A form is recognised by all bytes before its tensors, those between them where there are any,
    and the length of the whole. That is enough wherever they also say how long each tensor is.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[tuple[tuple[bytes, ...], Between, Layout], ...]] = {}

    def recall(self, data: bytes, identity: bytes = b"") -> Layout | None:
        """The layout of an answer whose form is known and which is there as a whole.

        Args:
            data: the answer.
            identity: its request's id; where the form repeats one, it must be this.
        """
        # Without an id a form that repeats one is never the answer's: no server knows the mark.
        identity = identity or MARK
        for parts, between, layout in self._by_length.get(len(data), ()):
            if data.startswith(identity.join(parts)) and (not between or _has(data, between)):
                return layout
        return None

    def remember(
        self,
        data: bytes,
        prefix_length: int,
        layout: Layout,
        identity: bytes = b"",
        between: Between = (),
    ) -> None:
        """Recognise from now on what is like this answer to a request, but for its tensors."""
        if prefix_length > LONGEST_PREFIX:
            return
        length = len(data)
        if length not in self._by_length and len(self._by_length) >= LENGTHS:
            oldest = list(self._by_length)[0]  # noqa: RUF015  (list() is atomic, next(iter()) not)
            self._by_length.pop(oldest, None)
        others = self._by_length.get(length, ())[: FORMS_PER_LENGTH - 1]
        self._by_length[length] = (
            (holes_of(data[:prefix_length], identity), between, layout),
            *others,
        )


def _has(data: bytes, between: Between) -> bool:
    return all(data.startswith(piece, at) for at, piece in between)


_FORMS = 128
"""Most forms that one connection learns; a server whose every answer is new is not worth learning
from."""
_KIND_AND_NUMBER = 5
"""Offset of the stream's number in a frame."""


class _Form(NamedTuple):
    pattern: re.Pattern[bytes]
    layout: Layout
    """Where each output lies, as offsets into the piece."""
    data_bytes: int
    """Payload of its DATA frame."""


class WholeAnswers:
    """The forms of one connection's answers, for as long as its header blocks mean the same."""

    def __init__(self) -> None:
        self._forms: dict[int, tuple[_Form, ...]] = {}
        self._learned = 0

    def recall(
        self, piece: bytes, number: bytes, identity: bytes = b""
    ) -> tuple[WireAnswer, int, bytes] | None:
        """The answer that a piece is, if it is of a known form, and whole.

        Args:
            piece: all that came.
            number: of the stream that is waited for, in four bytes.
            identity: the request's id, empty if it had none; an answer that repeats one must
                repeat this.

        Returns:
            The answer, its bytes of DATA, and the increment of the connection's window (four bytes
            or none); None where the piece must be read.
        """
        for pattern, layout, data_bytes in self._forms.get(len(piece), ()):
            match = pattern.fullmatch(piece)
            if match is None:
                continue
            answered, echoed, wider = match.group("number", "id", "wider")
            if answered == number and (echoed == identity or not echoed):
                return WireAnswer(layout, piece), data_bytes, wider
        return None

    def learn(
        self,
        piece: bytes,
        layout: Layout,
        is_settled: Callable[[bytes], bool],
        identity: bytes = b"",
    ) -> None:
        """Remember the form of an answer that came in one piece, was read, and is in order.

        Args:
            piece: whole frames, and all that came of the answer.
            layout: with offsets into the body.
            is_settled: whether a header block means the same every time.
            identity: the request's id, empty if it had none.
        """
        if self._learned >= _FORMS:
            return
        form = _form_of(piece, layout, is_settled, identity)
        if form is not None:
            self._learned += 1
            self._forms[len(piece)] = (form, *self._forms.get(len(piece), ()))

    def forget(self) -> None:
        """Header blocks mean something else from now on."""
        self._forms.clear()


def _form_of(
    piece: bytes, layout: Layout, is_settled: Callable[[bytes], bool], identity: bytes
) -> _Form | None:
    """What a piece has in common with others of its form; None if it is not an ordinary answer."""
    parts: list[bytes] = []
    order: list[tuple[int, int]] = []
    within, data_bytes = layout, 0
    for at, length, kind, flags in _frames(piece):
        payload = piece[at + HEADER_BYTES : at + HEADER_BYTES + length]
        parts.append(re.escape(piece[at : at + _KIND_AND_NUMBER]))
        if kind == WINDOW_UPDATE and piece[at + _KIND_AND_NUMBER : at + HEADER_BYTES] == bytes(4):
            parts.append(rb"\0{4}(?P<wider>.{4})")
        elif kind == DATA and not flags:
            parts.append(b"(?P=number)" + _but_for_tensors(payload, layout))
            within, data_bytes = _moved(layout, at + HEADER_BYTES), length
        elif kind == HEADERS and not flags & ~(END_HEADERS | END_STREAM) and is_settled(payload):
            number = b"(?P=number)" if flags & END_STREAM else b"(?P<number>.{4})"
            parts.append(number + re.escape(payload))
        else:
            return None
        order.append((kind, flags))
    if not _is_ordinary(order):
        return None
    if (WINDOW_UPDATE, 0) not in order:
        parts.append(b"(?P<wider>)")
    pattern = _with_id_open(b"".join(parts), identity)
    return _Form(re.compile(pattern, re.DOTALL), within, data_bytes)


def _with_id_open(pattern: bytes, identity: bytes) -> bytes:
    """A pattern that takes any id where the answer repeats its request's, one and the same."""
    before, *after = pattern.split(identity) if identity else [pattern]
    if not after:
        return b"(?P<id>)" + before
    return before + b"(?P<id>.{%d})" % WIDTH + b"(?P=id)".join(after)


def _frames(piece: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Offset, length, kind and flags of each frame."""
    at = 0
    while at < len(piece):
        length, kind, flags, _ = read_header(piece, at)
        yield at, length, kind, flags
        at += HEADER_BYTES + length


def _is_ordinary(order: list[tuple[int, int]]) -> bool:
    """Headers, one piece of body, trailers, and somewhere perhaps a wider window."""
    updates = order.count((WINDOW_UPDATE, 0))
    answer = [(HEADERS, END_HEADERS), (DATA, 0), (HEADERS, END_HEADERS | END_STREAM)]
    return (
        [one for one in order if one[0] != WINDOW_UPDATE] == answer
        and updates <= 1
        and len(order) == len(answer) + updates
    )


def _but_for_tensors(body: bytes, layout: Layout) -> bytes:
    """A pattern of a body that leaves the tensors' content open."""
    parts, at = [], 0
    for output in sorted(layout.outputs, key=lambda one: one.start):
        parts += [re.escape(body[at : output.start]), b".{%d}" % (output.end - output.start)]
        at = output.end
    return b"".join([*parts, re.escape(body[at:])])


def _moved(layout: Layout, by: int) -> Layout:
    return layout_of(
        tuple(
            output._replace(start=output.start + by, end=output.end + by)
            for output in layout.outputs
        )
    )

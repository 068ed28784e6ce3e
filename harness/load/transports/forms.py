"""Recognising an answer of a known form by its length and its first bytes.

What precedes the tensors of an answer (the protocol's head, the outputs' names, types and shapes)
is the same byte for byte in all answers of one form, but for the request's id where a server
repeats it. So it is parsed once and compared after that.
"""

from __future__ import annotations

from harness.load.transports.contract import Layout
from harness.load.transports.request_ids import MARK, holes_of

LENGTHS = 256
FORMS_PER_LENGTH = 4
"""Answers of one length may differ in form (another output, a Date field): the latest are kept."""
LONGEST_PREFIX = 16384


class KnownForms:
    """The forms of answers seen lately; bounded, whatever a server sends.

    A form is recognised by all bytes before its tensors and by the length of the whole. That is
    enough wherever those bytes also say how long each tensor is.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[tuple[tuple[bytes, ...], Layout], ...]] = {}

    def recall(self, data: bytes, identity: bytes = b"") -> Layout | None:
        """The layout of an answer whose form is known and which is there as a whole.

        Args:
            data: the answer.
            identity: its request's id; where the form repeats one, it must be this.
        """
        # Without an id a form that repeats one is never the answer's: no server knows the mark.
        identity = identity or MARK
        for parts, layout in self._by_length.get(len(data), ()):
            if data.startswith(identity.join(parts)):
                return layout
        return None

    def remember(
        self, data: bytes, prefix_length: int, layout: Layout, identity: bytes = b""
    ) -> None:
        """Recognise from now on what begins and is as long as this answer to a request."""
        if prefix_length > LONGEST_PREFIX:
            return
        length = len(data)
        if length not in self._by_length and len(self._by_length) >= LENGTHS:
            oldest = list(self._by_length)[0]  # noqa: RUF015  (list() is atomic, next(iter()) not)
            self._by_length.pop(oldest, None)
        others = self._by_length.get(length, ())[: FORMS_PER_LENGTH - 1]
        self._by_length[length] = (
            (holes_of(data[:prefix_length], identity), layout),
            *others,
        )

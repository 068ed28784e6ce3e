"""Tokens to text as they come. Runs in the server's environment.

A character may take several tokens, and what a token adds may depend on the one before it: a piece
of text is given out only when it is whole. A stop string may begin in one token and end in another:
what could be the beginning of one is held back until it is clear that it is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders make of bytes that are no character yet."""


class Decodes(Protocol):
    """What is needed of a `tokenizers.Tokenizer`."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens."""
        ...


class PieceDecoder:
    """The text that each further token adds; together exactly the text of all tokens.

    But for one thing that nobody can know who streams: a decoder with byte fallback takes a whole
    run of bytes back where its last ones are no character; what was given out before stays.

    Only the tokens since the last whole character are decoded, behind some before them, which show
    what a token looks like that is not a text's first.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = 0
        """First token that is decoded again."""
        self._given = 0
        """First token whose text has not been given out."""

    def push(self, token: int) -> str:
        """The text that is whole with this token; empty if it goes on."""
        self._tokens.append(token)
        before, now = self._texts()
        if now.endswith(_UNFINISHED) or len(now) <= len(before):
            return ""
        self._context, self._given = self._given, len(self._tokens)
        return now[len(before) :]

    def left(self) -> str:
        """What would be left at an end here, unfinished characters as replacement characters."""
        before, now = self._texts()
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        window = self._tokens[self._context :]
        known = window[: self._given - self._context]
        decode = self._tokenizer.decode
        return decode(known, skip_special_tokens=False), decode(window, skip_special_tokens=False)


class AnswerText:
    """An answer's text up to a stop string, given out piece by piece."""

    def __init__(
        self, tokenizer: Decodes, stop: Sequence[str], specials: dict[int, str], min_tokens: int = 0
    ) -> None:
        """Begin an answer.

        Args:
            tokenizer: whose tokens will come.
            stop: strings before the first of which it ends.
            specials: the model's special tokens and what they are called: not part of the text, but
                a stop string may name them.
            min_tokens: tokens before which no stop string counts.
        """
        self._pieces = PieceDecoder(tokenizer)
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._specials = specials
        self._min_tokens = min_tokens
        self._tokens = 0
        self._held = ""
        """Text that has not been given out, special tokens by name included."""
        self._hidden: list[tuple[int, int]] = []
        """Where special tokens stand in `_held`: (first, end)."""
        self.stopped = False
        """Whether a stop string has come: there is no text behind it."""

    def push(self, token: int) -> str:
        """The text that is certain to belong to the answer now, and was not before."""
        self._tokens += 1
        name = self._specials.get(token)
        if name is None:
            self._held += self._pieces.push(token)
        else:
            self._hide(name)
        if self._tokens < self._min_tokens:
            return self._give(len(self._held))
        found = self._found(self._held)
        if found is not None:
            self.stopped = True
            return self._give(found)
        return self._give(len(self._held) - self._possible())

    def finish(self) -> str:
        """What was held back, at an end that no stop string brought."""
        if self.stopped:
            return ""
        self._held += self._pieces.left()
        found = self._found(self._held)
        if found is not None:
            self.stopped = True
            return self._give(found)
        return self._give(len(self._held))

    def _hide(self, name: str) -> None:
        """Put a special token's name behind the text; half a character before it may still go on.

        To the decoder there are no special tokens: what is text stands side by side.
        """
        left = self._pieces.left()
        if left and self._found(self._held + left + name) is not None:
            self._held += left  # the answer ends here, so it goes on no more
        self._hidden.append((len(self._held), len(self._held) + len(name)))
        self._held += name

    def _found(self, text: str) -> int | None:
        """Where the first stop string begins, if any counts yet and is there."""
        if self._tokens < self._min_tokens:
            return None
        places = [place for place in map(text.find, self._stop) if place >= 0]
        return min(places, default=None)

    def _possible(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(one.startswith(end) for one in self._stop if len(one) > length):
                return length
        return 0

    def _give(self, length: int) -> str:
        text, place = "", 0
        for first, end in self._hidden:
            text += self._held[place : min(first, length)] if first > place else ""
            place = max(place, min(end, length))
        text += self._held[place:length]
        self._held = self._held[length:]
        self._hidden = [
            (max(0, first - length), end - length) for first, end in self._hidden if end > length
        ]
        return text

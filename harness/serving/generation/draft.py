"""A smaller model that proposes what the served one may write next: speculative decoding.

In each step the draft goes on with every row by some tokens, one after the other, and the served
model reads all of them in one run, which says what it would itself have written in the place of
each. Tokens are kept as long as the two are the same, and in the place of the first that differs
(or behind the last) stands the served model's own. So every token is chosen by the served model,
behind tokens that it chose, as without a draft; the draft only decides how many of them a run adds
(Leviathan et al. 2023). That holds for drawn tokens too: a request's random numbers are used one a
token, so a seed gives the text that it gives without a draft.

Runs in the server's environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]


class DraftDecoder(Protocol):
    """What runs the draft: a part of the engine's `Decoder`."""

    slots: int
    context: int

    def read(self, first: int, rows: list[Tokens], start: list[int]) -> Logits:
        """Read several new tokens of neighbouring slots; logits behind each row's last."""
        ...

    def write(self, tokens: list[int], lengths: list[int]) -> Logits:
        """Read one new token of each of the first slots; logits behind each."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first tokens to another slot."""
        ...


@dataclass
class DraftedText:
    """What the draft has seen of one row's text."""

    seen: int = 0
    """Tokens in the draft's slot."""
    unread: list[int] = field(default_factory=list)
    """Tokens of the text behind those, the newest last."""

    def settle(self, proposed: Sequence[int], kept: Sequence[int]) -> int:
        """Take note of what became of a proposal.

        What the draft read of its own proposal stays as far as the text is the same.

        Args:
            proposed: tokens, all but the last of which the draft has read; empty: it read nothing.
            kept: what the text now goes on with.

        Returns:
            How many of the proposed tokens are in the text.
        """
        same = zip(proposed, kept, strict=False)
        accepted = next(
            (place for place, (one, other) in enumerate(same) if one != other),
            min(len(proposed), len(kept)),
        )
        self.unread += kept
        if proposed:
            newest = len(self.unread) - len(kept)
            read = newest + min(accepted, len(proposed) - 1)
            self.seen += read
            del self.unread[:read]
        return accepted


@dataclass(frozen=True)
class Draft:
    """The draft's decoder, with a slot for each of the served model's, and how far it goes."""

    decoder: DraftDecoder
    tokens: int
    """Proposed for each row in a step, at most."""

    def propose(self, texts: Sequence[DraftedText], count: int) -> Tokens:
        """Go on greedily with the texts of the first slots.

        Args:
            texts: what the draft has seen and has not, by slot.
            count: tokens to propose, at least 1.

        Returns:
            Tokens (rows, count); (rows, 0) where what is unread does not fit the draft's buffers.
        """
        width = max(len(one.unread) for one in texts)
        seen = [one.seen for one in texts]
        if max(seen) + width > self.decoder.context:
            return np.zeros((len(texts), 0), np.int64)
        if width == 1:
            logits = self.decoder.write([one.unread[0] for one in texts], seen)
        else:
            rows = [np.array(one.unread, np.int64) for one in texts]
            logits = self.decoder.read(0, rows, seen)
        proposed = [logits.argmax(axis=-1)]
        lengths = [one.seen + len(one.unread) for one in texts]
        while len(proposed) < count:
            logits = self.decoder.write(proposed[-1].tolist(), lengths)
            proposed.append(logits.argmax(axis=-1))
            lengths = [length + 1 for length in lengths]
        return np.stack(proposed, axis=1).astype(np.int64)

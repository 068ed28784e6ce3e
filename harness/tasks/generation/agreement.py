"""How far a written text is the teacher's, token by token.

The token that ends a text is one of its tokens, so a text that goes on where the teacher's ends is
another text. Where two models have different vocabularies their texts are compared instead, a
character in the place of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END = -1
"""Stands behind the last character of a text that ended by itself."""


@dataclass(frozen=True)
class Agreement:
    """Each prompt's text beside the teacher's."""

    same: NDArray[np.bool_]
    """Whether the two are the same to the end, (prompts,)."""
    prefix: NDArray[np.int64]
    """Length of what both begin with, in tokens, (prompts,)."""
    share: NDArray[np.float64]
    """(prompts,) the common prefix as a share of the teacher's text; 1 where both are empty."""


def characters(text: str, *, by_itself: bool) -> tuple[int, ...]:
    """A text by its characters, for models whose tokens do not compare.

    Args:
        text: what was written.
        by_itself: whether the model ended it; not: it reached the limit of its length.
    """
    return (*map(ord, text), END) if by_itself else tuple(map(ord, text))


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens at the beginning that two texts share."""
    shorter = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:shorter]) != np.asarray(second[:shorter]))
    return int(differs[0]) if len(differs) else shorter


def agreement(own: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> Agreement:
    """Compare texts with the teacher's, prompt by prompt.

    Args:
        own: the tokens (or characters) of each prompt's text.
        teacher: likewise, aligned, of the same vocabulary.
    """
    pairs = list(zip(own, teacher, strict=True))
    prefix = np.array([common_prefix(one, other) for one, other in pairs], dtype=np.int64)
    longest = np.array([len(other) for _, other in pairs], dtype=np.int64)
    same = np.array([list(one) == list(other) for one, other in pairs], dtype=np.bool_)
    share = np.where(longest > 0, prefix / np.maximum(longest, 1), same.astype(np.float64))
    return Agreement(same, prefix, share)

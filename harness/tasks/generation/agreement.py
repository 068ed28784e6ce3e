"""How far a written text is the teacher's, token by token.

A greedy text ends with a token that says so or at the limit of its length. The end is part of what
is compared: a text that goes on where the teacher's ends is another text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END = -1
"""Stands for the end of a text that ended by itself, behind its last token."""


@dataclass(frozen=True)
class Agreement:
    """Each prompt's text beside the teacher's."""

    same: NDArray[np.bool_]
    """Whether the two are the same to the end, (prompts,)."""
    prefix: NDArray[np.int64]
    """Length of what both begin with, in tokens, (prompts,)."""
    share: NDArray[np.float64]
    """That length as a share of the teacher's text, its end counted as a token, (prompts,)."""


def ended(tokens: Sequence[int], *, by_itself: bool) -> tuple[int, ...]:
    """A text as it is compared.

    Args:
        tokens: without the token that ended it.
        by_itself: whether the model ended it; not: it reached the limit of its length.
    """
    return (*tokens, END) if by_itself else tuple(tokens)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of tokens at the beginning that two texts share."""
    shorter = min(len(first), len(second))
    differs = np.flatnonzero(np.asarray(first[:shorter]) != np.asarray(second[:shorter]))
    return int(differs[0]) if len(differs) else shorter


def agreement(own: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> Agreement:
    """Compare texts with the teacher's, prompt by prompt.

    Args:
        own: of each prompt, as `ended` makes it.
        teacher: likewise, aligned; in tokens of the same vocabulary, and none is empty.
    """
    pairs = list(zip(own, teacher, strict=True))
    prefix = np.array([common_prefix(one, other) for one, other in pairs], dtype=np.int64)
    lengths = np.array([len(other) for _, other in pairs], dtype=np.int64)
    same = np.array([tuple(one) == tuple(other) for one, other in pairs], dtype=np.bool_)
    return Agreement(same, prefix, prefix / lengths)

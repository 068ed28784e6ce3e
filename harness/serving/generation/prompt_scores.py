"""How probable a model found the tokens of a prompt, part by part as it is read.

Runs in the server's environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORED_TOKENS = 64
"""Tokens of a prompt that are scored at a time: the logits behind each are as many as the
vocabulary."""


@dataclass(frozen=True)
class PromptScores:
    """How probable the model found a prompt's own tokens; with an encoder `decoder_prompt`'s."""

    logprobs: NDArray[np.float32]
    """Natural logarithms, (tokens,); 0 for a prompt's first, which nothing precedes."""
    ranks: NDArray[np.int32]
    """1 where a token was the likeliest, (tokens,); 0 for a prompt's first."""


def scores_of(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> PromptScores:
    """How probable tokens were, each by the logits before it."""
    chosen = np.take_along_axis(logits, tokens[:, None], axis=-1)
    most = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - most).sum(axis=-1, keepdims=True, dtype=np.float64)) + most
    ranks = (logits > chosen).sum(axis=-1) + 1
    return PromptScores((chosen - total)[:, 0].astype(np.float32), ranks.astype(np.int32))


def joined(parts: Sequence[PromptScores]) -> PromptScores | None:
    """The scores of a prompt's parts as those of one; None without any part."""
    if not parts:
        return None
    logprobs = np.concatenate([one.logprobs for one in parts])
    return PromptScores(logprobs, np.concatenate([one.ranks for one in parts]))

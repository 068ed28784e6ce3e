"""Greedy speculative decoding: the draft proposes, the teacher decides, and the text is its own.

In each round the draft continues the text by some tokens, and one run of the teacher over them
says what it would have written in the place of each. Tokens are kept as long as the two are the
same; in the place of the first that differs (or behind the last) stands the teacher's own. So
every token that is ever kept is the teacher's likeliest after tokens that are its own: the text is
that of the teacher alone, however bad the draft. It costs the draft's work, and saves runs of the
teacher where they agree (Leviathan et al. 2023; Chen et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NextLogits = Callable[[Sequence[int]], NDArray[np.floating]]
"""A model: of tokens, the logits of what comes after each, (tokens, vocabulary)."""


@dataclass(frozen=True)
class Round:
    """One run of the teacher."""

    proposed: int
    """Tokens of the draft."""
    accepted: int
    """Of these, from the first on, those that are the teacher's."""


@dataclass(frozen=True)
class SpeculativeText:
    """What was written, and in how many runs of the teacher."""

    tokens: tuple[int, ...]
    """The new tokens; the one that ended the text is the last."""
    rounds: tuple[Round, ...]


def write_greedily(
    model: NextLogits,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    end_tokens: Collection[int] = (),
) -> tuple[int, ...]:
    """A model's greedy text, one token a run; the token that ended it is the last.

    Args:
        model: the logits of the next token after each one.
        prompt: at least one token.
        max_new_tokens: the longest text.
        end_tokens: end a text.
    """
    text = list(prompt)
    while len(text) - len(prompt) < max_new_tokens:
        text.append(int(model(text)[-1].argmax()))
        if text[-1] in end_tokens:
            break
    return tuple(text[len(prompt) :])


def write_speculatively(
    teacher: NextLogits,
    draft: NextLogits,
    prompt: Sequence[int],
    *,
    draft_tokens: int,
    max_new_tokens: int,
    end_tokens: Collection[int] = (),
) -> SpeculativeText:
    """The teacher's greedy text, with a draft that proposes tokens.

    Args:
        teacher: whose text it is.
        draft: a model with the same vocabulary.
        prompt: at least one token.
        draft_tokens: proposed in a round, at most; 0 is the teacher alone.
        max_new_tokens: the longest text.
        end_tokens: end a text.
    """
    text, rounds = list(prompt), list[Round]()
    end = len(prompt) + max_new_tokens
    while len(text) < end and not (rounds and text[-1] in end_tokens):
        # One token less than there is room for: a round always adds one of the teacher's.
        proposed = write_greedily(
            draft,
            text,
            max_new_tokens=min(draft_tokens, end - len(text) - 1),
            end_tokens=end_tokens,
        )
        # What the teacher says after the text, and after each token proposed.
        said = teacher([*text, *proposed])[len(text) - 1 :].argmax(axis=-1).tolist()
        accepted = _agreed(proposed, said)
        text += _through_end(said[: accepted + 1], end_tokens)
        rounds.append(Round(len(proposed), accepted))
    return SpeculativeText(tuple(text[len(prompt) :]), tuple(rounds))


def _agreed(proposed: Sequence[int], said: Sequence[int]) -> int:
    """How many tokens, from the first on, are what the teacher says in their place."""
    pairs = enumerate(zip(proposed, said, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(proposed))


def _through_end(tokens: Sequence[int], end_tokens: Collection[int]) -> Sequence[int]:
    """Up to the first token that ends a text, and that one."""
    first = next((place for place, one in enumerate(tokens) if one in end_tokens), len(tokens))
    return tokens[: first + 1]

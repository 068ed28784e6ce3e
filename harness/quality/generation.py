"""Greedy text from a served language model, a token at a time, many prompts at once.

The served graph says the likeliest next token at every position, so the last position's is the next
token of a greedy generation. It keeps no state between requests: every step asks the whole row
again, which costs the square of the length and nothing else.

Where it ends is decided as lm-eval's `hf` model decides it for one prompt at a time: by the
checkpoint's end tokens, and by stop strings looked for in the last few tokens *with* special tokens
(a chat model's `<|im_end|>` is one), whatever the text is decoded to afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.quality.token_scores import ProgressOfRows, Row, TokenScorer

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Stop:
    """A text that ends a generation."""

    text: str
    """Found in every text where it is empty."""
    last_tokens: int
    """Of what was made, in which it is looked for."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued, and where the continuation ends."""

    token_ids: Row
    max_new_tokens: int
    stops: tuple[Stop, ...]

    def request(self, end_tokens: frozenset[int]) -> bytes:
        """What the answer cache knows it by."""
        stops = [(stop.text, stop.last_tokens) for stop in self.stops]
        asked = (self.token_ids, self.max_new_tokens, stops, sorted(end_tokens))
        return b"greedy" + json.dumps(asked).encode()


@dataclass
class _Running:
    prompt: Prompt
    made: list[int] = field(default_factory=list)
    ended: bool = False
    failed: bool = False

    @property
    def row(self) -> Row:
        return (*self.prompt.token_ids, *self.made)


def generate_greedily(
    prompts: Sequence[Prompt],
    scorer: TokenScorer,
    decode: Decode,
    *,
    end_tokens: frozenset[int],
    progress: ProgressOfRows | None = None,
) -> list[tuple[int, ...] | None]:
    """Continue prompts; None where a request failed on the way.

    Args:
        prompts: none is empty; equal ones are continued once.
        scorer: the way to the model.
        decode: token numbers to text, special tokens kept.
        end_tokens: end a generation.
        progress: told of prompts finished.

    Returns:
        The new tokens of each prompt, the one that ended it included. They may go past the first
        stop string, which a token may hold in its middle: cut the decoded text.
    """
    distinct = list(dict.fromkeys(prompts))
    known = _known(distinct, scorer, end_tokens)
    running = [_Running(prompt) for prompt in distinct if prompt not in known]
    while active := [one for one in running if not one.ended]:
        if progress is not None:
            progress(len(distinct) - len(active), len(distinct))
        answers = scorer.score([one.row for one in active], keep=False)
        for one, answer in zip(active, answers, strict=True):
            if answer is None:
                one.failed = one.ended = True
                continue
            _take(one, int(answer.greedy[-1]), decode, end_tokens)
            if one.ended and scorer.cache is not None:
                request = one.prompt.request(end_tokens)
                scorer.cache.add({request: np.asarray(one.made, "<i4").tobytes()})
    made = known | {one.prompt: None if one.failed else tuple(one.made) for one in running}
    return [made[prompt] for prompt in prompts]


def _take(one: _Running, token: int, decode: Decode, end_tokens: frozenset[int]) -> None:
    one.made.append(token)
    one.ended = (
        token in end_tokens
        or len(one.made) >= one.prompt.max_new_tokens
        or any(stop.text in decode(one.made[-stop.last_tokens :]) for stop in one.prompt.stops)
    )


def _known(
    prompts: Sequence[Prompt], scorer: TokenScorer, end_tokens: frozenset[int]
) -> dict[Prompt, tuple[int, ...] | None]:
    if scorer.cache is None:
        return {}
    names = {prompt.request(end_tokens): prompt for prompt in prompts}
    found = scorer.cache.get(list(names))
    scorer.counts.kept += len(found)
    return {
        names[request]: tuple(np.frombuffer(answer, "<i4").tolist())
        for request, answer in found.items()
    }

"""What a checkpoint's `generation_config` asks of answers, done to logits as `generate()` does it.

Runs in the server's environment too: numpy alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.types.generation import AnswerRules

Logits = NDArray[np.float32]
Grams = dict[tuple[int, ...], set[int]]
"""What came behind so many tokens in a row."""


class RuledAnswer:
    """One answer while it is written, under a checkpoint's rules."""

    def __init__(
        self,
        rules: AnswerRules,
        *,
        begun: Sequence[int],
        source: Sequence[int],
        end_tokens: Sequence[int],
        most: int,
    ) -> None:
        """Begin an answer.

        Args:
            rules: what is asked.
            begun: what the decoder read before the answer: the prompt; behind an encoder its start
                token, and what was given.
            source: the prompt, whoever read it.
            end_tokens: of the model; none where they end nothing.
            most: tokens that the answer may have.
        """
        self._rules = rules
        self._tokens: list[int] = []
        self._begun = len(begun)
        self._end_tokens = list(end_tokens)
        self._most = most
        self._grams: Grams = defaultdict(set)
        self._source_grams = _grams(source, rules.no_repeat_source)
        for token in begun:
            self.push(token)

    @property
    def written(self) -> int:
        """Tokens of the answer so far."""
        return len(self._tokens) - self._begun

    @property
    def ends_by_force(self) -> bool:
        """Whether the next token is the last, and the end token because of that."""
        return self._rules.forced_last is not None and self.written == self._most - 1

    @property
    def is_forced(self) -> bool:
        """Whether the next token is told, whatever the logits are."""
        return self._forced() is not None

    def push(self, token: int) -> None:
        """Take note of a token."""
        self._tokens.append(token)
        size = self._rules.no_repeat
        if 0 < size <= len(self._tokens):
            *before, last = self._tokens[-size:]
            self._grams[tuple(before)].add(last)

    def shaped(self, logits: Logits) -> Logits:
        """Logits of the next token as the rules leave them, (vocabulary,); a new array."""
        forced = self._forced()
        if forced is not None:
            alone = np.full_like(logits, -np.inf)
            alone[forced] = 0.0
            return alone
        shaped = logits.copy()
        if self._rules.repetition_penalty != 1.0:
            _penalise(shaped, self._tokens, self._rules.repetition_penalty)
        shaped[with_logits(self._banned(), shaped)] = -np.inf
        return shaped

    def _forced(self) -> int | None:
        if self.ends_by_force:
            return self._rules.forced_last
        return self._rules.forced_first if len(self._tokens) == 1 else None

    def _banned(self) -> list[int]:
        rules = self._rules
        banned = [*rules.banned]
        if rules.no_repeat:
            banned += self._grams.get(self._last(rules.no_repeat - 1), ())
        if rules.no_repeat_source:
            banned += self._source_grams.get(self._last(rules.no_repeat_source - 1), ())
        if self.written < rules.min_tokens or len(self._tokens) < rules.min_length:
            banned += self._end_tokens
        is_first_forced = rules.forced_first is not None and self._begun == 1
        if self.written == int(is_first_forced):
            banned += rules.banned_first
        return banned

    def _last(self, count: int) -> tuple[int, ...]:
        return tuple(self._tokens[-count:]) if count else ()


def with_logits(tokens: Iterable[int], logits: Logits) -> list[int]:
    """Those of some tokens that the model can choose; a checkpoint may name others too."""
    return [token for token in tokens if 0 <= token < len(logits)]


def _grams(tokens: Sequence[int], size: int) -> Grams:
    grams: Grams = defaultdict(set)
    if size:
        for end in range(size, len(tokens) + 1):
            *before, last = tokens[end - size : end]
            grams[tuple(before)].add(last)
    return grams


def _penalise(logits: Logits, tokens: Sequence[int], penalty: float) -> None:
    seen = np.unique(tokens)
    values = logits[seen]
    logits[seen] = np.where(values < 0, values * penalty, values / penalty)

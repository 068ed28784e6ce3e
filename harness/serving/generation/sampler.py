"""How the next token is chosen of its logits. Runs in the server's environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.tasks.generation.rules import RuledAnswer, with_logits
from harness.types.generation import SamplingParameters

Logits = NDArray[np.float32]


class Sampler:
    """One request's choices; its random numbers are its own, whoever else is in the batch."""

    def __init__(
        self,
        parameters: SamplingParameters,
        end_tokens: Sequence[int],
        rules: RuledAnswer | None = None,
    ) -> None:
        """Begin an answer.

        Args:
            parameters: of the request.
            end_tokens: of the model: not chosen before `min_tokens`, unless rules force one.
            rules: of the checkpoint, where it has some; told each token that was chosen.
        """
        self._parameters = parameters
        self._end_tokens = list(end_tokens)
        self.rules = rules
        # numpy takes no negative seeds, OpenAI's API does.
        seed = parameters.seed
        self._random = np.random.default_rng(None if seed is None else seed % 2**64)

    @property
    def is_greedy(self) -> bool:
        """Whether it always takes the likeliest token."""
        return self._parameters.temperature == 0

    def takes_likeliest(self, chosen: int) -> bool:
        """Whether the next token is the likeliest whatever it is; then `choose` is not needed."""
        return self.is_greedy and self.rules is None and chosen >= self._parameters.min_tokens

    def choose(self, logits: Logits, chosen: int) -> int:
        """The next token.

        Args:
            logits: of every token, (vocabulary,); they are not changed.
            chosen: tokens that the answer has already.
        """
        is_forced = self.rules is not None and self.rules.is_forced
        if self.rules is not None:
            logits = self.rules.shaped(logits)
        if chosen < self._parameters.min_tokens and not is_forced:
            logits = logits.copy()
            logits[with_logits(self._end_tokens, logits)] = -np.inf
        if self.is_greedy:
            return int(logits.argmax())
        tokens, probabilities = distribution(logits, self._parameters)
        place = np.searchsorted(np.cumsum(probabilities), self._random.random(), side="right")
        return int(tokens[min(int(place), len(tokens) - 1)])


def distribution(
    logits: Logits, parameters: SamplingParameters
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that may be drawn and their probabilities, the likeliest first.

    As transformers and vLLM do it: the temperature first, then top-k, then top-p of what is left.

    Args:
        logits: of every token, (vocabulary,).
        parameters: with a temperature above 0.
    """
    # Equal logits in the order of their tokens, so that a draw does not depend on the sort.
    order = _best_first(logits, parameters.top_k)
    behind = logits[order].astype(np.float64) - float(logits[order[0]])
    with np.errstate(over="ignore"):  # beside a temperature near 0 all but the likeliest vanish
        weights: NDArray[np.float64] = np.exp(behind / parameters.temperature)
    weights /= weights.sum()
    if parameters.top_p < 1:
        # The token that crosses top_p still counts; so there is always one.
        before = np.cumsum(weights) - weights
        kept = int(np.count_nonzero(before < parameters.top_p))
        order, weights = order[:kept], weights[:kept] / weights[:kept].sum()
    return order, weights


def _best_first(logits: Logits, top_k: int) -> NDArray[np.int64]:
    if 0 < top_k < len(logits):
        least = np.partition(logits, -top_k)[-top_k]
        candidates: NDArray[Any] = np.flatnonzero(logits >= least)
        order = np.argsort(-logits[candidates], kind="stable")[:top_k]
        return candidates[order].astype(np.int64)
    return np.argsort(-logits, kind="stable").astype(np.int64)

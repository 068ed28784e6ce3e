"""Scores of tags to the entities of a text: what a served token classifier answers.

Written into the model repository as `<variant>-spans/1/entity_spans.py`, beside the model that
Triton's Python backend runs: it imports nothing of the harness. A word's first piece stands for the
word, as transformers' pipeline has it with aggregation_strategy="first".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class EntitySpans:
    """The tags of a model, and what each says."""

    def __init__(self, tags: Sequence[Mapping[str, str]]) -> None:
        """Take the model's tags.

        Args:
            tags: `prefix` (O, B, I, E or S) and `type` of each output, in order.
        """
        self._tags = [(tag["prefix"], tag["type"]) for tag in tags]

    def read(self, logits: Any, offsets: Any, words: Any) -> list[dict[str, Any]]:
        """Entities of one text, in its order: type, score, start and end in characters.

        Args:
            logits: (tokens, tags).
            offsets: first character and end of each token, (tokens, 2).
            words: 1 where a token begins a word, 0 where it goes on with one, else -1, (tokens,).
        """
        tagged = self._words(logits.astype(np.float64), offsets, words)
        spans: list[dict[str, Any]] = []
        before, kind = "O", ""
        scores: list[float] = []
        for prefix, own, score, start, end in tagged:
            if prefix != "O":
                if prefix in {"B", "S"} or before in {"O", "E", "S"} or own != kind:
                    scores = []
                    spans.append({"type": own, "score": 0.0, "start": start, "end": end})
                scores.append(score)
                spans[-1] |= {"score": sum(scores) / len(scores), "end": end}
            before, kind = prefix, own
        return spans

    def _words(
        self, logits: Any, offsets: Any, words: Any
    ) -> list[tuple[str, str, float, int, int]]:
        """Prefix, type, probability, first character and end of each word."""
        found: list[tuple[str, str, float, int, int]] = []
        for place in np.flatnonzero(words >= 0).tolist():
            start, end = (int(one) for one in offsets[place])
            if words[place] == 0 and found:
                found[-1] = (*found[-1][:4], end)
                continue
            weights = np.exp(logits[place] - logits[place].max())
            best = int(weights.argmax())
            found.append((*self._tags[best], float(weights[best] / weights.sum()), start, end))
        return found

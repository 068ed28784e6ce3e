"""What a variant answered to each row of the test split."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_PREDICTION = -1
"""Stands where a class index would, for an unanswered row."""
_OF_THE_WHOLE = frozenset({"variant", "sha256", "label_names"})
"""Fields of `Outcomes` that are no sequence of rows."""


@dataclass(frozen=True)
class Outcomes:
    """One entry a row of the test split, in the data set's order."""

    variant: str
    sha256: str
    """Of the artefact that answered; empty for a baseline that is not served."""
    predictions: NDArray[np.int64] | None
    """Class indices, `NO_PREDICTION` where unanswered; None for a language model."""
    correct: NDArray[np.bool_] | None
    """An unanswered row is not correct."""
    log_likelihood: NDArray[np.float64] | None
    """Natural logarithm, of a window's scored tokens; NaN where unanswered. None for a
    classifier, as are `tokens` and `bytes`."""
    tokens: NDArray[np.int64] | None
    """Scored tokens a window: all real ones but the first, which nothing precedes."""
    bytes: NDArray[np.int64] | None
    """UTF-8 bytes that the scored tokens stand for."""
    unanswered: NDArray[np.bool_]
    """The request failed, or the answer held no numbers."""
    words: NDArray[np.int64] | None = None
    """Words that end in those bytes."""
    f1: NDArray[np.float64] | None = None
    """Question answering, one entry a question: overlap with the right answer, 0 to 1, beside
    `correct`, which is then an exact match."""
    answers: tuple[str, ...] | None = None
    """Question answering: the spans found, empty for none."""
    logits: NDArray[np.float32] | None = None
    """A classifier's, (rows, classes), in the order of `label_names`; NaN where unanswered."""
    label_names: tuple[str, ...] | None = None
    """In the order of the checkpoint's outputs."""
    greedy: tuple[NDArray[np.int64], ...] | None = None
    """A language model's likeliest token in the place of each scored one, a row each; empty where
    unanswered."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.unanswered)


def take_outcomes(outcomes: Outcomes, rows: NDArray[np.int64]) -> Outcomes:
    """Some rows of outcomes, in their order."""

    def taken(values: Any) -> Any:
        if isinstance(values, np.ndarray):
            return values[rows]
        return None if values is None else tuple(values[row] for row in rows)

    per_row = (one.name for one in fields(outcomes) if one.name not in _OF_THE_WHOLE)
    return replace(outcomes, **{name: taken(getattr(outcomes, name)) for name in per_row})

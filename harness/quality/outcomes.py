"""What a variant answered to each row of the test split."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise

NO_PREDICTION = -1
"""Stands where a class index would, for an unanswered row."""


@rowwise
@dataclass(frozen=True)
class Outcomes:
    """One entry a row of the test split, in the data set's order."""

    variant: str = field(metadata=OF_ALL)
    sha256: str = field(metadata=OF_ALL)
    """Of the artefact that answered; empty for a baseline that is not served."""
    predictions: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Class indices, `NO_PREDICTION` where unanswered; None for a language model."""
    correct: NDArray[np.bool_] | None = field(metadata=PER_ROW)
    """An unanswered row is not correct."""
    log_likelihood: NDArray[np.float64] | None = field(metadata=PER_ROW)
    """Natural logarithm, of a window's scored tokens; NaN where unanswered. None for a
    classifier, as are `tokens` and `bytes`."""
    tokens: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Scored tokens a window: all real ones but the first, which nothing precedes."""
    bytes: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """UTF-8 bytes that the scored tokens stand for."""
    unanswered: NDArray[np.bool_] = field(metadata=PER_ROW)
    """The request failed, or the answer held no numbers."""
    words: NDArray[np.int64] | None = field(default=None, metadata=PER_ROW)
    """Words that end in those bytes."""
    f1: NDArray[np.float64] | None = field(default=None, metadata=PER_ROW)
    """Question answering, one entry a question: overlap with the right answer, 0 to 1, beside
    `correct`, which is then an exact match."""
    answers: tuple[str, ...] | None = field(default=None, metadata=PER_ROW)
    """Question answering: the spans found, empty for none."""
    logits: NDArray[np.float32] | None = field(default=None, metadata=PER_ROW)
    """A classifier's, (rows, classes), in the order of `label_names`; NaN where unanswered."""
    label_names: tuple[str, ...] | None = field(default=None, metadata=OF_ALL)
    """What each of the checkpoint's outputs stands for, in the words of the family's teacher:
    equal for equal classes, whatever the checkpoints call them."""
    greedy: tuple[NDArray[np.int64], ...] | None = field(default=None, metadata=PER_ROW)
    """A language model's likeliest token in the place of each scored one, a row each; empty where
    unanswered."""
    groups: NDArray[np.int64] | None = field(default=None, metadata=PER_ROW)
    """Which rows belong together: a window's document, a question's context. None where each row
    stands alone, and in files from before it was told."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.unanswered)

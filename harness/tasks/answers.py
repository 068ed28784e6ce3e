"""Requests of a test split's rows, and what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.tasks.encoding import EncodedGroup

Tensors = Mapping[str, NDArray[Any]]
"""By name, a row each along the first axis."""


@dataclass(frozen=True)
class Batch:
    """One request: rows of equal padded length."""

    group: EncodedGroup
    """The rows, with all that the family knows of their tokens."""
    inputs: Tensors
    """By the model's input names and in its datatypes, (n, length)."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions in the data set, (n,)."""
        return self.group.rows


class Answer(Protocol):
    """What a model said of a batch's rows, as its family reads it."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """False where a row's numbers are not numbers (NaN), (n,)."""
        ...


@dataclass(frozen=True)
class RowAnswer:
    """One row's answer without its padding, for comparing two answers to the same row."""

    prediction: NDArray[Any]
    """What is answered: a class, a span, tokens; equal answers are equal arrays."""
    numbers: NDArray[np.float64]
    """What it was chosen by: logits, log probabilities."""

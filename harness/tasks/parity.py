"""What the export's gate compares: batches with the checkpoint's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Inputs = Mapping[str, NDArray[np.int64]]
"""Arrays of shape (batch, sequence), by name."""


@dataclass(frozen=True)
class Probe:
    """One batch and the checkpoint's answer to it."""

    inputs: Inputs
    """Arrays of shape (batch, sequence), by name."""
    values: NDArray[np.float32]
    """The checkpoint's output (several of one shape are stacked): logits (batch, labels),
    token_logprobs (batch, sequence), start and end logits (batch, 2, sequence)."""
    choices: NDArray[np.int64]
    """The checkpoint's prediction, as integers: class (batch,), next token (batch, sequence),
    likeliest start and end (batch, 2)."""
    margins: NDArray[np.float32]
    """How far the best score lies above the second, shaped as `choices`."""
    value_counts: NDArray[np.bool_]
    """Which of `values` count: not padding, not the first token."""
    choice_counts: NDArray[np.bool_]
    """Which of `choices` count: not padding."""
    offset_free: bool = False
    """Whether an offset that all values of a row share says nothing: softmax does not see it."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the batch: (batch, sequence)."""
        batch, length = self.inputs["input_ids"].shape
        return batch, length


def class_probe(inputs: Inputs, scores: Tensor) -> Probe:
    """One choice a row among its scores, (batch, classes).

    A single score is no choice: its value alone is compared.
    """
    values = scores.numpy()
    best = np.sort(values, axis=-1)
    alone = values.shape[-1] == 1
    return Probe(
        inputs=inputs,
        values=values,
        choices=values.argmax(-1),
        margins=np.zeros(len(values), np.float32) if alone else best[:, -1] - best[:, -2],
        value_counts=np.ones_like(values, dtype=bool),
        choice_counts=np.full(len(values), not alone),
        offset_free=not alone,
    )

"""Which number a model gave each row, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.tasks.outcomes import Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.regression.rows import NumberDataset
from harness.tasks.rowwise import PER_ROW, Positions, rowwise
from harness.types import ModelVariant

Floats = NDArray[np.float64]


@rowwise
@dataclass(frozen=True, kw_only=True)
class NumberOutcomes(Outcomes):
    """A number a row, beside the right one."""

    kind = "regression"

    predictions: Floats = field(metadata=PER_ROW)
    """NaN where unanswered, (rows,)."""
    truth: Floats = field(metadata=PER_ROW)
    """The right numbers, (rows,)."""

    @property
    def error(self) -> Floats:
        """How far each prediction is off, NaN where unanswered, (rows,)."""
        return np.asarray(np.abs(self.predictions - self.truth))

    def columns(self) -> Columns:
        """`prediction` and `label`."""
        return {"prediction": pa.array(self.predictions), "label": pa.array(self.truth)}


@dataclass(frozen=True)
class NumberAnswer:
    """A batch's numbers."""

    predictions: Floats
    """(n,)."""
    usable: NDArray[np.bool_]
    """False where it is not a finite number, (n,)."""


def read_numbers(outputs: Tensors) -> NumberAnswer:
    """The answer in the output `logits`, (n, 1)."""
    predictions = outputs["logits"][:, 0].astype(np.float64)
    return NumberAnswer(predictions, np.isfinite(predictions))


def compared_numbers(outputs: Tensors) -> list[RowAnswer]:
    """The number of each row; no choice is made of it that could change."""
    return [RowAnswer(np.zeros(0), row.astype(np.float64)) for row in outputs["logits"]]


def number_outcomes(
    variant: ModelVariant,
    dataset: NumberDataset,
    replies: Iterable[tuple[Positions, NumberAnswer | None]],
) -> NumberOutcomes:
    """Every row's number; of the rows of each request, (n,), and the answer to them."""
    predictions = np.full(dataset.size, np.nan)
    for rows, answer in replies:
        if answer is not None:
            predictions[rows[answer.usable]] = answer.predictions[answer.usable]
    return NumberOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=np.isnan(predictions),
        predictions=predictions,
        truth=dataset.labels,
    )


def restore_numbers(stored: StoredOutcomes) -> NumberOutcomes:
    """Read outcomes back from their file."""
    return NumberOutcomes(
        **stored.common, predictions=stored.array("prediction"), truth=stored.array("label")
    )

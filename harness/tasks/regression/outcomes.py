"""Which number a model gave each row, how it errs, and how it stands to the teacher's.

| measure                 | of                                                                    |
|-------------------------|-----------------------------------------------------------------------|
| mean_error              | predictions less the right numbers: too high, too low, another scale  |
| mae_change              | mean absolute error less the teacher's, on the rows that both answered |
| pearson_with_teacher, spearman_with_teacher | correlation of the numbers with the teacher's     |
| difference_mean, difference_p95 | how far the numbers are from the teacher's, either way        |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.statistics.intervals import Bounds, bounds
from harness.statistics.metrics import correlates, mean_sums, pearson_sums, spearman_sums
from harness.statistics.paired import Measure, mean_and_tail
from harness.tasks.losses import MOST_EXAMPLES, shortened
from harness.tasks.outcomes import Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.regression.rows import NumberDataset
from harness.tasks.rowwise import PER_ROW, Positions, rowwise
from harness.types import ModelVariant
from harness.types.losses import WorstExample
from harness.words.numbers import number

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
        """The columns `prediction` and `label`."""
        return {"prediction": pa.array(self.predictions), "label": pa.array(self.truth)}


@dataclass(frozen=True)
class NumberAnswer:
    """The numbers that a batch was answered with."""

    predictions: Floats
    """(n,) predicted numbers."""
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


def own_measures(errors: Floats, seed: int) -> list[Measure]:
    """The mean error, which shows a model that answers too high or too low, or on another scale.

    Args:
        errors: predictions less the right numbers, (rows,); NaN where unanswered.
        seed: of the interval.
    """
    known = errors[np.isfinite(errors)]
    return [_measure("mean_error", float(known.mean()), bounds(mean_sums(known), seed=seed), known)]


def paired_measures(outcomes: NumberOutcomes, teacher: NumberOutcomes, seed: int) -> list[Measure]:
    """How the error changed, and how far the numbers agree with the teacher's own."""
    both = ~(outcomes.unanswered | teacher.unanswered)
    if not both.any():
        return []
    own, theirs = outcomes.predictions[both], teacher.predictions[both]
    change = (outcomes.error - teacher.error)[both]
    found = [
        _measure("mae_change", float(change.mean()), bounds(mean_sums(change), seed=seed), change)
    ]
    if correlates(own, theirs):
        for name, sums in (
            ("pearson_with_teacher", pearson_sums(own, theirs)),
            ("spearman_with_teacher", spearman_sums(own, theirs)),
        ):
            value = float(sums.of_sums(sums.table.sum(axis=0)))
            found.append(_measure(name, value, bounds(sums, seed=seed), own))
    names = ("difference_mean", "difference_p95")
    return [*found, *mean_and_tail(np.abs(own - theirs), names, 0.95, seed, floor=0.0)]


def _measure(name: str, value: float, found: Bounds, rows: Floats) -> Measure:
    return name, value, found.low, found.high, len(rows)


def worst_numbers(
    outcomes: NumberOutcomes, teacher: NumberOutcomes, texts: Sequence[str]
) -> tuple[WorstExample, ...]:
    """The samples whose absolute error grew most beside the teacher's, in the labels' unit."""
    growth = outcomes.error - teacher.error
    grew = np.isfinite(growth) & (growth > 0)
    order = [row for row in np.argsort(-np.where(grew, growth, -np.inf)) if grew[row]]
    return tuple(
        WorstExample(
            row=int(row),
            text=shortened(texts[row]),
            label=number(outcomes.truth[row]),
            teacher_says=number(teacher.predictions[row]),
            variant_says=number(outcomes.predictions[row]),
            loss=float(growth[row]),
        )
        for row in order[:MOST_EXAMPLES]
    )

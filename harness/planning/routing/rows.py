"""What a router is calibrated on: rows that both models answered, the student's confidence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import DataError, UsageError

FEWEST_ROWS = 40
_HALF = 0.5

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RoutedRows:
    """Rows with a known answer, as student and teacher answered them; all (rows,)."""

    confidence: Floats
    """The student's, from 0 to 1; 0 where it gave no usable answer."""
    student_right: Mask
    teacher_right: Mask

    def __post_init__(self) -> None:
        """Refuse columns that are none of the same rows.

        Raises:
            DataError: unequal lengths, or a confidence outside 0 to 1.
        """
        lengths = {len(self.confidence), len(self.student_right), len(self.teacher_right)}
        if len(lengths) > 1:
            raise DataError(f"columns of {sorted(lengths)} rows are not of the same rows")
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise DataError("a confidence lies from 0 to 1, and some do not")

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.confidence)

    def of(self, rows: NDArray[Any]) -> RoutedRows:
        """Some of the rows, by their positions or a mask."""
        return RoutedRows(self.confidence[rows], self.student_right[rows], self.teacher_right[rows])

    def deferred(self, threshold: float) -> Mask:
        """Which rows go to the teacher: those whose confidence is below the threshold, (rows,)."""
        return np.asarray(self.confidence < threshold)

    def right(self, threshold: float) -> Mask:
        """Whether the router's answer is right, (rows,)."""
        return np.where(self.deferred(threshold), self.teacher_right, self.student_right)


def confidence_of(logits: NDArray[Any]) -> Floats:
    """The greatest softmax probability of each row, (rows,), of logits, (rows, classes).

    0 where a logit is not a number: a row without an answer goes to the teacher.
    """
    usable = np.isfinite(logits).all(axis=1)
    found = np.zeros(len(logits))
    found[usable] = scipy.special.softmax(logits[usable].astype(np.float64), axis=1).max(axis=1)
    return np.minimum(found, 1.0)


def split_rows(rows: RoutedRows, *, seed: int) -> tuple[RoutedRows, RoutedRows]:
    """Halves drawn at random: the threshold is chosen on one, and what it does told on the other.

    Raises:
        UsageError: there are too few rows for two halves.
    """
    if rows.size < FEWEST_ROWS:
        raise UsageError(
            f"{rows.size} rows are too few to choose a threshold on one half and to see on the "
            f"other what it does; at least {FEWEST_ROWS} are needed",
            next_step="score the models on more rows (the task's max_samples), in a new run",
        )
    calibration, held_out = split_places(rows.size, seed=seed)
    return rows.of(calibration), rows.of(held_out)


def split_places(size: int, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the rows of either half: those for calibration, those held out."""
    order = np.random.default_rng(seed).permutation(size)
    half = round(size * _HALF)
    return order[:half], order[half:]

"""How a regression errs, and how its numbers stand to the teacher's row by row.

| measure                 | of                                                                    |
|-------------------------|-----------------------------------------------------------------------|
| mean_error              | predictions less the right numbers: too high, too low, another scale  |
| mae_change              | mean absolute error less the teacher's, on the rows that both answered |
| pearson_with_teacher, spearman_with_teacher | correlation of the numbers with the teacher's     |
| difference_mean, difference_p95 | how far the numbers are from the teacher's, either way        |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.correlations import correlates, pearson_sums, spearman_sums
from harness.statistics.intervals import Bounds, bounds
from harness.statistics.metrics import mean_sums
from harness.statistics.paired import Measure, mean_and_tail
from harness.tasks.losses import MOST_EXAMPLES, shortened
from harness.tasks.regression.outcomes import NumberOutcomes
from harness.types.losses import WorstExample

Floats = NDArray[np.float64]


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
            label=f"{outcomes.truth[row]:.4g}",
            teacher_says=f"{teacher.predictions[row]:.4g}",
            variant_says=f"{outcomes.predictions[row]:.4g}",
            loss=float(growth[row]),
        )
        for row in order[:MOST_EXAMPLES]
    )

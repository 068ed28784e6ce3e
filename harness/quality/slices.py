"""On which slices of the samples a variant falls behind its teacher further than elsewhere.

A slice's loss has the interval of `paired_loss` (a language model's is weighed by document). Its
p-value asks whether the loss per sample is greater here than among all other samples, by Welch's
one-sided t test (1947); all slices of a variant are corrected together by Holm's method, which
holds however slices overlap (Benjamini and Hochberg's does not). A slice of fewer than
`FEWEST_SAMPLES` samples is shown without interval and is not tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.losses import Estimate, SliceLoss
from harness.quality.intervals import bounds, side_by_side
from harness.quality.metrics import bit_sums
from harness.quality.outcomes import Outcomes
from harness.quality.pairs import log_likelihood_change_nats
from harness.quality.slicing import Slicing
from harness.quality.statistics import holm, paired_loss

FEWEST_SAMPLES = 30
"""From here on a mean of so few kinds of values is near enough to normal for Welch's test."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def slice_losses(
    outcomes: Outcomes, teacher: Outcomes, divisions: Sequence[Slicing], *, seed: int
) -> tuple[SliceLoss, ...]:
    """Every slice that holds a sample, the greatest loss first, too small ones last.

    Unanswered rows count as wrong for a classifier; a language model's unanswered windows are left
    out. Nothing where the two were not asked the same samples.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        divisions: of these samples.
        seed: of the intervals.
    """
    rows = _paired_rows(outcomes, teacher, seed)
    if rows is None:
        return ()
    found = [
        _slice_loss(rows, slicing, index)
        for slicing in divisions
        for index in range(len(slicing.slices))
        if (rows.answered & (slicing.member == index)).any()
    ]
    return tuple(sorted(_corrected(found), key=lambda one: (one.loss.low is None, -one.loss.value)))


@dataclass(frozen=True)
class _PairedRows:
    """Quality of both on every row, as sums over rows."""

    teacher: Floats
    """What a row adds to the teacher's sum: 1 where right, or bits."""
    variant: Floats
    weight: Floats
    """1, or bytes."""
    answered: Mask
    classifier: bool
    seed: int
    groups: NDArray[np.int64] | None
    """Which rows belong together."""

    @property
    def loss(self) -> Floats:
        """Of each row, positive where the variant is worse; bits per byte for language."""
        if self.classifier:
            return self.teacher - self.variant
        return (self.variant - self.teacher) / self.weight

    def estimate(self, inside: Mask) -> Estimate:
        """The loss over some rows with its interval, where they are enough for one."""
        teacher, variant, weight = self.teacher[inside], self.variant[inside], self.weight[inside]
        change = teacher - variant if self.classifier else variant - teacher
        value = float(change.sum() / weight.sum())
        if inside.sum() < FEWEST_SAMPLES:
            return Estimate(value)
        groups = None if self.groups is None else self.groups[inside]
        if self.classifier:
            found = paired_loss(teacher > 0, variant > 0, seed=self.seed, groups=groups)
        else:
            nats = -np.log(2)
            own, theirs = bit_sums(nats * variant, weight), bit_sums(nats * teacher, weight)
            beside = side_by_side(own, theirs, difference=True)
            found = bounds(beside, seed=self.seed, groups=groups)
        return Estimate(value, found.low, found.high)


def _paired_rows(outcomes: Outcomes, teacher: Outcomes, seed: int) -> _PairedRows | None:
    if outcomes.correct is not None and teacher.correct is not None:
        return _PairedRows(
            teacher.correct.astype(np.float64),
            outcomes.correct.astype(np.float64),
            np.ones(outcomes.size),
            np.ones(outcomes.size, dtype=np.bool_),
            classifier=True,
            seed=seed,
            groups=outcomes.groups,
        )
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None or outcomes.bytes is None or teacher.log_likelihood is None:
        return None
    bits = -teacher.log_likelihood / np.log(2)
    return _PairedRows(
        bits,
        bits - change / np.log(2),
        np.maximum(outcomes.bytes, 1).astype(np.float64),
        np.isfinite(change),
        classifier=False,
        seed=seed,
        groups=outcomes.groups,
    )


def _slice_loss(rows: _PairedRows, slicing: Slicing, index: int) -> SliceLoss:
    inside = rows.answered & (slicing.member == index)
    outside = rows.answered & (slicing.member != index)
    excess, p_value = None, None
    if min(inside.sum(), outside.sum()) >= FEWEST_SAMPLES:
        excess, p_value = _excess(rows.loss[inside], rows.loss[outside])
    weight = rows.weight[inside].sum()
    return SliceLoss(
        slicing=slicing.name,
        name=slicing.slices[index],
        samples=int(inside.sum()),
        teacher=float(rows.teacher[inside].sum() / weight),
        variant=float(rows.variant[inside].sum() / weight),
        loss=rows.estimate(inside),
        excess=excess,
        p_value=p_value,
        training_samples=slicing.training[index] if slicing.training else None,
    )


def _excess(inside: Floats, outside: Floats) -> tuple[float, float]:
    excess = float(inside.mean() - outside.mean())
    if not inside.std() and not outside.std():  # all rows alike: there is nothing to tell apart
        return excess, 1.0
    test = stats.ttest_ind(inside, outside, equal_var=False, alternative="greater")
    return excess, float(test.pvalue)


def _corrected(found: Sequence[SliceLoss]) -> list[SliceLoss]:
    tested = [one for one in found if one.p_value is not None]
    corrected = holm(np.array([one.p_value for one in tested], dtype=np.float64))
    by_place = iter(corrected.tolist())
    return [
        replace(one, p_value=next(by_place)) if one.p_value is not None else one for one in found
    ]

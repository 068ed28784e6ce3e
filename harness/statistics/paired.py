"""Two models on the same rows: tests, differences with intervals, and many tests at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.statistics.intervals import CONFIDENCE, Bounds, RowSums, bounds, share_bounds
from harness.statistics.metrics import mean_sums

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_MOST_CLASSES = 30
_FEWEST_FOR_A_PERCENTILE = 2

Measure = tuple[str, float, float | None, float | None, int]
"""Name, value, both ends of its 95% interval (None: there is none), and rows it rests on."""


def mcnemar_p_value(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """McNemar's exact test that two classifiers err equally often, two-sided.

    Only rows on which exactly one of them is right bear on the question; if they err equally
    often, each such row is a fair coin's toss (McNemar 1947; the exact form by the binomial).

    Args:
        first: whether the first model is right, (rows,).
        second: the second model, on the same rows.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_loss(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Bounds:
    """The 95% interval of the difference of two accuracies on the same rows.

    Like a bootstrap's it is paired, so what both find hard cancels; unlike one it has a width where
    no row is discordant. With few rows Bonett and Price's interval (2012) covers as little as 92.8%
    (one model right on all of 20 rows, the other on 80% of them); this one never less than it says.

    Args:
        before: whether the first model is right, (rows,).
        after: the second model, on the same rows.
        seed: of the weights.
        groups: which rows belong together, (rows,).

    Returns:
        Of the first's accuracy less the second's.
    """
    return bounds(_mean_change(before.astype(np.float64) - after, 1.0), seed=seed, groups=groups)


def _mean_change(change: Floats, most: float) -> RowSums:
    """The mean of changes, (rows,), and the most that a row can change either way."""
    table = np.column_stack([change, np.ones(len(change))])
    if not np.isfinite(most):
        return RowSums(table, lambda sums: sums[..., 0] / sums[..., 1])
    return RowSums(
        table,
        lambda sums: sums[..., 0] / sums[..., 1],
        possible=np.array([[-most, 1.0], [most, 1.0]]),
        limits=(-most, most),
    )


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected for their number (Holm 1979): the chance of a single false alarm.

    It holds whatever the dependence between the tests, which matters where slices overlap.
    """
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def share_measure(name: str, hits: Mask) -> Measure:
    """A share of rows that stand alone, with its exact interval."""
    found = share_bounds(int(hits.sum()), len(hits))
    return name, float(hits.mean()), found.low, found.high, len(hits)


def kappa_measure(own: Integers, theirs: Integers, seed: int) -> Measure:
    """Cohen's kappa of two models' classes, (rows,): (observed - expected) / (1 - expected)."""
    classes = np.union1d(own, theirs)
    table = _kappa_rows(own, theirs, classes)
    value = float(_kappa_of_sums(table.sum(axis=0)))
    found = Bounds(None, None, None, len(own))  # all alike in one class: there is no chance to beat
    if np.isfinite(value):
        few = classes[:_MOST_CLASSES]
        possible = _kappa_rows(np.repeat(few, len(few)), np.tile(few, len(few)), classes)
        kappa = RowSums(table, _kappa_of_sums, possible, limits=(-1.0, 1.0))
        found = bounds(kappa, seed=seed)
    shown = value if np.isfinite(value) else 1.0
    return "cohen_kappa", shown, found.low, found.high, len(own)


def _kappa_rows(own: Integers, theirs: Integers, classes: Integers) -> Floats:
    """Alike or not, the class of each, and 1; (rows, 2 classes + 2)."""
    columns = [own == theirs, own[:, None] == classes, theirs[:, None] == classes]
    return np.column_stack([*columns, np.ones(len(own))]).astype(np.float64)


def _kappa_of_sums(sums: Floats) -> Floats:
    shares = sums[..., :-1] / sums[..., -1:]
    observed = shares[..., 0]
    own, theirs = np.split(shares[..., 1:], 2, axis=-1)
    expected = (own * theirs).sum(axis=-1)
    undefined = np.full_like(observed, np.nan)
    beyond = np.divide(observed - expected, 1 - expected, out=undefined, where=expected < 1)
    return np.asarray(beyond)


def _finite(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)


def mean_and_tail(
    values: Floats,
    names: tuple[str, str],
    share: float,
    seed: int,
    *,
    groups: Integers | None = None,
    floor: float = -np.inf,
) -> Iterator[Measure]:
    """The mean over rows and a quantile of them, each with its interval.

    Args:
        values: (rows,); NaN where one of the two did not answer.
        names: of the two.
        share: of the rows that lie below the quantile.
        seed: of the weights.
        groups: which rows belong together.
        floor: the least that a row can hold.
    """
    usable = np.isfinite(values)
    known = values[usable]
    if len(known) < _FEWEST_FOR_A_PERCENTILE:
        return
    together = None if groups is None else groups[usable]
    found = bounds(mean_sums(known), seed=seed, groups=together)
    low = found.low if found.low is None else max(found.low, floor)
    yield names[0], float(known.mean()), low, found.high, len(known)
    value = float(np.quantile(known, share))
    if together is not None and len(np.unique(together)) < len(together):
        yield names[1], value, None, None, len(known)
        return
    interval = scipy.stats.quantile_test(known, q=value, p=share).confidence_interval(CONFIDENCE)
    # Beyond the largest value order statistics have no bound to give.
    yield names[1], value, *_finite(float(interval.low), float(interval.high)), len(known)


@dataclass(frozen=True)
class PairedRows:
    """A variant and its teacher on the same rows, in the metric that losses are told in."""

    teacher: Floats
    """What each row adds to the teacher's sum: 1 where right, or bits, (rows,)."""
    variant: Floats
    """(rows,) the variant's values."""
    weight: Floats
    """What each row counts: 1, or its bytes."""
    answered: Mask
    """Rows that both answered, or whose lack of an answer counts as wrong."""
    higher_is_better: bool
    interval: Callable[[Floats, Floats, Floats, Integers | None], Bounds]
    """Gives the interval of the loss over some rows, from their `teacher`, `variant`, `weight` and
    groups."""
    groups: Integers | None = None
    """(rows,) which rows belong together."""

    @property
    def loss(self) -> Floats:
        """(rows,) each row's weighted loss, positive where the variant is worse."""
        change = self.teacher - self.variant
        return (change if self.higher_is_better else -change) / self.weight

    def over(self, inside: Mask) -> tuple[float, Bounds]:
        """The loss over some rows, and its interval."""
        teacher, variant, weight = self.teacher[inside], self.variant[inside], self.weight[inside]
        groups = None if self.groups is None else self.groups[inside]
        return self.value(inside), self.interval(teacher, variant, weight, groups)

    def value(self, inside: Mask) -> float:
        """The loss over some rows."""
        change = (self.teacher - self.variant)[inside].sum()
        return float((change if self.higher_is_better else -change) / self.weight[inside].sum())


def paired_scores(
    teacher: NDArray[np.floating | np.bool_],
    variant: NDArray[np.floating | np.bool_],
    *,
    seed: int,
    groups: Integers | None = None,
    answered: Mask | None = None,
    most: float = 1.0,
    higher_is_better: bool = True,
) -> PairedRows:
    """Rows that score alone, and count alike: right or wrong, an overlap, an error.

    Args:
        teacher: each row's score, (rows,).
        variant: the variant's, on the same rows.
        seed: of the intervals.
        groups: which rows belong together.
        answered: rows that count; None for all.
        most: by which the scores of one row can differ; infinite where there is no limit.
        higher_is_better: whether a row's score is.
    """
    before, after = teacher.astype(np.float64), variant.astype(np.float64)

    def interval(first: Floats, second: Floats, _: Floats, together: Integers | None) -> Bounds:
        change = first - second if higher_is_better else second - first
        return bounds(_mean_change(change, most), seed=seed, groups=together)

    return PairedRows(
        before,
        after,
        np.ones(len(before)),
        np.ones(len(before), dtype=np.bool_) if answered is None else answered,
        higher_is_better,
        interval,
        groups,
    )

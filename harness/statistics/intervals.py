"""Confidence intervals of metrics that are functions of sums over rows.

Every metric here is a share, a ratio of sums, an F1 from counts or a correlation, so rows are
weighted at random (Rubin 1981, the Bayesian bootstrap: exponential weights) and the metric of the
weighted sums is taken. A plain bootstrap has no width where all rows agree, and says nothing of the
rows that were not seen; so each bound gets *one more row*, the worst (or the best) that there could
have been, weighted like the others. For the mean of values within known limits that is Gaffke's
bound (2005; Learned-Miller and Thomas 2019), and of plain shares it is Clopper and Pearson's exact
interval: of 20 rows all right, 83.2% to 100%.

Where a metric has no limits (perplexity) the one more row is the most extreme of those seen, and
few units bound little: so the wider, on either side, of this and of a jackknife's interval by
Student's t with one degree of freedom fewer than there are units (Tukey 1958) counts everywhere,
taken of logarithms where a metric is positive and skewed, and of Fisher's z where it is a
correlation.

Rows that belong together (windows of one document) are one unit: they are added up first. From
one unit there is no interval. `docs/statistics.md` says how often all this errs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import scipy
from numpy.typing import NDArray

CONFIDENCE = 0.95
MOST_DRAWS, FEWEST_DRAWS = 10_000, 2_000
_ELEMENTS = 4_000_000
"""Weights drawn in all, as far as `FEWEST_DRAWS` allows: bounds the time to some 0.1 s."""
_BLOCK_ELEMENTS = 2_000_000
"""Weights held at once: bounds the memory to some tens of MB for test splits of any size."""
_ALIKE = 1e-9
"""Rows whose effect on the metric differs by less are alike: what is left is rounding."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """A 95% interval, and what it rests on."""

    low: float | None
    """Lower end; None, as is `high`, where the data allows no interval."""
    high: float | None
    standard_error: float | None
    """Standard error of the metric; 0 where all units agree."""
    units: int
    """Rows, or groups of rows that belong together."""


class Scale(Enum):
    """Where a metric's error is about the same on either side."""

    PLAIN = "plain"
    LOGARITHM = "logarithm"
    """For a positive metric without an upper limit, such as a perplexity."""
    FISHER = "fisher"
    """Fisher's z (1915), the area tangent: of a correlation."""

    def taken(self, values: Floats) -> Floats:
        """Values on this scale; NaN outside the metric's range."""
        if self is Scale.LOGARITHM:
            return np.log(values, out=np.full_like(values, np.nan), where=values > 0)
        if self is Scale.FISHER:
            return np.arctanh(values, out=np.full_like(values, np.nan), where=abs(values) < 1)
        return values

    def back(self, value: float) -> float:
        """The metric's own value of one on this scale."""
        if self is Scale.LOGARITHM:
            # Bounded near float64's end: from two or three units an interval may be as good as none
            return float(np.exp(min(value, 700.0)))
        return float(np.tanh(value)) if self is Scale.FISHER else value

    def error(self, error: float, value: float) -> float:
        """A standard error on this scale as one of the metric, which has that value."""
        if self is Scale.LOGARITHM:
            return error * value
        return error * (1 - value**2) if self is Scale.FISHER else error


@dataclass(frozen=True)
class RowSums:
    """A metric, and what each row adds to the sums that it is made of."""

    table: Floats
    """(rows, columns); the last column is the row's weight: 1, or its bytes."""
    of_sums: Callable[[Floats], Floats]
    """The metric of column sums, (..., columns) -> (...); the same for sums ten times as large."""
    possible: Floats | None = None
    """Rows that there could have been, (rows, columns), the worst and the best among them; None
    where there is no limit to what a row may hold."""
    scale: Scale = Scale.PLAIN
    """The scale that the jackknife is taken on."""
    limits: tuple[float, float] = (-np.inf, np.inf)
    """Lowest and highest possible value of the metric."""
    apart: int | None = None
    """For two models side by side, the number of columns of the first."""


def share_bounds(hits: int, total: int) -> Bounds:
    """The exact interval of a share of independent rows (Clopper and Pearson 1934)."""
    share = hits / total
    exact = scipy.stats.binomtest(hits, total).proportion_ci(CONFIDENCE, method="exact")
    error = float(np.sqrt(share * (1 - share) / total))
    return Bounds(float(exact.low), float(exact.high), error, total)


def bounds(metric: RowSums, *, seed: int, groups: Integers | None = None) -> Bounds:
    """The interval of a metric.

    Args:
        metric: of at least one row.
        seed: of the weights.
        groups: which rows belong together, (rows,); None where each stands alone.
    """
    units = grouped(metric.table, groups)
    count = len(units)
    rows, counts = np.unique(units, axis=0, return_counts=True)
    extremes = _extremes(metric, rows, len(metric.table) / count)
    without = metric.of_sums(counts @ rows - rows) if count > 1 else None
    error = _jackknife_error(metric.scale, without, counts)
    if extremes is None or (count == 1 and groups is not None):
        return Bounds(None, None, error, count)
    value = float(np.atleast_1d(metric.of_sums(counts @ rows))[0])
    drawn = _weighted(metric, rows, counts, extremes, seed)
    return _joined(metric, value, drawn, error, count)


def _joined(
    metric: RowSums,
    value: float,
    drawn: tuple[Floats, Floats],
    error: float | None,
    units: int,
) -> Bounds:
    """The wider, on either side, of the weighted rows' interval and of the jackknife's.

    Args:
        metric: whose interval it is.
        value: of the metric.
        drawn: the metric under random weights, with the worst and with the best unit added.
        error: the jackknife's, on the metric's scale; None where there is none.
        units: rows, or groups of rows that belong together.
    """
    tail = (1 - CONFIDENCE) / 2
    if any(np.mean(~np.isfinite(one)) > tail for one in drawn):
        # A ratio whose denominator may be nothing, or less: any value may be true.
        return Bounds(None, None, None, units)
    ends = [_quantiles(drawn)]
    if error is not None:
        ends.append(_students(metric.scale, value, error, units))
        error = metric.scale.error(error, value)
    ends = [pair for pair in ends if np.isfinite(pair).all()]
    if not ends:
        return Bounds(None, None, error, units)
    low, high = min(pair[0] for pair in ends), max(pair[1] for pair in ends)
    least, most = metric.limits
    return Bounds(max(low, least), min(high, most), error, units)


def grouped(table: Floats, groups: Integers | None) -> Floats:
    """Rows that belong together added up, (units, columns)."""
    if groups is None:
        return table
    names, place = np.unique(groups, return_inverse=True)
    units = np.zeros((len(names), table.shape[1]))
    np.add.at(units, place, table)
    return units


def side_by_side(first: RowSums, second: RowSums, *, difference: bool = False) -> RowSums:
    """Two models on the same rows: the first's metric over the second's, or less it.

    The rows that could have been are the first's worst beside the second's best, and the reverse.
    """
    split = first.table.shape[1]

    def of_sums(sums: Floats) -> Floats:
        mine, theirs = first.of_sums(sums[..., :split]), second.of_sums(sums[..., split:])
        return _beside(mine, theirs, difference=difference)

    possible = None
    if first.possible is not None and second.possible is not None:
        mine = _two_extremes(first, first.possible)
        theirs = _two_extremes(second, second.possible)
        possible = np.array([np.hstack([mine[0], theirs[1]]), np.hstack([mine[1], theirs[0]])])
    return RowSums(
        np.hstack([first.table, second.table]),
        of_sums,
        possible,
        scale=_scale_beside(first.scale, difference=difference),
        limits=_limits_beside(first.limits, difference=difference),
        apart=split,
    )


def _beside(mine: Floats, theirs: Floats, *, difference: bool) -> Floats:
    if difference:
        return mine - theirs
    return np.divide(mine, theirs, out=np.full_like(mine, np.nan), where=theirs > 0)


def _scale_beside(scale: Scale, *, difference: bool) -> Scale:
    """The scale of a ratio: the positive metric's; none for differences and correlations."""
    return scale if scale is Scale.LOGARITHM and not difference else Scale.PLAIN


def _limits_beside(limits: tuple[float, float], *, difference: bool) -> tuple[float, float]:
    if difference:
        return limits[0] - limits[1], limits[1] - limits[0]
    return (0.0, np.inf) if limits[0] >= 0 else (-np.inf, np.inf)


def on_units(
    first: RowSums,
    first_groups: Integers | None,
    second: RowSums,
    second_groups: Integers | None,
) -> tuple[RowSums, RowSums]:
    """Two models on the same units: documents; where these are not known, none holds both.

    A row of either table is then a unit, of zeros where the model was not asked of it.
    """
    if first_groups is None or second_groups is None:
        first_groups = np.arange(len(first.table))
        second_groups = np.arange(len(second.table)) + len(first_groups)
    names = np.union1d(first_groups, second_groups)
    return (
        _spread(first, np.searchsorted(names, first_groups), len(names)),
        _spread(second, np.searchsorted(names, second_groups), len(names)),
    )


def _spread(sums: RowSums, place: Integers, units: int) -> RowSums:
    """One row a unit, zero where it was not asked."""
    table = np.zeros((units, sums.table.shape[1]))
    table[np.unique(place)] = grouped(sums.table, place)
    return replace(sums, table=table)


def _two_extremes(sums: RowSums, possible: Floats) -> Floats:
    values = sums.of_sums(sums.table.sum(axis=0) + possible)
    return possible[[int(np.nanargmin(values)), int(np.nanargmax(values))]]


def _extremes(sums: RowSums, rows: Floats, rows_a_unit: float) -> Floats | None:
    """One more unit that lowers the metric most, and one that raises it most; (2, columns).

    None where there is no limit and all that was seen is alike, so that nothing tells how far a
    unit not seen may lie.
    """
    if sums.possible is not None:
        # Of two side by side they are in order, also where the second is nothing with the worst.
        beside = sums.apart is not None
        return (sums.possible if beside else _two_extremes(sums, sums.possible)) * rows_a_unit
    seen = _of_mean_weight(rows, sums.apart)
    values = sums.of_sums(rows.sum(axis=0) + seen)
    if np.ptp(values) <= _ALIKE * abs(values).max() and sums.apart is not None:
        # Two models that agree on every unit: one not seen may part them as units lie apart.
        seen = _crossed(seen, sums.apart)
        values = sums.of_sums(rows.sum(axis=0) + seen)
    if np.isnan(values).all() or np.ptp(values) <= _ALIKE * abs(values).max():
        return None
    return seen[[int(np.nanargmin(values)), int(np.nanargmax(values))]]


def _of_mean_weight(rows: Floats, apart: int | None) -> Floats:
    """Units as if each had the weight of an average one; those without any are left out."""
    weights = rows[:, -1]
    if apart is not None:  # units that only the first model was asked have its weight
        weights = np.where(weights > 0, weights, rows[:, apart - 1])
    known = weights > 0
    alike: Floats = rows[known] * (weights[known].mean() / weights[known])[:, None]
    return alike


def _crossed(seen: Floats, split: int) -> Floats:
    """The first model on its easiest unit beside the second on its hardest, and the reverse."""
    easiness = seen[:, split]
    first, last = int(easiness.argmin()), int(easiness.argmax())
    return np.array(
        [
            np.hstack([seen[first, :split], seen[last, split:]]),
            np.hstack([seen[last, :split], seen[first, split:]]),
        ]
    )


def _weighted(
    sums: RowSums, rows: Floats, counts: Integers, extremes: Floats, seed: int
) -> tuple[Floats, Floats]:
    """The metric under random weights, with the worst and with the best unit added."""
    rng = np.random.default_rng(seed)
    draws = min(MOST_DRAWS, max(FEWEST_DRAWS, _ELEMENTS // len(rows)))
    block = max(1, _BLOCK_ELEMENTS // len(rows))
    lows, highs = [], []
    for start in range(0, draws, block):
        size = min(block, draws - start)
        if (counts == 1).all():
            weights = rng.standard_exponential((size, len(rows)))
        else:
            weights = rng.standard_gamma(counts, (size, len(rows)))
        more = rng.standard_exponential((size, 1))
        seen = weights @ rows
        lows.append(sums.of_sums(seen + more * extremes[0]))
        highs.append(sums.of_sums(seen + more * extremes[1]))
    return np.concatenate(lows), np.concatenate(highs)


def _quantiles(drawn: tuple[Floats, Floats]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = (one[np.isfinite(one)] for one in drawn)
    if not len(low) or not len(high):
        return np.nan, np.nan
    return float(np.quantile(low, tail)), float(np.quantile(high, 1 - tail))


def _jackknife_error(scale: Scale, without: Floats | None, counts: Integers) -> float | None:
    """Standard error on a scale; None from one unit, or where one decides all.

    Args:
        scale: of the metric.
        without: the metric with one unit of each sort left out, (sorts,).
        counts: units of each sort, (sorts,).
    """
    if without is None:
        return None
    values = scale.taken(without)
    if not np.isfinite(values).all():
        return None
    count = int(counts.sum())
    mean = float(counts @ values) / count
    return float(np.sqrt((count - 1) / count * (counts @ np.square(values - mean))))


def _students(scale: Scale, value: float, error: float, units: int) -> tuple[float, float]:
    centre = float(scale.taken(np.array([value]))[0])
    half = float(scipy.special.stdtrit(units - 1, (1 + CONFIDENCE) / 2)) * error
    return scale.back(centre - half), scale.back(centre + half)

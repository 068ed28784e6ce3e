"""The metrics, each as a function of sums over rows, so that rows can be weighted.

| metric          | of sums over rows                              | better |
|-----------------|------------------------------------------------|--------|
| accuracy        | correct / rows                                 | higher |
| label_perplexity| exp(-log likelihood of right classes / rows)   | lower  |
| macro_f1        | mean over classes of 2 hits / (answers + truth)| higher |
| exact_match, f1 | SQuAD's of each question / questions           | higher |
| perplexity      | exp(-log likelihood / tokens)                  | lower  |
| bits_per_byte   | -log likelihood / (bytes ln 2)                 | lower  |
| word_perplexity | exp(-log likelihood / words)                   | lower  |
| byte_perplexity | exp(-log likelihood / bytes)                   | lower  |

Macro-F1 averages over the classes that occur in the labels, so it averages alike for every model.
Perplexity is per token of the model's own tokenizer; the other three compare across tokenizers (as
lm-evaluation-harness defines them, whose words are what white space parts).

Metrics of a number a row: Pearson's and Spearman's correlation with the truth, MAE and RMSE.

| metric   | of n rows                                                  | better |
|----------|------------------------------------------------------------|--------|
| pearson  | covariance over the product of both standard deviations    | higher |
| spearman | the same of ranks, equal values sharing their mean rank    | higher |
| mae      | mean of the absolute errors, in the unit of the labels     | lower  |
| rmse     | root of the mean of the squared errors, in the same unit   | lower  |

Pearson's is a function of sums over rows. Spearman's is not, since a row moves the ranks of others;
its interval rests on each row's own part in it and what it does to the others' ranks (the
projection of Hajek 1968), of which it is a function of sums up to terms that vanish with the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import UnknownMetricError
from harness.metrics import metric_named, quality_metrics
from harness.statistics.intervals import Bounds, RowSums, Scale, bounds, share_bounds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Statistic:
    """A metric of one model over some rows.

    Raises:
        UnknownMetricError: `harness.metrics` has no metric of quality of that name.
    """

    metric: str
    value: float
    sums: RowSums
    """How the statistic follows from the rows."""
    hits: NDArray[np.bool_] | None = None
    """(rows,) which rows count, for a plain share."""

    def __post_init__(self) -> None:
        if not metric_named(self.metric).is_quality:
            raise UnknownMetricError(self.metric, [one.name for one in quality_metrics()])

    def bounds(self, *, seed: int, groups: Integers | None = None) -> Bounds:
        """The 95% interval; exact where it is a plain share of rows that stand alone.

        Args:
            seed: of the weights.
            groups: which rows belong together, (rows,).
        """
        if self.hits is not None and groups is None:
            return share_bounds(int(self.hits.sum()), len(self.hits))
        return bounds(self.sums, seed=seed, groups=groups)


def share_statistic(metric: str, scores: NDArray[Any], value: float | None = None) -> Statistic:
    """A mean over rows that score 0 to 1 each, (rows,); the value where a library computed it."""
    return Statistic(
        metric,
        float(np.mean(scores)) if value is None else value,
        mean_sums(scores, limits=(0.0, 1.0)),
        scores if scores.dtype == np.bool_ else None,
    )


def mean_sums(values: NDArray[Any], *, limits: tuple[float, float] | None = None) -> RowSums:
    """A mean over rows, (rows,), and what a row can hold at the least and at the most."""
    return RowSums(
        columns(values, np.ones(len(values))),
        lambda sums: ratio(sums[..., 0], sums[..., 1]),
        possible=None if limits is None else columns(np.array(limits), np.ones(2)),
        limits=(-np.inf, np.inf) if limits is None else limits,
    )


def perplexity_sums(log_likelihood: Floats, weights: NDArray[Any]) -> RowSums:
    """exp(-nats / weights), both (rows,)."""
    return RowSums(columns(log_likelihood, weights), _perplexity, scale=Scale.LOGARITHM)


def bit_sums(log_likelihood: Floats, weights: NDArray[Any]) -> RowSums:
    """Bits a unit of weight, of nats; both (rows,)."""
    return RowSums(columns(log_likelihood, weights), _bits, scale=Scale.LOGARITHM)


def columns(*values: NDArray[Any]) -> Floats:
    """Columns of a table of sums, (rows, columns)."""
    return np.column_stack(values).astype(np.float64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element; NaN where there is nothing to divide by."""
    undefined = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def sums_statistic(metric: str, sums: RowSums) -> Statistic:
    """A metric whose value follows from its sums over all rows."""
    return Statistic(metric, float(sums.of_sums(sums.table.sum(axis=0))), sums)


def _perplexity(sums: Floats) -> Floats:
    # Bounded near float64's end, so that a model broken beyond measure still has a number.
    return np.exp(np.minimum(-ratio(sums[..., 0], sums[..., 1]), 700.0))


def _bits(sums: Floats) -> Floats:
    return np.asarray(-ratio(sums[..., 0], sums[..., 1]) / np.log(2))


_FLAT = 1e-12
"""Share of the values' size: a spread below it is rounding, and correlates with nothing."""


def regression_statistics(truth: Floats, predictions: Floats) -> tuple[Statistic, ...]:
    """Correlations and errors of predicted numbers, both (rows,) and finite.

    The correlations are left out where they are not defined: of fewer than three rows, and where
    the model (or the truth) says the same of every row.
    """
    error = predictions - truth
    statistics = [
        Statistic("mae", float(np.abs(error).mean()), _error_sums(np.abs(error), _mean)),
        Statistic("rmse", float(np.sqrt(np.square(error).mean())), _error_sums(error**2, _root)),
    ]
    if not correlates(truth, predictions):
        return tuple(statistics)
    return (
        Statistic(
            "pearson",
            float(scipy.stats.pearsonr(truth, predictions).statistic),
            pearson_sums(truth, predictions),
        ),
        Statistic(
            "spearman",
            float(scipy.stats.spearmanr(truth, predictions).statistic),
            spearman_sums(truth, predictions),
        ),
        *statistics,
    )


def correlates(first: Floats, second: Floats) -> bool:
    """Whether a correlation of two columns, (rows,) each, is defined."""
    return len(first) > 2 and not _is_flat(first) and not _is_flat(second)  # noqa: PLR2004


def pearson_sums(first: Floats, second: Floats) -> RowSums:
    """Pearson's correlation of two columns, (rows,) each, as a function of sums."""
    # Shifted and scaled, which changes no correlation: sums of squares then lose no digits.
    x, y = _standardised(first), _standardised(second)
    table = np.column_stack([x * y, x, y, x * x, y * y, np.ones(len(x))])
    return RowSums(table, _pearson_of_sums, scale=Scale.FISHER, limits=(-1.0, 1.0))


def spearman_sums(first: Floats, second: Floats) -> RowSums:
    """Spearman's correlation of two columns, (rows,) each, as a function of sums.

    The covariance of the ranks and both variances, each as a mean over rows of what a row adds to
    it: the product of its own two ranks, and what it adds to the ranks of the rows above it.
    """
    x, y = _Ranks(first), _Ranks(second)
    moments = [_added(one, other) for one, other in ((x, y), (x, x), (y, y))]
    table = np.column_stack([*moments, np.ones(len(first))])
    return RowSums(table, _spearman_of_sums, scale=Scale.FISHER, limits=(-1.0, 1.0))


def _added(first: _Ranks, second: _Ranks) -> Floats:
    """What each row adds to the covariance of two columns' ranks, which is the mean, (rows,)."""
    product = first.rank * second.rank
    whole = product + first.raised(second.rank) + second.raised(first.rank)
    return np.asarray(whole - 2 * product.mean())


class _Ranks:
    """Mean ranks of a column's values as shares of the rows, centred: from -0.5 to 0.5."""

    def __init__(self, values: Floats) -> None:
        self._size = len(values)
        self.rank: Floats = (scipy.stats.rankdata(values) - (self._size + 1) / 2) / self._size
        self._distinct, self._place = np.unique(self.rank, return_inverse=True)

    def raised(self, weights: Floats) -> Floats:
        """The mean over rows of a weight, (rows,), times whether each row raises their rank.

        It raises those above it by one, and those that share its value by a half.
        """
        at = np.bincount(self._place, weights, len(self._distinct)) / self._size
        above = at[::-1].cumsum()[::-1] - at / 2
        centred: Floats = above[self._place]
        return centred


def _is_flat(values: Floats) -> bool:
    return float(np.ptp(values)) <= _FLAT * float(np.abs(values).max(initial=0.0))


def _standardised(values: Floats) -> Floats:
    centred: Floats = values - values.mean()
    return centred / (centred.std() or 1.0)


def _pearson_of_sums(sums: Floats) -> Floats:
    both, x, y, x_squared, y_squared, weight = np.moveaxis(sums, -1, 0)
    covariance = both * weight - x * y
    spread = (x_squared * weight - x**2) * (y_squared * weight - y**2)
    return _correlation(np.asarray(covariance), np.asarray(spread), np.asarray(weight))


def _spearman_of_sums(sums: Floats) -> Floats:
    covariance, x, y, weight = np.moveaxis(sums, -1, 0)
    spread = np.maximum(x, 0) * np.maximum(y, 0)
    return _correlation(np.asarray(covariance), np.asarray(spread), np.sqrt(np.asarray(weight)))


def _correlation(covariance: Floats, spread: Floats, size: Floats) -> Floats:
    """Covariance over the root of the product of the variances; NaN where there is no spread."""
    undefined = np.full_like(covariance, np.nan)
    defined = spread > (_FLAT * size**2) ** 2
    found = np.divide(covariance, np.sqrt(np.maximum(spread, 0)), out=undefined, where=defined)
    return np.clip(found, -1.0, 1.0)


def _error_sums(errors: Floats, of_sums: Callable[[Floats], Floats]) -> RowSums:
    """A function of the mean of errors, (rows,), none of them below 0."""
    table = np.column_stack([errors, np.ones(len(errors))])
    return RowSums(table, of_sums, scale=Scale.LOGARITHM, limits=(0.0, np.inf))


def _mean(sums: Floats) -> Any:
    return sums[..., 0] / np.maximum(sums[..., 1], np.finfo(float).tiny)


def _root(sums: Floats) -> Any:
    return np.sqrt(np.maximum(_mean(sums), 0.0))

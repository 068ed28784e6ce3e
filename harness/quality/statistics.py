"""Intervals by resampling rows, and the paired test of two classifiers.

Every metric here is a function of sums over rows (a share, a ratio of sums, an F1 from counts), so
a bootstrap resample is a matrix product: how often each row was drawn, times what the row adds to
each sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

CONFIDENCE = 0.95
RESAMPLES = 2000
_BLOCK_ELEMENTS = 2_000_000
"""Draws held at once: bounds the memory to some tens of MB for test splits of any size."""


def resampled_sums(
    table: NDArray[np.float64], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Column sums over `resamples` bootstrap draws of the table's rows.

    The draws depend on the seed and the number of rows alone: two tables of equally many rows,
    resampled with one seed, are resampled *together*, which is what pairs two models.

    Args:
        table: (rows, columns), what each row adds to each sum.
        seed: of the draws.
        resamples: number of draws, each of as many rows as the table has.

    Returns:
        (resamples, columns).
    """
    rows = len(table)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, table.shape[1]))
    block = max(1, _BLOCK_ELEMENTS // rows)
    for start in range(0, resamples, block):
        draws = min(block, resamples - start)
        picked = rng.integers(rows, size=(draws, rows)) + np.arange(draws)[:, None] * rows
        counts = np.bincount(picked.ravel(), minlength=draws * rows).reshape(draws, rows)
        sums[start : start + draws] = counts.astype(np.float64) @ table
    return sums


def percentile_interval(
    values: NDArray[np.float64], *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Resamples in which the metric is undefined (no row of any class that counts) are left out.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[np.isfinite(values)], [tail, 1 - tail])
    return float(low), float(high)


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
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_loss(
    lost: NDArray[np.int64] | int, gained: NDArray[np.int64] | int, rows: NDArray[np.int64] | int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The difference of two accuracies on the same rows, with its 95% interval.

    Bonett and Price's adjusted Wald interval (2012, Journal of Educational and Behavioral
    Statistics 37, 479-488): one row is added to either kind of discordant ones. Unlike a
    bootstrap's it has a width where no row is discordant. Whole arrays at a time.

    Args:
        lost: rows that only the first answered rightly.
        gained: rows that only the second did.
        rows: all of them.

    Returns:
        The first's accuracy less the second's, and its bounds.
    """
    first, second, total = np.asarray(lost), np.asarray(gained), np.asarray(rows)
    down, up = (first + 1) / (total + 2), (second + 1) / (total + 2)
    half = norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((down + up - (down - up) ** 2) / (total + 2))
    low, high = np.maximum(down - up - half, -1.0), np.minimum(down - up + half, 1.0)
    return (first - second) / total, low, high


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected for their number (Holm 1979): the chance of a single false alarm.

    It holds whatever the dependence between the tests, which matters where slices overlap.
    """
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected

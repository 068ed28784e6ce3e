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
Perplexity is per token of the model's own tokenizer; the other three compare across tokenizers
(as lm-evaluation-harness defines them, whose words are what white space parts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
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
    """How it follows from the rows."""
    hits: NDArray[np.bool_] | None = None
    """For a plain share, which rows count, (rows,)."""

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

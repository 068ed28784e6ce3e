"""The metrics, each as a function of sums over rows, so that rows can be weighted.

| metric          | of sums over rows                              | better |
|-----------------|------------------------------------------------|--------|
| accuracy        | correct / rows                                 | higher |
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
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.quality.intervals import Bounds, RowSums, Scale, bounds, share_bounds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_MOST_CLASSES = 30
"""Among which the worst and the best row are sought: the rarest, whose F1 a row moves most."""


@dataclass(frozen=True)
class Statistic:
    """A metric of one model over some rows."""

    metric: str
    value: float
    sums: RowSums
    """How it follows from the rows."""
    hits: NDArray[np.bool_] | None = None
    """Of a plain share: which rows count, (rows,)."""

    def bounds(self, *, seed: int, groups: Integers | None = None) -> Bounds:
        """The 95% interval; exact where it is a plain share of rows that stand alone.

        Args:
            seed: of the weights.
            groups: which rows belong together, (rows,).
        """
        if self.hits is not None and groups is None:
            return share_bounds(int(self.hits.sum()), len(self.hits))
        return bounds(self.sums, seed=seed, groups=groups)


def classification_statistics(labels: Integers, predictions: Integers) -> tuple[Statistic, ...]:
    """Accuracy and macro-F1 of predicted class indices, both (rows,).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    metrics = _sklearn_metrics()
    classes = np.unique(labels)
    return (
        share_statistic(
            "accuracy",
            labels == predictions,
            value=float(metrics.accuracy_score(labels, predictions)),
        ),
        Statistic(
            "macro_f1",
            float(metrics.f1_score(labels, predictions, labels=classes, average="macro")),
            _f1_sums(labels[:, None] == classes, predictions[:, None] == classes),
        ),
    )


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
        _columns(values, np.ones(len(values))),
        lambda sums: _ratio(sums[..., 0], sums[..., 1]),
        possible=None if limits is None else _columns(np.array(limits), np.ones(2)),
        limits=(-np.inf, np.inf) if limits is None else limits,
    )


def language_statistics(
    log_likelihood: Floats, tokens: Integers, byte_counts: Integers, words: Integers | None
) -> tuple[Statistic, ...]:
    """Perplexity by token, word and byte, and bits per byte, of windows of text.

    Args:
        log_likelihood: natural logarithm, summed over a window's scored tokens, (rows,).
        tokens: scored tokens of each window, (rows,).
        byte_counts: UTF-8 bytes that these tokens stand for, (rows,).
        words: words between white space that end in those bytes, (rows,). Without any (text in
            a script that parts no words) there is no perplexity by word.
    """
    statistics = [
        _likelihood_statistic("perplexity", perplexity_sums(log_likelihood, tokens)),
        _likelihood_statistic("bits_per_byte", bit_sums(log_likelihood, byte_counts)),
        _likelihood_statistic("byte_perplexity", perplexity_sums(log_likelihood, byte_counts)),
    ]
    if words is not None and words.any():
        by_word = perplexity_sums(log_likelihood, words)
        statistics.insert(2, _likelihood_statistic("word_perplexity", by_word))
    return tuple(statistics)


def perplexity_sums(log_likelihood: Floats, weights: NDArray[Any]) -> RowSums:
    """exp(-nats / weights), both (rows,)."""
    return RowSums(_columns(log_likelihood, weights), _perplexity, scale=Scale.LOGARITHM)


def bit_sums(log_likelihood: Floats, weights: NDArray[Any]) -> RowSums:
    """Bits a unit of weight, of nats; both (rows,)."""
    return RowSums(_columns(log_likelihood, weights), _bits, scale=Scale.LOGARITHM)


def _sklearn_metrics() -> ModuleType:
    try:
        import sklearn.metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "quality") from error
    return cast(ModuleType, sklearn.metrics)


def _columns(*columns: NDArray[Any]) -> Floats:
    return np.column_stack(columns).astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element; NaN where there is nothing to divide by."""
    undefined = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _f1_sums(truth: NDArray[np.bool_], answers: NDArray[np.bool_]) -> RowSums:
    """Two columns a class: hits, and answers plus truth; arguments are (rows, classes)."""
    table = _columns(truth & answers, truth.astype(np.int64) + answers, np.ones(len(truth)))
    return RowSums(table, _macro_f1, _possible_answers(table), limits=(0.0, 1.0))


def _possible_answers(table: Floats) -> Floats:
    """A row of any class answered as any other, as none (the last), and rightly."""
    classes = table.shape[1] // 2
    rarest = np.argsort(table[:, classes:-1].sum(axis=0), kind="stable")[:_MOST_CLASSES]
    one = np.eye(classes)[rarest]
    truth = np.repeat(one, len(one) + 1, axis=0)
    answer = np.tile(np.vstack([one, np.zeros(classes)]), (len(one), 1))
    return _columns(truth * answer, truth + answer, np.ones(len(truth)))


def _macro_f1(sums: Floats) -> Floats:
    hits, answers_and_truth = np.split(sums[..., :-1], 2, axis=-1)
    # Where no row of a class is left it has no F1, and is left out.
    return np.asarray(np.nanmean(_ratio(2 * hits, answers_and_truth), axis=-1))


def _likelihood_statistic(metric: str, sums: RowSums) -> Statistic:
    return Statistic(metric, float(sums.of_sums(sums.table.sum(axis=0))), sums)


def _perplexity(sums: Floats) -> Floats:
    # Bounded near float64's end, so that a model broken beyond measure still has a number.
    return np.exp(np.minimum(-_ratio(sums[..., 0], sums[..., 1]), 700.0))


def _bits(sums: Floats) -> Floats:
    return np.asarray(-_ratio(sums[..., 0], sums[..., 1]) / np.log(2))

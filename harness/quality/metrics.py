"""The metrics, each as a function of sums over rows, so that rows can be resampled.

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

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.quality.statistics import resampled_sums

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Statistic:
    """A metric of one model over some rows, ready to be resampled."""

    metric: str
    value: float
    table: Floats
    """What each row adds to each sum, (rows, columns)."""
    of_sums: Callable[[Floats], Floats]
    """The metric of column sums, (..., columns) -> (...)."""

    def resampled(self, seed: int) -> Floats:
        """The metric over bootstrap resamples of the rows, (resamples,)."""
        return self.of_sums(resampled_sums(self.table, seed=seed))


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
            _f1_table(labels[:, None] == classes, predictions[:, None] == classes),
            _macro_f1_of_sums,
        ),
    )


def share_statistic(metric: str, scores: NDArray[Any], value: float | None = None) -> Statistic:
    """A mean over rows that score 0 to 1 each, (rows,); the value where a library computed it."""
    return Statistic(
        metric,
        float(np.mean(scores)) if value is None else value,
        _columns(scores, np.ones(len(scores))),
        lambda sums: _ratio(sums[..., 0], sums[..., 1]),
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
    by_byte = _columns(log_likelihood, byte_counts)
    statistics = [
        _likelihood_statistic("perplexity", _columns(log_likelihood, tokens), _perplexity),
        _likelihood_statistic("bits_per_byte", by_byte, _bits),
        _likelihood_statistic("byte_perplexity", by_byte, _perplexity),
    ]
    if words is not None and words.any():
        by_word = _columns(log_likelihood, words)
        statistics.insert(2, _likelihood_statistic("word_perplexity", by_word, _perplexity))
    return tuple(statistics)


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


def _f1_table(truth: NDArray[np.bool_], answers: NDArray[np.bool_]) -> Floats:
    """Two columns a class: hits, and answers plus truth; arguments are (rows, classes)."""
    return _columns(truth & answers, truth.astype(np.int64) + answers)


def _macro_f1_of_sums(sums: Floats) -> Floats:
    hits, answers_and_truth = np.split(sums, 2, axis=-1)
    # A class that a resample neither holds nor predicts has no F1 there, and is left out there.
    return np.asarray(np.nanmean(_ratio(2 * hits, answers_and_truth), axis=-1))


def _likelihood_statistic(
    metric: str, table: Floats, of_sums: Callable[[Floats], Floats]
) -> Statistic:
    return Statistic(metric, float(of_sums(table.sum(axis=0))), table, of_sums)


def _perplexity(sums: Floats) -> Floats:
    # Bounded near float64's end, so that a model broken beyond measure still has a number.
    return np.exp(np.minimum(-_ratio(sums[..., 0], sums[..., 1]), 700.0))


def _bits(sums: Floats) -> Floats:
    return np.asarray(-_ratio(sums[..., 0], sums[..., 1]) / np.log(2))

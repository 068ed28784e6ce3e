"""Entity precision, recall and F1, and token accuracy, as functions of sums over sentences.

Micro-averaged over all entities, as conlleval and seqeval count: an entity is right where type,
first and last word are. Sentences are what is weighted for intervals: the entities of one belong
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import RowSums
from harness.statistics.metrics import Statistic
from harness.tasks.token_classification.tags import Entity

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EntityCounts:
    """Entities of each sentence, (sentences,) each."""

    right: Integers
    """Predicted with type, first and last word as they are."""
    predicted: Integers
    true: Integers

    @property
    def sums(self) -> RowSums:
        """The sums that F1 is computed from, by row."""
        return self.sums_of(f1_of)

    @property
    def f1(self) -> float:
        """Over all sentences, 0 to 1; 0 where there is no entity at all."""
        return float(f1_of(self.sums.table.sum(axis=0)))

    def sums_of(self, metric: Callable[[Floats], Floats]) -> RowSums:
        """Of a metric of the sums (right, predicted, true, sentences)."""
        table = np.column_stack(
            [self.right, self.predicted, self.true, np.ones(len(self.true))]
        ).astype(np.float64)
        # At most as many as the fullest sentence: none right, or all.
        most = float(max(1, self.true.max(initial=0), self.predicted.max(initial=0)))
        possible = np.array([[0.0, most, most, 1.0], [most, most, most, 1.0]])
        return RowSums(table, metric, possible, limits=(0.0, 1.0))


def count_entities(
    predicted: Sequence[frozenset[Entity]],
    true: Sequence[frozenset[Entity]],
    *,
    kind: str | None = None,
) -> EntityCounts:
    """Count the entities of each sentence.

    Args:
        predicted: a set a sentence.
        true: likewise, for the same sentences.
        kind: type that is counted; None counts all.
    """
    rows = np.array(
        [
            (len(own & right), len(own), len(right))
            for own, right in zip(map(_of(kind), predicted), map(_of(kind), true), strict=True)
        ],
        dtype=np.int64,
    ).reshape(-1, 3)
    return EntityCounts(rows[:, 0], rows[:, 1], rows[:, 2])


def tagging_statistics(
    counts: EntityCounts, right_words: Integers, words: Integers
) -> tuple[Statistic, ...]:
    """F1, precision and recall of entities, and the share of words with the right tag.

    Args:
        counts: of each sentence.
        right_words: words of each sentence that have the right tag, (sentences,).
        words: words of each sentence, (sentences,).

    Returns:
        One each, in this order. Of data without entities the three of entities are 0.
    """
    most = float(words.max(initial=1))
    accuracy = RowSums(
        np.column_stack([right_words, words]).astype(np.float64),
        lambda sums: _ratio(sums[..., 0], sums[..., 1]),
        np.array([[0.0, most], [most, most]]),
        limits=(0.0, 1.0),
    )
    return (
        _statistic("entity_f1", counts.sums_of(f1_of)),
        _statistic("entity_precision", counts.sums_of(_precision)),
        _statistic("entity_recall", counts.sums_of(_recall)),
        _statistic("token_accuracy", accuracy),
    )


def f1_of(sums: Floats) -> Floats:
    """F1 of sums whose first columns are right, predicted and true, (..., 3 or more) -> (...)."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _precision(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 1])


def _recall(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 2])


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element by element; 0 where there is nothing to divide by, as seqeval has it."""
    nothing = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)


def _statistic(metric: str, sums: RowSums) -> Statistic:
    return Statistic(metric, float(sums.of_sums(sums.table.sum(axis=0))), sums)


def _of(kind: str | None) -> Callable[[frozenset[Entity]], frozenset[Entity]]:
    if kind is None:
        return lambda entities: entities
    return lambda entities: frozenset(one for one in entities if one[0] == kind)

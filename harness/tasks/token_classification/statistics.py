"""Entity precision, recall and F1, and where a token classifier lost entities.

Micro-averaged over all entities, as conlleval and seqeval count: an entity is right where type,
first and last word are. Sentences are what is weighted for intervals: the entities of one belong
together.

Where a token classifier lost entities: from step to step, by type, and by length of sentence. All
of it is in entity F1. A difference's interval weighs sentences, paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import RowSums, bounds, side_by_side
from harness.statistics.metrics import Statistic
from harness.statistics.paired import Measure, share_measure
from harness.tasks.losses import Division, Step, shortened
from harness.tasks.token_classification.outcomes import Entities, TaggedOutcomes
from harness.tasks.token_classification.tags import Entity
from harness.types.losses import ChainLink, Estimate, LossChain, SliceLoss, WorstExample

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
        """A metric's value from the sums (right, predicted, true, sentences)."""
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


METRIC = "entity_f1"
FEWEST_SENTENCES = 30
"""Fewest sentences from which a slice has an interval."""
_QUARTILES = (0.25, 0.5, 0.75)
_MOST_EXAMPLES = 10

Mask = NDArray[np.bool_]


def counts_of(
    outcomes: TaggedOutcomes, inside: Mask | None = None, kind: str | None = None
) -> EntityCounts:
    """Entities of some sentences, of one type or of all."""
    found, true = outcomes.entities, outcomes.true_entities
    if inside is not None:
        rows = np.flatnonzero(inside).tolist()
        found, true = _entities_of(found, rows), _entities_of(true, rows)
    return count_entities(found, true, kind=kind)


def lost_f1(before: EntityCounts, after: EntityCounts, *, seed: int) -> Estimate:
    """F1 before less F1 after, on the same sentences."""
    first, second = before.sums, after.sums
    value = before.f1 - after.f1
    found = bounds(side_by_side(first, second, difference=True), seed=seed)
    return Estimate(value, found.low, found.high)


def entity_chain(steps: Sequence[Step[TaggedOutcomes]], *, seed: int) -> LossChain:
    """The loss of entity F1 from step to step; an unanswered sentence has no entity found."""
    counts = [counts_of(step.outcomes) for step in steps]
    links = [ChainLink(steps[0].name, counts[0].f1, Estimate(0.0), 0)]
    for place, step in enumerate(steps[1:], 1):
        pairs = zip(steps[place - 1].outcomes.entities, step.outcomes.entities, strict=True)
        changed = sum(old != new for old, new in pairs)
        lost = lost_f1(counts[place - 1], counts[place], seed=seed)
        links.append(ChainLink(step.name, counts[place].f1, lost, changed))
    total = lost_f1(counts[0], counts[-1], seed=seed)
    return LossChain(METRIC, steps[0].outcomes.size, 0, tuple(links), total)


def slices_of_tags(
    outcomes: TaggedOutcomes,
    teacher: TaggedOutcomes,
    divisions: Sequence[Division],
    *,
    seed: int,
) -> tuple[SliceLoss, ...]:
    """Loss of entity F1 by type of entity, words in the sentence and columns of the data.

    The greatest comes first, what is too small for an interval last.
    """
    found = [*_by_type(outcomes, teacher, seed), *_by_length(outcomes, teacher, seed)]
    for division in divisions:
        if division.name != "characters":  # words are counted
            found += _by_division(outcomes, teacher, division, seed)
    return tuple(sorted(found, key=lambda one: (one.loss.low is None, -one.loss.value)))


def tagged_measures(outcomes: TaggedOutcomes, teacher: TaggedOutcomes, seed: int) -> list[Measure]:
    """Sentences that became right or wrong, that are answered alike, and entities in common."""
    measures = [
        share_measure("right_to_wrong", teacher.correct & ~outcomes.correct),
        share_measure("wrong_to_right", outcomes.correct & ~teacher.correct),
    ]
    both = ~outcomes.unanswered & ~teacher.unanswered
    rows = np.flatnonzero(both).tolist()
    if not rows:
        return measures
    own, theirs = _entities_of(outcomes.entities, rows), _entities_of(teacher.entities, rows)
    alike = np.array([mine == other for mine, other in zip(own, theirs, strict=True)])
    measures.append(share_measure("agreement", alike))
    counts = count_entities(own, theirs)
    if counts.true.sum() + counts.predicted.sum():
        span = bounds(counts.sums, seed=seed)
        measures.append(("entity_agreement", counts.f1, span.low, span.high, len(rows)))
    return measures


def worst_sentences(
    outcomes: TaggedOutcomes, teacher: TaggedOutcomes, texts: Sequence[str]
) -> tuple[WorstExample, ...]:
    """The sentences in which the most entities were lost that the teacher finds."""
    own, theirs = counts_of(outcomes), counts_of(teacher)
    lost = _errors(own) - _errors(theirs)
    order = np.argsort(-lost, kind="stable")[:_MOST_EXAMPLES]
    return tuple(
        WorstExample(
            row=row,
            text=shortened(texts[row]),
            label=_words(outcomes.true_entities[row]),
            teacher_says=_words(teacher.entities[row]),
            variant_says=_words(outcomes.entities[row]),
            loss=float(lost[row]),
        )
        for row in order.tolist()
        if lost[row] > 0
    )


def _by_type(outcomes: TaggedOutcomes, teacher: TaggedOutcomes, seed: int) -> list[SliceLoss]:
    kinds = sorted({kind for true in outcomes.true_entities for kind, _, _ in true})
    if len(kinds) < 2:  # noqa: PLR2004  (one type is all of it)
        return []
    found = []
    for kind in kinds:
        own, theirs = counts_of(outcomes, kind=kind), counts_of(teacher, kind=kind)
        enough = int((own.true > 0).sum()) >= FEWEST_SENTENCES
        found.append(_slice("entity type", kind, int(own.true.sum()), own, theirs, seed, enough))
    return found


def _by_length(outcomes: TaggedOutcomes, teacher: TaggedOutcomes, seed: int) -> list[SliceLoss]:
    edges = np.unique(np.quantile(outcomes.words, _QUARTILES))
    edges = edges[edges < outcomes.words.max()]
    member = np.searchsorted(edges, outcomes.words, side="left")
    found = []
    for band in range(len(edges) + 1) if len(edges) else ():
        inside = member == band
        low = int(outcomes.words[inside].min())
        high = int(outcomes.words[inside].max())
        name = f"{low} to {high}" if high > low else f"{low}"
        own, theirs = counts_of(outcomes, inside), counts_of(teacher, inside)
        size = int(inside.sum())
        if own.true.any():
            enough = size >= FEWEST_SENTENCES
            found.append(_slice("words", name, size, own, theirs, seed, enough))
    return found


def _by_division(
    outcomes: TaggedOutcomes, teacher: TaggedOutcomes, division: Division, seed: int
) -> list[SliceLoss]:
    found = []
    for place, name in enumerate(division.slices):
        inside = division.member == place
        own, theirs = counts_of(outcomes, inside), counts_of(teacher, inside)
        size = int(inside.sum())
        if own.true.any():
            enough = size >= FEWEST_SENTENCES
            found.append(_slice(division.name, name, size, own, theirs, seed, enough))
    return found


def _slice(
    slicing: str,
    name: str,
    size: int,
    own: EntityCounts,
    theirs: EntityCounts,
    seed: int,
    enough: bool,
) -> SliceLoss:
    loss = lost_f1(theirs, own, seed=seed) if enough else Estimate(theirs.f1 - own.f1)
    return SliceLoss(
        slicing=slicing,
        name=name,
        samples=size,
        teacher=theirs.f1,
        variant=own.f1,
        loss=loss,
        excess=None,
        p_value=None,
        training_samples=None,
    )


def _errors(counts: EntityCounts) -> NDArray[np.int64]:
    """Entities missed and entities made up, of each sentence."""
    return counts.true + counts.predicted - 2 * counts.right


def _entities_of(entities: Entities, rows: Sequence[int]) -> Entities:
    return tuple(entities[row] for row in rows)


def _words(entities: frozenset[tuple[str, int, int]]) -> str:
    """Entities in the order of the sentence, words counted from 1: `PER 1-2, LOC 5`."""
    found = sorted(entities, key=lambda one: one[1:])
    return (
        ", ".join(
            f"{kind} {first + 1}" + (f"-{last + 1}" if last > first else "")
            for kind, first, last in found
        )
        or "none"
    )

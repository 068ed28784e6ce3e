"""Which class is taken for which: by the labels, where outputs are mixed up, and by the teacher.

A student that was trained with its classes in another order, or a checkpoint whose id2label is
another's, is right about the text and wrong about the name: accuracy near 0, and looks like a bad
distillation. It shows in the confusion matrix, as classes that are nearly always taken for one
other class, each for another. The relabelling that makes most rows right (Kuhn 1955, by scipy's
`linear_sum_assignment`) is told where

- it moves at least two classes, each of at least `FEWEST_ROWS` rows, and no class that it moves
  is taken by two: what a bad model confuses goes one way, what is mixed up goes both;
- of each of them at most a fifth is right as it stands, and most are afterwards;
- over all of them it is right as far above chance as the model that it is compared with is
  (at least `ENOUGH` of that), chance being what the two margins alone give;
- so many hits by chance (binomial) would come, over all the permutations that there are of this
  many classes, less than once in a thousand such models.

The score is not touched: what is served says what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.tasks.classification.outcomes import NO_PREDICTION, LabelOutcomes
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.classification.statistics import (
    log_probabilities,
    names_of,
    predictions_in_order_of,
)
from harness.tasks.losses import MOST_EXAMPLES, LossDetails, shortened
from harness.types.losses import ConfusionShift, Relabelling, WorstExample
from harness.words.numbers import percent

FEWEST_ROWS = 5
MOST_RIGHT_BEFORE = 0.2
FEWEST_RIGHT_AFTER = 0.5
ENOUGH = 0.7
USUAL = 0.7
"""Accuracy that is asked for where there is no other model to be compared with."""
LUCK = 1e-3

Integers = NDArray[np.int64]


def find_relabelling(
    outcomes: LabelOutcomes,
    labels: Integers,
    *,
    called: Sequence[str],
    family: str,
    teacher: LabelOutcomes | None = None,
    reference: float = USUAL,
) -> Relabelling | None:
    """The relabelling that a classifier's outputs cry for; None for all others.

    Looked for beside the labels and, where those show none, beside the teacher's answers: a
    student may be mixed up on a task that the teacher itself is often wrong on.

    Args:
        outcomes: of the classifier.
        labels: class indices in its own order, (rows,).
        called: what the checkpoint calls its outputs, in their order.
        family: it belongs to.
        teacher: outcomes of the teacher; None for the teacher itself.
        reference: accuracy of what it is compared with: its teacher's.
    """
    names, predictions = names_of(outcomes), outcomes.predictions
    if not names:
        return None
    found = _beside(labels, predictions, len(names), reference)
    if found is None and teacher is not None:
        truth = predictions_in_order_of(outcomes, teacher)
        found = _beside(truth, predictions, len(names), USUAL)
    if found is None:
        return None
    taken_for, moved = found
    means = list(called)
    for label in moved:
        means[taken_for[label]] = names[label]
    mended = np.arange(len(names))
    mended[[taken_for[label] for label in moved]] = moved
    answered = predictions != NO_PREDICTION
    after = np.where(answered, mended[predictions], NO_PREDICTION)
    return Relabelling(
        variant=outcomes.variant,
        family=family,
        called=tuple(called),
        means=tuple(_with_the_displaced(means, names, moved, taken_for)),
        accuracy=float((predictions == labels).mean()),
        mended=float((after == labels).mean()),
        samples=len(labels),
    )


def _beside(
    truth: Integers, predictions: Integers, classes: int, reference: float
) -> tuple[list[int], list[int]] | None:
    """The output taken for each class, and the classes that are mixed up; None for none."""
    usable = (predictions != NO_PREDICTION) & (truth >= 0) & (truth < classes)
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (truth[usable], predictions[usable]), 1)
    taken_for = _assignment(counts)
    moved = _moved(counts, taken_for)
    if len(moved) < 2:  # noqa: PLR2004  (one class alone is a confusion)
        return None
    enough = _beyond_luck(_evidence(counts, taken_for, moved), reference)
    return (taken_for, moved) if enough else None


def _assignment(counts: Integers) -> list[int]:
    """For each class, the output under which most rows come out right; its own in a tie."""
    rows, outputs = scipy.optimize.linear_sum_assignment(
        2 * counts + np.eye(len(counts), dtype=np.int64), maximize=True
    )
    return [int(outputs[place]) for place in np.argsort(rows)]


def _moved(counts: Integers, taken_for: Sequence[int]) -> list[int]:
    """Classes that are taken for another, clearly, along with all that take part in it."""
    rows = counts.sum(axis=1)
    moved = {
        label
        for label, output in enumerate(taken_for)
        if output != label
        and rows[label] >= FEWEST_ROWS
        and counts[label, label] <= MOST_RIGHT_BEFORE * rows[label]
        and counts[label, output] >= FEWEST_RIGHT_AFTER * rows[label]
    }
    while True:
        # An output whose own class has rows, and stays, is taken by two.
        torn = {one for one in moved if rows[taken_for[one]] and taken_for[one] not in moved}
        if not torn:
            return sorted(moved)
        moved -= torn


class _Evidence(NamedTuple):
    rows: int
    hits: int
    """Rows that are right after relabelling."""
    chance: float
    """Share of hits that the margins alone give."""
    permutations: float
    """Natural logarithm of the number of ways to choose so many classes and to permute them."""


def _evidence(counts: Integers, taken_for: Sequence[int], moved: Sequence[int]) -> _Evidence:
    outputs = [taken_for[label] for label in moved]
    inside = counts[list(moved)]
    rows = int(inside.sum())
    of_label = inside.sum(axis=1) / max(rows, 1)
    of_output = inside.sum(axis=0)[outputs] / max(rows, 1)
    return _Evidence(
        rows,
        int(counts[list(moved), outputs].sum()),
        float((of_label * of_output).sum()),
        math.lgamma(len(moved) + 1) + math.log(math.comb(len(counts), len(moved))),
    )


def _beyond_luck(evidence: _Evidence, reference: float) -> bool:
    rows, hits, chance, permutations = evidence
    if not rows or chance >= 1:
        return False
    skill = (hits / rows - chance) / (1 - chance)
    wanted = ENOUGH * max((reference - chance) / (1 - chance), 0.0)
    if wanted <= 0 or skill < wanted:
        return False
    return bool(scipy.stats.binom.logsf(hits - 1, rows, chance) + permutations < math.log(LUCK))


def _with_the_displaced(
    means: list[str], names: Sequence[str], moved: Sequence[int], taken_for: Sequence[int]
) -> list[str]:
    """Let the outputs that lost their class stand for those of which no row was seen.

    A shift by one leaves the first output without a class, and the last class without an output.
    """
    outputs = {taken_for[label] for label in moved}
    missing = [name for label, name in enumerate(names) if label in outputs - set(moved)]
    for label in moved:
        if label not in outputs and missing:
            means[label] = missing.pop(0)
    return means


MOST_SHIFTS = 10
MOST_CLASSES = 20
"""Most classes of a matrix that can still be read."""
NO_ANSWER = "(no answer)"


def confusions(
    outcomes: LabelOutcomes, teacher: LabelOutcomes, labels: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Samples by class and answer, of the teacher and of the variant.

    Args:
        outcomes: of a classifier.
        teacher: of another, whose numbering of the classes holds.
        labels: class indices, (rows,).

    Returns:
        (2, classes, answers): the teacher's first; the last answer is none at all. None where the
        variant knows classes that the teacher does not, or nobody names the teacher's.
    """
    own = predictions_in_order_of(teacher, outcomes)
    classes = len(names_of(teacher))
    if not classes or own.max(initial=0) >= classes:
        return None
    counts = np.zeros((2, classes, classes + 1), dtype=np.int64)
    for place, predictions in enumerate((teacher.predictions, own)):
        answers = np.where(predictions == NO_PREDICTION, classes, predictions)
        np.add.at(counts[place], (labels, answers), 1)
    return counts


def confusion_shifts(counts: NDArray[np.int64], names: Sequence[str]) -> tuple[ConfusionShift, ...]:
    """The confusions that became more frequent, the greatest increase first.

    Args:
        counts: as `confusions` gives them.
        names: of the classes.
    """
    change = counts[1] - counts[0]
    np.fill_diagonal(change, 0)
    answers = [*names, NO_ANSWER]
    order = np.argsort(-change, axis=None, kind="stable")[:MOST_SHIFTS]
    places = [divmod(int(place), change.shape[1]) for place in order]
    return tuple(
        ConfusionShift(names[a], answers[b], int(counts[0, a, b]), int(counts[1, a, b]))
        for a, b in places
        if change[a, b] > 0
    )


def worst_examples(
    outcomes: LabelOutcomes,
    teacher: LabelOutcomes,
    labels: NDArray[np.int64],
    texts: Sequence[str],
) -> tuple[WorstExample, ...]:
    """The samples whose right answer became the least probable beside the teacher.

    Only those that the teacher has right and the variant wrong.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        labels: class indices in the teacher's order, (rows,).
        texts: a row each.
    """
    names = names_of(teacher)
    before = log_probabilities(teacher)
    after = log_probabilities(outcomes, names)
    if before is None or after is None or not names:
        return ()
    rows = np.arange(len(labels))
    drop = before[rows, labels] - after[rows, labels]
    flipped = teacher.correct & ~outcomes.correct & np.isfinite(drop)
    order = [row for row in np.argsort(-np.where(flipped, drop, -np.inf)) if flipped[row]]
    return tuple(
        WorstExample(
            row=int(row),
            text=shortened(texts[row]),
            label=names[labels[row]],
            teacher_says=_says(names, before[row]),
            variant_says=_says(names, after[row]),
            loss=float(drop[row]),
        )
        for row in order[:MOST_EXAMPLES]
    )


def _says(names: Sequence[str], distribution: NDArray[np.float64]) -> str:
    best = int(distribution.argmax())
    return f"{names[best]} ({percent(np.exp(distribution[best]))})"


def class_details(
    outcomes: LabelOutcomes,
    teacher: LabelOutcomes,
    dataset: LabelledDataset,
    texts: Sequence[str],
) -> LossDetails:
    """Examples and confusions of a variant beside its teacher, for people.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        dataset: as the teacher takes it: its labels and names of classes.
        texts: a row each.
    """
    names = dataset.label_names
    examples = worst_examples(outcomes, teacher, dataset.labels, texts)
    counts = confusions(outcomes, teacher, dataset.labels)
    if counts is None or not names:
        return LossDetails(examples)
    drawn = len(names) <= MOST_CLASSES
    change: list[list[int]] = (counts[1] - counts[0]).tolist()
    return LossDetails(
        examples,
        confusion_shifts(counts, names),
        names if drawn else (),
        tuple(map(tuple, change)) if drawn else (),
    )

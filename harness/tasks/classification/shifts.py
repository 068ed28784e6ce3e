"""Which class is now taken for which, and the samples on which a variant falls furthest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.tasks.classification.outcomes import NO_PREDICTION, LabelOutcomes
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.classification.statistics import (
    log_probabilities,
    names_of,
    predictions_in_order_of,
)
from harness.tasks.losses import MOST_EXAMPLES, LossDetails, shortened
from harness.types.losses import ConfusionShift, WorstExample

MOST_SHIFTS = 10
MOST_CLASSES = 20
"""Beyond, a matrix of classes cannot be read."""
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
    return f"{names[best]} ({np.exp(distribution[best]):.0%})"


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

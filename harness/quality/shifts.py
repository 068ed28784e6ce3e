"""Which class is now taken for which, and the samples on which a variant falls furthest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.quality.outcomes import NO_PREDICTION, Outcomes
from harness.quality.pairs import (
    log_likelihood_change_nats,
    log_probabilities,
    predictions_in_order_of,
)
from harness.types.losses import ConfusionShift, WorstExample

MOST_SHIFTS = 10
MOST_EXAMPLES = 10
MOST_CLASSES = 20
"""Beyond, a matrix of classes cannot be read."""
MOST_CHARACTERS = 280
NO_ANSWER = "(no answer)"


def confusions(
    outcomes: Outcomes, teacher: Outcomes, labels: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Samples by class and answer, of the teacher and of the variant.

    Args:
        outcomes: of a classifier.
        teacher: of another, whose numbering of the classes holds.
        labels: class indices, (rows,).

    Returns:
        (2, classes, answers): the teacher's first; the last answer is none at all. None for a
        language model, or where the variant knows classes that the teacher does not.
    """
    own = predictions_in_order_of(teacher, outcomes)
    if own is None or teacher.predictions is None or teacher.label_names is None:
        return None
    classes = len(teacher.label_names)
    if own.max(initial=0) >= classes:
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
    outcomes: Outcomes,
    teacher: Outcomes,
    labels: NDArray[np.int64] | None,
    texts: Sequence[str],
) -> tuple[WorstExample, ...]:
    """The samples whose right answer became the least probable beside the teacher.

    Of a classifier only those that the teacher has right and the variant wrong; of a language
    model, windows by the change a token.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        labels: class indices in the teacher's order, (rows,); None for a language model.
        texts: a row each.
    """
    if labels is None:
        return _worst_windows(outcomes, teacher, texts)
    before = log_probabilities(teacher)
    after = log_probabilities(outcomes, teacher.label_names)
    own = predictions_in_order_of(teacher, outcomes)
    names = teacher.label_names
    if before is None or after is None or own is None or names is None:
        return ()
    if teacher.correct is None or outcomes.correct is None:
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


def shortened(text: str) -> str:
    """One line, cut at the end."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"


def _says(names: Sequence[str], distribution: NDArray[np.float64]) -> str:
    best = int(distribution.argmax())
    return f"{names[best]} ({np.exp(distribution[best]):.0%})"


def _worst_windows(
    outcomes: Outcomes, teacher: Outcomes, texts: Sequence[str]
) -> tuple[WorstExample, ...]:
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None or outcomes.tokens is None:
        return ()
    drop = np.where(np.isfinite(change), -change / np.maximum(outcomes.tokens, 1), -np.inf)
    order = [row for row in np.argsort(-drop)[:MOST_EXAMPLES] if drop[row] > 0]
    return tuple(
        WorstExample(int(row), shortened(texts[row]), "", "", "", float(drop[row])) for row in order
    )

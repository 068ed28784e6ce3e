"""A model whose outputs stand for other labels than they are called by: found, never fixed.

A student that was trained with its labels in another order, or a checkpoint whose id2label is
another's, gives the right labels under wrong names: its F1 is what chance gives, and looks like a
bad distillation. It shows in Cohen's kappa of every label with every output. The relabelling that
makes their sum greatest (Kuhn 1955, by scipy's `linear_sum_assignment`) is told where

- it moves at least two labels, each of at least `FEWEST_ROWS` rows, and no label that it moves is
  taken by an output whose own label stays: labels that come together go one way, what is mixed up
  goes both;
- each of them has a kappa of at most a fifth as it stands, and of more than a half afterwards;
- so many hits by chance (hypergeometric, label by label) would come, over all the permutations that
  there are of this many labels, less than once in a thousand such models.

The score is not touched: what is served says what it says.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.tasks.multi_label.outcomes import LabelSetOutcomes, in_order
from harness.tasks.multi_label.rows import LabelSetDataset
from harness.types.losses import Relabelling

FEWEST_ROWS = 5
MOST_BEFORE = 0.2
LEAST_AFTER = 0.5
LUCK = 1e-3

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def find_relabelling(
    outcomes: LabelSetOutcomes, dataset: LabelSetDataset, family: str
) -> Relabelling | None:
    """The relabelling that a model's outputs cry for; None for all others.

    Its accuracies are subset accuracies: of rows that are given exactly the right labels.

    Args:
        outcomes: the variant's.
        dataset: the test split as this model takes it.
        family: of the study, which the variant belongs to.
    """
    names = dataset.class_names
    given = in_order(outcomes.given, outcomes.label_names, names, missing=False)
    truth = dataset.labels
    hits = truth.T.astype(np.int64) @ given.astype(np.int64)
    kappas = _kappas(hits, truth, given)
    taken_for = _assignment(kappas)
    moved = _moved(kappas, truth.sum(axis=0), taken_for)
    if len(moved) < 2 or not _beyond_luck(hits, truth, given, taken_for, moved):  # noqa: PLR2004
        return None
    called = list(dataset.label_names)
    means, mended = list(called), given.copy()
    for label in moved:
        means[taken_for[label]] = names[label]
        mended[:, label] = given[:, taken_for[label]]
    for output in {taken_for[label] for label in moved} - set(moved):
        mended[:, output] = False  # which label it is given for is not known
    return Relabelling(
        variant=outcomes.variant,
        family=family,
        called=tuple(called),
        means=tuple(means),
        accuracy=float((given == truth).all(axis=1).mean()),
        mended=float((mended == truth).all(axis=1).mean()),
        samples=len(truth),
    )


def _kappas(hits: Integers, truth: NDArray[np.bool_], given: NDArray[np.bool_]) -> Floats:
    """Cohen's kappa of each label (rows) with each output (columns); 0 where both are constant."""
    rows = len(truth)
    right, said = truth.mean(axis=0)[:, None], given.mean(axis=0)[None, :]
    observed = 1 - right - said + 2 * hits / rows
    expected = right * said + (1 - right) * (1 - said)
    none = np.zeros_like(observed)
    found: Floats = np.divide(observed - expected, 1 - expected, out=none, where=expected < 1)
    return found


def _assignment(kappas: Floats) -> list[int]:
    """For each label, its output in the assignment with the most kappa; its own in a tie."""
    tie = 1e-9 * np.eye(len(kappas))
    labels, outputs = scipy.optimize.linear_sum_assignment(kappas + tie, maximize=True)
    return [int(outputs[place]) for place in np.argsort(labels)]


def _moved(kappas: Floats, rows: Integers, taken_for: list[int]) -> list[int]:
    """Labels that another output stands for, clearly, along with all that take part in it."""
    moved = {
        label
        for label, output in enumerate(taken_for)
        if output != label
        and rows[label] >= FEWEST_ROWS
        and kappas[label, label] <= MOST_BEFORE
        and kappas[label, output] > LEAST_AFTER
    }
    while True:
        # An output whose own label has rows, and stays, is that label's.
        torn = {one for one in moved if rows[taken_for[one]] and taken_for[one] not in moved}
        if not torn:
            return sorted(moved)
        moved -= torn


def _beyond_luck(
    hits: Integers,
    truth: NDArray[np.bool_],
    given: NDArray[np.bool_],
    taken_for: list[int],
    moved: list[int],
) -> bool:
    rows, support, answers = len(truth), truth.sum(axis=0), given.sum(axis=0)
    chance = sum(
        float(
            scipy.stats.hypergeom.logsf(
                hits[label, taken_for[label]] - 1, rows, support[label], answers[taken_for[label]]
            )
        )
        for label in moved
    )
    permutations = math.lgamma(len(moved) + 1) + math.log(math.comb(len(support), len(moved)))
    return chance + permutations < math.log(LUCK)

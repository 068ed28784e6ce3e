"""How good a multi-label classifier is, and how it stands to its teacher row by row.

| metric                 | of                                                          | better |
|------------------------|-------------------------------------------------------------|--------|
| micro_f1               | 2 hits / (labels given + labels that are right), over all   | higher |
| macro_f1               | the same of each label, averaged over those that occur      | higher |
| subset_accuracy        | rows that were given exactly the right labels / rows        | higher |
| mean_average_precision | precision at each row that has a label, the rows ordered by | higher |
|                        | its logit, averaged; then over the labels that occur        |        |

Labels are compared by name: two checkpoints may number them differently. A row without an answer
was given no label, and is never right as a whole.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.statistics.intervals import RowSums, bounds
from harness.statistics.metrics import (
    Statistic,
    columns,
    mean_sums,
    ratio,
    share_statistic,
    sums_statistic,
)
from harness.statistics.paired import Measure, mean_and_tail, share_measure
from harness.tasks.losses import MOST_EXAMPLES, LossDetails, shortened
from harness.tasks.multi_label.outcomes import LabelSetOutcomes, ScoredLabelSets, in_order
from harness.tasks.multi_label.rows import NO_LABEL, LabelSetDataset
from harness.types.losses import ConfusionShift, WorstExample

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NOT_GIVEN, NOT_RIGHT = "(not given)", "(given wrongly)"
_MOST_SHIFTS = 10
_SURE = 30.0
"""A logit beyond which a probability is as good as 0 or 1."""


def label_set_statistics(
    outcomes: LabelSetOutcomes, dataset: LabelSetDataset, kept: Mask
) -> tuple[Statistic, ...]:
    """Micro-F1, macro-F1, subset accuracy and mean average precision over some rows.

    The values follow from the sums: of a single column scikit-learn's `f1_score` takes an average
    over its zeros and its ones.
    """
    names = tuple(dict.fromkeys((*dataset.class_names, *outcomes.label_names)))
    truth = in_order(dataset.labels, dataset.class_names, names, missing=False)[kept]
    given = in_order(outcomes.given, outcomes.label_names, names, missing=False)[kept]
    right = (truth == given).all(axis=1) & ~outcomes.unanswered[kept]
    statistics = [share_statistic("subset_accuracy", right)]
    if truth.any():
        occurs = truth.any(axis=0)
        statistics = [
            sums_statistic("micro_f1", micro_f1_sums(truth, given)),
            sums_statistic("macro_f1", macro_f1_sums(truth[:, occurs], given[:, occurs])),
            *statistics,
        ]
        if isinstance(outcomes, ScoredLabelSets):
            statistics.append(_average_precision(outcomes, names, truth, kept))
    return tuple(statistics)


def _average_precision(
    outcomes: ScoredLabelSets, names: tuple[str, ...], truth: Mask, kept: Mask
) -> Statistic:
    """Average precision of the labels that occur; an unanswered row ranks below all others."""
    occurs = truth.any(axis=0)
    logits = in_order(outcomes.logits, outcomes.label_names, names, missing=np.nan)[kept]
    scores = np.nan_to_num(logits[:, occurs].astype(np.float64), nan=-np.inf, neginf=-np.inf)
    return sums_statistic(
        "mean_average_precision", average_precision_sums(truth[:, occurs], scores)
    )


def micro_f1_sums(truth: Mask, given: Mask) -> RowSums:
    """F1 over all labels of all rows, (rows, labels) each.

    The worst row that there could have been has as many labels wrong, and the best as many right,
    as the fullest row seen has labels given or right.
    """
    hits, labels = _counts(truth, given)
    most = float(labels.max(initial=1.0))
    possible = np.array([[0.0, most, 1.0], [most / 2, most, 1.0]])
    table = columns(hits, labels, np.ones(len(hits)))
    return RowSums(table, _micro_f1, possible, limits=(0.0, 1.0))


def macro_f1_sums(truth: Mask, given: Mask) -> RowSums:
    """F1 of each label, averaged; (rows, labels) each.

    The worst row that there could have been has the rarest labels wrong, and the best has them
    right: as many as the fullest row seen has.
    """
    table = columns(truth & given, truth.astype(np.int64) + given, np.ones(len(truth)))
    _, labels = _counts(truth, given)
    count = truth.shape[1]
    most = min(count, max(1, int(labels.max(initial=1.0))))
    rarest = np.argsort(table[:, count:-1].sum(axis=0), kind="stable")[:most]
    one = np.zeros(count)
    one[rarest] = 1.0
    possible = np.array([[*(0 * one), *one, 1.0], [*one, *(2 * one), 1.0]])
    return RowSums(table, _macro_f1, possible, limits=(0.0, 1.0))


def average_precision_sums(truth: Mask, scores: Floats) -> RowSums:
    """The average precision of each label, averaged; (rows, labels) each.

    A row moves the precision at every row that scores less, so that this is not a function of sums;
    it is one up to terms that vanish with the rows, of what each row adds (its own precision, and
    what it does to those of the rows below it). The worst row that there could have been scores
    highest on the rarest labels and has none of them, the best has them.
    """
    added = [_added_precision(truth[:, one], scores[:, one]) for one in range(truth.shape[1])]
    table = columns(np.column_stack([one for one, _ in added]), truth, np.ones(len(truth)))
    _, labels = _counts(truth, truth)
    rarest = np.argsort(truth.sum(axis=0), kind="stable")[: max(1, int(labels.max()) // 2)]
    worst, best, one = np.zeros((3, truth.shape[1]))
    for label in rarest:
        worst[label], best[label] = added[label][1]
        one[label] = 1.0
    possible = np.array([[*worst, *(0 * one), 1.0], [*best, *one, 1.0]])
    return RowSums(table, _mean_of_ratios, possible, limits=(0.0, 1.0))


def _added_precision(truth: Mask, scores: Floats) -> tuple[Floats, tuple[float, float]]:
    """What each row adds to a label's average precision, times the share of rows that have it.

    Returns:
        That, (rows,), and the same of one more row that scores above all others: without the label,
        and with it.
    """
    _, place = np.unique(-scores, return_inverse=True)
    size, yes = len(scores), truth.astype(np.float64)
    at_or_above = np.bincount(place).cumsum() / size
    right = np.bincount(place, yes).cumsum() / size
    positives = np.bincount(place, yes) / size
    # From the lowest score up: what a row does to the precision at each row at or below its own.
    raised = (positives / at_or_above)[::-1].cumsum()[::-1]
    lowered = (positives * right / at_or_above**2)[::-1].cumsum()[::-1]
    added = yes * (right / at_or_above + raised)[place] - lowered[place]
    return added, (-float(lowered[0]), 1.0 + float(raised[0] - lowered[0]))


def _mean_of_ratios(sums: Floats) -> Floats:
    precision, labels = np.split(sums[..., :-1], 2, axis=-1)
    return np.asarray(np.nanmean(ratio(precision, labels), axis=-1))


def _counts(truth: Mask, given: Mask) -> tuple[Floats, Floats]:
    """Hits of each row, and labels given plus labels that are right."""
    hits = (truth & given).sum(axis=1).astype(np.float64)
    return hits, (truth.sum(axis=1) + given.sum(axis=1)).astype(np.float64)


def _micro_f1(sums: Floats) -> Floats:
    return ratio(2 * sums[..., 0], sums[..., 1])


def _macro_f1(sums: Floats) -> Floats:
    hits, labels = np.split(sums[..., :-1], 2, axis=-1)
    # A label that no weighted row has, and that none was given, has no F1, and is left out.
    return np.asarray(np.nanmean(ratio(2 * hits, labels), axis=-1))


def kl_to_teacher_nats(outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes) -> Floats | None:
    """KL(teacher || variant) of each row, summed over its labels, (rows,); NaN where unanswered.

    Each label is there or not, on its own. None where the two know different labels, or an ensemble
    names them alone.
    """
    if not isinstance(outcomes, ScoredLabelSets) or not isinstance(teacher, ScoredLabelSets):
        return None
    if sorted(outcomes.label_names) != sorted(teacher.label_names):
        return None
    order = teacher.label_names
    own = in_order(outcomes.logits, outcomes.label_names, order, missing=np.nan)
    mine, theirs = own.astype(np.float64), teacher.logits.astype(np.float64)
    there = scipy.special.expit(theirs)
    yes = there * (scipy.special.log_expit(theirs) - scipy.special.log_expit(mine))
    no = (1 - there) * (scipy.special.log_expit(-theirs) - scipy.special.log_expit(-mine))
    divergence: Floats = np.maximum((yes + no).sum(axis=1), 0.0)
    return divergence


def paired_measures(
    outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes, seed: int
) -> list[Measure]:
    """Flips of whole rows, agreement in all labels and label by label, and divergence."""
    names = tuple(dict.fromkeys((*teacher.label_names, *outcomes.label_names)))
    own = in_order(outcomes.given, outcomes.label_names, names, missing=False)
    theirs = in_order(teacher.given, teacher.label_names, names, missing=False)
    both = ~outcomes.unanswered & ~teacher.unanswered
    measures = [
        share_measure("right_to_wrong", teacher.correct & ~outcomes.correct),
        share_measure("wrong_to_right", outcomes.correct & ~teacher.correct),
    ]
    if both.any():
        same = (own == theirs)[both]
        measures.append(share_measure("agreement", same.all(axis=1)))
        share = same.mean(axis=1)
        found = bounds(mean_sums(share, limits=(0.0, 1.0)), seed=seed)
        measures.append(("label_agreement", float(share.mean()), found.low, found.high, len(share)))
    divergence = kl_to_teacher_nats(outcomes, teacher)
    if divergence is not None:
        names_of = ("kl_mean_nats", "kl_p95_nats")
        measures += mean_and_tail(divergence, names_of, 0.95, seed, floor=0.0)
    return measures


def certainty(outcomes: ScoredLabelSets) -> Floats:
    """How probable a model finds the very labels it gave, all together, (rows,)."""
    logits = outcomes.logits.astype(np.float64)
    return np.asarray(np.exp(_log_likelihood(logits, outcomes.given)))


def _log_likelihood(logits: Floats, labels: Mask) -> Floats:
    """Natural logarithm of the probability of each row's labels, (rows,)."""
    # Where a model is next to certain its logit only measures how it was trained.
    bounded = np.clip(logits, -_SURE, _SURE)
    return np.asarray(scipy.special.log_expit(np.where(labels, bounded, -bounded)).sum(axis=1))


def label_set_details(
    outcomes: LabelSetOutcomes,
    teacher: LabelSetOutcomes,
    dataset: LabelSetDataset,
    texts: tuple[str, ...],
) -> LossDetails:
    """The samples that fell furthest, and the labels that are missed, or given wrongly, more often.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        dataset: as the teacher takes it: its labels and their names.
        texts: a row each.
    """
    if not isinstance(outcomes, ScoredLabelSets) or not isinstance(teacher, ScoredLabelSets):
        return LossDetails()
    if set(dataset.class_names) - set(outcomes.label_names):
        return LossDetails()
    names = dataset.class_names
    mine = in_order(outcomes.given, outcomes.label_names, names, missing=False)
    theirs = in_order(teacher.given, teacher.label_names, names, missing=False)
    truth = dataset.labels
    shifts = []
    for label, name in enumerate(dataset.label_names):
        asked, before, after = truth[:, label], theirs[:, label], mine[:, label]
        missed = ConfusionShift(name, NOT_GIVEN, _sum(asked & ~before), _sum(asked & ~after))
        wrong = ConfusionShift(NOT_RIGHT, name, _sum(before & ~asked), _sum(after & ~asked))
        shifts += [missed, wrong]
    shifts = [one for one in shifts if one.variant > one.teacher]
    shifts.sort(key=lambda one: one.teacher - one.variant)
    return LossDetails(
        _worst(outcomes, teacher, dataset, texts, (mine, theirs)), tuple(shifts[:_MOST_SHIFTS])
    )


def _sum(mask: Mask) -> int:
    return int(mask.sum())


def _worst(
    outcomes: ScoredLabelSets,
    teacher: ScoredLabelSets,
    dataset: LabelSetDataset,
    texts: tuple[str, ...],
    given: tuple[Mask, Mask],
) -> tuple[WorstExample, ...]:
    """Where the teacher gave exactly the right labels and the variant others."""
    names = dataset.class_names
    own = in_order(outcomes.logits, outcomes.label_names, names, missing=np.nan)
    known = in_order(teacher.logits, teacher.label_names, names, missing=np.nan)
    before = _log_likelihood(known.astype(np.float64), dataset.labels)
    after = _log_likelihood(own.astype(np.float64), dataset.labels)
    drop = before - after
    flipped = teacher.correct & ~outcomes.correct & np.isfinite(drop)
    order = [row for row in np.argsort(-np.where(flipped, drop, -np.inf)) if flipped[row]]
    called = dataset.label_names
    return tuple(
        WorstExample(
            row=int(row),
            text=shortened(texts[row]),
            label=_listed(called, dataset.labels[row]),
            teacher_says=_listed(called, given[1][row]),
            variant_says=_listed(called, given[0][row]),
            loss=float(drop[row]),
        )
        for row in order[:MOST_EXAMPLES]
    )


def _listed(names: tuple[str, ...], labels: Mask) -> str:
    return ", ".join(name for name, one in zip(names, labels, strict=True) if one) or NO_LABEL

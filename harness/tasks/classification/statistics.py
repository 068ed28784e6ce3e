"""How good a classifier is, and how it stands to its teacher row by row.

Macro-F1 averages over the classes that occur in the labels, so it averages alike for every model.
"""

from __future__ import annotations

from types import ModuleType
from typing import cast

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.statistics.intervals import RowSums
from harness.statistics.metrics import (
    Statistic,
    columns,
    perplexity_sums,
    ratio,
    share_statistic,
    sums_statistic,
)
from harness.statistics.paired import Measure, kappa_measure, mean_and_tail, share_measure
from harness.tasks.classification.outcomes import NO_PREDICTION, ClassOutcomes, LabelOutcomes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
LEAST_NATS = -1e300
"""Instead of minus infinity, with which no sum can be taken."""
MAX_UNANSWERED_SHARE = 0.01
"""Of the rows, beyond which there is no likelihood to tell."""
_MOST_CLASSES = 30
"""Among which the worst and the best row are sought: the rarest, whose F1 a row moves most."""


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


def answered_rows(log_distribution: Floats) -> NDArray[np.bool_]:
    """Rows that have a distribution, (rows,)."""
    return np.asarray(~np.isnan(log_distribution).any(axis=1))


def label_perplexity(log_distribution: Floats, labels: Integers) -> tuple[Statistic, ...]:
    """The exponential of the mean negative log likelihood of the right class.

    An unanswered row has no likelihood: it is left out, and where more than
    `MAX_UNANSWERED_SHARE` are, the rest is no longer the same data and nothing is told. All is done
    with logarithms: a probability that is 0 in floating point has a finite one, and a model that
    gives the right class none at all has the largest perplexity there is.

    Args:
        log_distribution: natural logarithm of the probability of each class, (rows, classes); NaN
            in an unanswered row.
        labels: index of the right class, (rows,).

    Returns:
        Nothing where it cannot be told.
    """
    answered = answered_rows(log_distribution)
    if not answered.any() or (~answered).mean() > MAX_UNANSWERED_SHARE:
        return ()
    found = log_distribution[np.arange(len(labels)), labels]
    nats = np.where(answered, np.maximum(found, LEAST_NATS), 0.0)
    return (sums_statistic("label_perplexity", perplexity_sums(nats, answered)),)


def _sklearn_metrics() -> ModuleType:
    try:
        import sklearn.metrics
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "quality") from error
    return cast(ModuleType, sklearn.metrics)


def _f1_sums(truth: NDArray[np.bool_], answers: NDArray[np.bool_]) -> RowSums:
    """Two columns a class: hits, and answers plus truth; arguments are (rows, classes)."""
    table = columns(truth & answers, truth.astype(np.int64) + answers, np.ones(len(truth)))
    return RowSums(table, _macro_f1, _possible_answers(table), limits=(0.0, 1.0))


def _possible_answers(table: Floats) -> Floats:
    """A row of any class answered as any other, as none (the last), and rightly."""
    classes = table.shape[1] // 2
    rarest = np.argsort(table[:, classes:-1].sum(axis=0), kind="stable")[:_MOST_CLASSES]
    one = np.eye(classes)[rarest]
    truth = np.repeat(one, len(one) + 1, axis=0)
    answer = np.tile(np.vstack([one, np.zeros(classes)]), (len(one), 1))
    return columns(truth * answer, truth + answer, np.ones(len(truth)))


def _macro_f1(sums: Floats) -> Floats:
    hits, answers_and_truth = np.split(sums[..., :-1], 2, axis=-1)
    # Where no row of a class is left it has no F1, and is left out.
    return np.asarray(np.nanmean(ratio(2 * hits, answers_and_truth), axis=-1))


def names_of(outcomes: LabelOutcomes) -> tuple[str, ...]:
    """What a classifier's outputs stand for, in order; none where that is not known."""
    return outcomes.label_names if isinstance(outcomes, ClassOutcomes) else ()


def predictions_in_order_of(teacher: LabelOutcomes, outcomes: LabelOutcomes) -> Integers:
    """A classifier's predictions in the teacher's numbering of the classes, (rows,)."""
    return predictions_numbered_by(names_of(teacher), outcomes)


def predictions_numbered_by(names: tuple[str, ...], outcomes: LabelOutcomes) -> Integers:
    """A classifier's predictions in the numbering of these names of classes, (rows,).

    Two checkpoints may number the same classes differently; names decide where both have them. A
    class that is not among the names becomes its own number, beyond theirs.
    """
    own = names_of(outcomes)
    if not own or not names or own == names:
        return outcomes.predictions
    known = {name: index for index, name in enumerate(names)}
    order = np.array([known.get(name, len(names) + i) for i, name in enumerate(own)])
    answered = outcomes.predictions != NO_PREDICTION
    return np.where(answered, order[outcomes.predictions], NO_PREDICTION).astype(np.int64)


def logits_in_order(outcomes: ClassOutcomes, order: tuple[str, ...] = ()) -> Floats | None:
    """A classifier's logits, (rows, classes), in the order of classes wanted.

    Args:
        outcomes: of a classifier.
        order: class names; none takes the classifier's own.

    Returns:
        None where it knows other classes.
    """
    logits = outcomes.logits.astype(np.float64)
    own = outcomes.label_names
    if order and own and own != order:
        if sorted(own) != sorted(order):
            return None
        logits = logits[:, [own.index(name) for name in order]]
    return logits


def log_probabilities(outcomes: LabelOutcomes, order: tuple[str, ...] = ()) -> Floats | None:
    """Natural logarithm of a classifier's distribution, (rows, classes); NaN where unanswered.

    Args:
        outcomes: of a classifier.
        order: class names in the order wanted; none takes the classifier's own.

    Returns:
        None where there are no logits, or not of these classes.
    """
    if not isinstance(outcomes, ClassOutcomes):
        return None
    logits = logits_in_order(outcomes, order)
    if logits is None:
        return None
    return _log_softmax(logits, np.asarray(np.isfinite(logits).all(axis=1)))


def label_distribution(outcomes: LabelOutcomes, order: tuple[str, ...] = ()) -> Floats | None:
    """As `log_probabilities`, with minus infinity for a class that a row's logits rule out.

    NaN where a row is unanswered, or has a logit that is not a number or plus infinity.
    """
    logits = logits_in_order(outcomes, order) if isinstance(outcomes, ClassOutcomes) else None
    if logits is None:
        return None
    usable = (logits < np.inf).all(axis=1) & np.isfinite(logits).any(axis=1)
    return _log_softmax(logits, np.asarray(usable))


def _log_softmax(logits: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Log softmax of the usable rows; NaN in the others."""
    found = np.full_like(logits, np.nan)
    found[usable] = scipy.special.log_softmax(logits[usable], axis=1)
    return found


def kl_to_teacher_nats(outcomes: LabelOutcomes, teacher: LabelOutcomes) -> Floats | None:
    """KL(teacher || variant) of each row's class distribution, (rows,); NaN where unanswered.

    None where either has no logits, or they know different classes.
    """
    theirs = log_probabilities(teacher)
    own = log_probabilities(outcomes, names_of(teacher))
    if theirs is None or own is None or own.shape != theirs.shape:
        return None
    # By logarithms: what a variant is next to certain of leaves the others a probability that is 0
    # in float64, and their divergence is large, not unknown. A class of probability zero to the
    # teacher adds nothing, as the logarithm of a finite logit is finite.
    divergence: Floats = np.maximum((np.exp(theirs) * (theirs - own)).sum(axis=1), 0.0)
    return divergence


def paired_measures(outcomes: LabelOutcomes, teacher: LabelOutcomes, seed: int) -> list[Measure]:
    """Flips, agreement, kappa and divergence of a classifier beside its teacher."""
    own = predictions_in_order_of(teacher, outcomes)
    theirs = teacher.predictions
    both = ~outcomes.unanswered & ~teacher.unanswered
    measures = [
        share_measure("right_to_wrong", teacher.correct & ~outcomes.correct),
        share_measure("wrong_to_right", outcomes.correct & ~teacher.correct),
    ]
    if both.any():
        measures.append(share_measure("agreement", (own == theirs)[both]))
        measures.append(kappa_measure(own[both], theirs[both], seed))
    divergence = kl_to_teacher_nats(outcomes, teacher)
    if divergence is not None:
        names = ("kl_mean_nats", "kl_p95_nats")
        measures += mean_and_tail(divergence, names, 0.95, seed, floor=0.0)
    return measures

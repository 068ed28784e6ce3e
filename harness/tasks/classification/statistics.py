"""How good a classifier is, how sure of it, and how it stands to its teacher row by row.

Macro-F1 averages over the classes that occur in the labels, so it averages alike for every model.

Whether a classifier is as often right as it is sure: ECE, Brier score, temperature.

| measure       | of                                                                           |
|---------------|------------------------------------------------------------------------------|
| ece           | mean gap between confidence and accuracy over 15 bins of equally many rows    |
| ece_by_chance | 95th percentile of the ECE that a perfectly calibrated model would show here  |
| brier         | mean over rows of the squared error, summed over the classes (0 best, 2 worst)|
| temperature   | what the logits are divided by, fitted on one half of the rows                |
| ece_before, ece_after     | on the other half, before and after dividing                      |
| brier_before, brier_after | likewise                                                         |

ECE as Naeini, Cooper and Hauskrecht (2015) with Nguyen and O'Connor's (2015) bins of equal mass: no
bin is empty or holds three rows. Its plug-in value is never 0, even for a calibrated model;
`ece_by_chance` says what is noise (consistency resampling, Broecker and Smith 2007). Therefore it
has no interval: a bootstrap would add the bias twice. Temperature scaling as Guo et al. (2017), by
the likelihood; it is judged on rows it was not fitted on. Unanswered rows are left out.
"""

from __future__ import annotations

from types import ModuleType
from typing import cast

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.statistics.intervals import RowSums, bounds
from harness.statistics.metrics import (
    Statistic,
    columns,
    mean_sums,
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
"""Largest share of unanswered rows for which a likelihood is still told."""
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
    """Log probabilities by label; minus infinity for a class that a row's logits rule out.

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


BINS = 15
FEWEST_ROWS = 2 * BINS
_SIMULATIONS = 500
_LOG_TEMPERATURES = (np.log(0.05), np.log(20.0))


def calibration_measures(outcomes: LabelOutcomes, labels: Integers, seed: int) -> list[Measure]:
    """Calibration of one classifier; nothing with fewer than `FEWEST_ROWS` answered rows.

    Args:
        outcomes: of an ensemble, which has no logits, there is nothing to say.
        labels: class indices in the order of the logits, (rows,).
        seed: of the resampling and of the two halves.
    """
    if not isinstance(outcomes, ClassOutcomes):
        return []
    usable = np.isfinite(outcomes.logits).all(axis=1)
    logits, labels = outcomes.logits[usable].astype(np.float64), labels[usable]
    if len(labels) < FEWEST_ROWS or logits.shape[1] < 2:  # noqa: PLR2004  (one class is no choice)
        return []
    probabilities = scipy.special.softmax(logits, axis=1)
    squares = _squared_errors(probabilities, labels)
    found = bounds(mean_sums(squares, limits=(0.0, 2.0)), seed=seed)
    return [
        ("ece", calibration_error(probabilities, labels), None, None, len(labels)),
        ("ece_by_chance", _ece_by_chance(probabilities, seed), None, None, len(labels)),
        ("brier", float(squares.mean()), found.low, found.high, len(labels)),
        *((name, value, None, None, n) for name, value, n in _tempered(logits, labels, seed)),
    ]


def calibration_error(probabilities: Floats, labels: Integers) -> float:
    """The expected calibration error over `BINS` bins of equally many rows.

    Args:
        probabilities: (rows, classes).
        labels: class indices, (rows,).
    """
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return float(_binned_gap(probabilities.max(axis=1), right[None])[0])


def fitted_temperature(logits: Floats, labels: Integers) -> float:
    """The temperature of greatest likelihood, between 0.05 and 20.

    Args:
        logits: (rows, classes).
        labels: class indices, (rows,).
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        tempered = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-tempered[rows, labels].mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(found.x))


def _tempered(logits: Floats, labels: Integers, seed: int) -> list[tuple[str, float, int]]:
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted_on, judged_on = np.array_split(order, 2)
    temperature = fitted_temperature(logits[fitted_on], labels[fitted_on])
    held_out = labels[judged_on]
    before = scipy.special.softmax(logits[judged_on], axis=1)
    after = scipy.special.softmax(logits[judged_on] / temperature, axis=1)
    return [
        ("temperature", temperature, len(fitted_on)),
        ("ece_before", calibration_error(before, held_out), len(held_out)),
        ("ece_after", calibration_error(after, held_out), len(held_out)),
        ("brier_before", float(_squared_errors(before, held_out).mean()), len(held_out)),
        ("brier_after", float(_squared_errors(after, held_out).mean()), len(held_out)),
    ]


def _squared_errors(probabilities: Floats, labels: Integers) -> Floats:
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1))


def _ece_by_chance(probabilities: Floats, seed: int) -> float:
    """What the confidences themselves would give if each were the chance of being right."""
    confidence = probabilities.max(axis=1)
    rng = np.random.default_rng(seed)
    gaps = [
        _binned_gap(confidence, (rng.random((1, len(confidence))) < confidence).astype(float))[0]
        for _ in range(_SIMULATIONS)
    ]
    return float(np.quantile(gaps, 0.95))


def _binned_gap(confidence: Floats, right: Floats) -> Floats:
    """ECE of each of several draws of which rows are right, (draws, rows) -> (draws,)."""
    order = np.argsort(confidence, kind="stable")
    edges = np.linspace(0, len(order), min(BINS, len(order)) + 1).astype(int)[:-1]
    surplus = np.add.reduceat((confidence - right)[:, order], edges, axis=1)
    return np.asarray(np.abs(surplus).sum(axis=1) / len(order))

"""Whether a classifier is as often right as it is sure: ECE, Brier score, temperature.

| measure       | of                                                                           |
|---------------|------------------------------------------------------------------------------|
| ece           | mean gap between confidence and accuracy over 15 bins of equally many rows    |
| ece_by_chance | 95th percentile of the ECE that a perfectly calibrated model would show here  |
| brier         | mean over rows of the squared error, summed over the classes (0 best, 2 worst)|
| temperature   | what the logits are divided by, fitted on one half of the rows                |
| ece_before, ece_after     | on the other half, before and after dividing                      |
| brier_before, brier_after | likewise                                                         |

ECE as Naeini, Cooper and Hauskrecht (2015) with Nguyen and O'Connor's (2015) bins of equal mass:
no bin is empty or holds three rows. Its plug-in value is never 0, even for a calibrated model;
`ece_by_chance` says what is noise (consistency resampling, Broecker and Smith 2007). Therefore it
has no interval: a bootstrap would add the bias twice. Temperature scaling as Guo et al. (2017), by
the likelihood; it is judged on rows it was not fitted on. Unanswered rows are left out.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.statistics.intervals import bounds
from harness.statistics.metrics import mean_sums
from harness.statistics.paired import Measure
from harness.tasks.classification.outcomes import ClassOutcomes, LabelOutcomes

BINS = 15
FEWEST_ROWS = 2 * BINS
_SIMULATIONS = 500
_LOG_TEMPERATURES = (np.log(0.05), np.log(20.0))

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def calibration_measures(outcomes: LabelOutcomes, labels: Integers, seed: int) -> list[Measure]:
    """Calibration of one classifier; nothing with fewer than `FEWEST_ROWS` answered rows.

    Args:
        outcomes: of a pipeline, which has no logits, there is nothing to say.
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

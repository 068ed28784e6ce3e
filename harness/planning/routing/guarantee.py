"""The threshold of a router, with a guarantee: Learn then Test.

Wanted is a threshold at which the router keeps at least a share r of the teacher's accuracy, wrong
with a probability of at most e over the calibration rows that were drawn. Learn then Test
(Angelopoulos, Bates, Candes, Jordan & Lei 2021) tests, for thresholds fixed beforehand, the
hypothesis that the router keeps *less*, and takes a threshold whose hypothesis is rejected.
Thresholds are tested from the safest (nearly everything goes to the teacher) to the boldest, each
at the whole of e, until one is not rejected (fixed-sequence testing): then the probability that
*any* rejection is wrong is at most e, however many there are.

The hypothesis is about paired outcomes. With T and R for 'the teacher is right' and 'the router is
right' about one row, the router keeps less than r exactly if the mean of X = r T - R is above 0. So
what counts is the benefit of deferring (the teacher right where the student is wrong, less the
reverse), not how often the student is wrong: where both are wrong, deferring gains nothing.

X lies from -1 to r. Its p-value is that of a game of bets on 'X is below 0', which are fair if the
mean is 0 and lose on average if it is above: wealth W then exceeds 1/p at any time with a
probability of at most p (Ville 1939), so 1 / max W is a p-value at any number of rows (Waudby-Smith
& Ramdas 2024). Each bet is as large as the variance of the rows before it allows, which is what
makes this sharper than Hoeffding's and Bentkus's bounds for rows that mostly agree.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.planning.routing.rows import FEWEST_ROWS, RoutedRows
from harness.types.routing import CalibratedThreshold
from harness.words.numbers import asked_percent, confidence, count, percent

Floats = NDArray[np.float64]

THRESHOLDS: tuple[float, ...] = tuple(
    float(one) for one in scipy.special.expit(np.linspace(12, -6, 181))
)
"""Thresholds from the safest to the boldest: a tenth of a log-odds apart, whatever the rows; a
threshold that the calibration rows suggest would not be fixed beforehand."""
_BOLDEST_BET = 0.75
"""Share of the largest bet that cannot lose everything."""
_PRIOR_VARIANCE = 0.25
_PRIOR_ROWS = 10
"""How many rows the prior variance counts for: a first stretch of rows on which both models are
right would otherwise make the next bets the boldest, and one row that is lost take most of the
wealth. It costs or gains power alone; the p-value is valid whatever it is."""


def calibrate(rows: RoutedRows, *, keep: float, confidence_level: float) -> CalibratedThreshold:
    """The boldest threshold at which the router certainly keeps a share of the teacher's accuracy.

    Args:
        rows: the calibration rows, independent and in random order.
        keep: share of the teacher's accuracy, above 0 and at most below 1.
        confidence_level: with which it is kept, above 0 and below 1.

    Raises:
        UsageError: no threshold can be supported, with the reason; or shares that are none.
    """
    _check(keep, confidence_level)
    error = 1 - confidence_level
    found: CalibratedThreshold | None = None
    first = next((one for one in THRESHOLDS if not rows.deferred(one).all()), THRESHOLDS[-1])
    for tested, threshold in enumerate(THRESHOLDS, start=1):
        p_value = keeps_less_p_value(rows, threshold, keep=keep, error=error)
        if p_value > error:
            if found is None or found.threshold > first:
                raise _unsupported(rows, threshold, keep, confidence_level)
            return found
        found = CalibratedThreshold(threshold, keep, confidence_level, p_value, rows.size, tested)
    assert found is not None  # noqa: S101  (there is a threshold)
    return found


def keeps_less_p_value(rows: RoutedRows, threshold: float, *, keep: float, error: float) -> float:
    """P-value of the hypothesis that a threshold keeps less than a share of the accuracy.

    Args:
        rows: independent and in random order.
        threshold: fixed beforehand.
        keep: the share of the teacher's accuracy.
        error: at which it will be tested; it sizes the bets, and the p-value is valid whatever it
            is.
    """
    loss: Floats = keep * rows.teacher_right.astype(np.float64) - rows.right(threshold)
    log_wealth = np.cumsum(np.log1p(-_bets(loss, keep, error) * loss))
    return float(np.exp(-max(0.0, log_wealth.max(initial=0.0))))


def _bets(loss: Floats, keep: float, error: float) -> Floats:
    """(rows,) the bet before each row, from the rows before it: sqrt(2 log(1/e) / (n s^2))."""
    size = len(loss)
    seen = np.arange(1, size + 1)
    mean = np.cumsum(loss) / (seen + 1)
    squares = _PRIOR_ROWS * _PRIOR_VARIANCE + np.cumsum((loss - mean) ** 2)
    variance = squares / (seen + _PRIOR_ROWS)
    before = np.concatenate([[_PRIOR_VARIANCE], variance[:-1]])
    wanted = np.sqrt(2 * np.log(1 / error) / (size * before))
    return np.asarray(np.minimum(wanted, _BOLDEST_BET / keep))


def _check(keep: float, confidence_level: float) -> None:
    if not 0 < keep < 1:
        raise UsageError(
            f"a router cannot be held to {asked_percent(keep)} of the teacher's accuracy: it must "
            "be above 0% and below 100%",
            next_step="for example --keep 95%",
        )
    if not 0 < confidence_level < 1:
        raise UsageError(
            f"a confidence of {asked_percent(confidence_level)} is none: it must be above 0% and "
            "below 100%"
        )


def _unsupported(
    rows: RoutedRows, threshold: float, keep: float, confidence_level: float
) -> UsageError:
    """Why no threshold that leaves the student anything is supported, and what would help."""
    asked = f"{asked_percent(keep)} of the teacher's accuracy with {confidence(confidence_level)}"
    accuracy = float(rows.teacher_right.mean())
    if not accuracy:
        return UsageError(
            f"the teacher is right on none of the {count(rows.size)} calibration rows: there is no "
            "accuracy to keep a share of"
        )
    fewest = _fewest_rows(rows, keep, 1 - confidence_level)
    if rows.size < fewest:
        return UsageError(
            f"no threshold is supported: {count(rows.size)} calibration rows cannot show {asked} "
            f"confidence even of the teacher itself; about {count(fewest)} could",
            next_step="score the models on more rows in a new run, or ask for less with --keep",
        )
    right = float(rows.right(threshold).mean())
    return UsageError(
        f"no threshold is supported: at the first that leaves the student anything "
        f"({percent(rows.deferred(threshold).mean())} of the rows to the teacher) the router keeps "
        f"{percent(right / accuracy)}, and {count(rows.size)} calibration rows do not show {asked} "
        "confidence there",
        next_step="score the models on more rows in a new run, or ask for less with --keep",
    )


def _fewest_rows(rows: RoutedRows, keep: float, error: float) -> int:
    """Rows like these from which it shows that the teacher keeps its own accuracy, to a tenth."""
    everything, size = 2.0, FEWEST_ROWS // 2
    while True:
        like = rows.of(np.resize(np.arange(rows.size), size))
        if keeps_less_p_value(like, everything, keep=keep, error=error) <= error:
            return size
        size = int(size * 1.1) + 1

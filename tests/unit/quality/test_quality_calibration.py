"""Calibration of classifiers whose calibration is known by construction."""

import numpy as np
import pytest
from quality_samples import classified, sure
from scipy import special

from harness.tasks.classification.statistics import (
    BINS,
    FEWEST_ROWS,
    calibration_error,
    calibration_measures,
    fitted_temperature,
)
from harness.types.losses import PairedMeasure


def calibrated(rows=6000, classes=4, seed=0):
    """Logits, and labels drawn from the very distribution they give."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(rows, classes))
    chances = special.softmax(logits, axis=1)
    labels = (rng.random((rows, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


def measures(logits, labels):
    found = calibration_measures(sure(labels, logits), labels, seed=0)
    return {name: PairedMeasure("m", "family", name, *rest) for name, *rest in found}


def test_a_calibrated_model_errs_no_more_than_chance():
    found = measures(*calibrated())
    assert found["ece"].value < 1.3 * found["ece_by_chance"].value
    assert found["temperature"].value == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_temperature_mends_what_a_factor_spoilt_on_rows_it_was_not_fitted_on(factor):
    logits, labels = calibrated()
    found = measures(factor * logits, labels)
    assert found["ece"].value > 2 * found["ece_by_chance"].value
    assert found["temperature"].value == pytest.approx(factor, rel=0.1)
    assert found["ece_after"].value < found["ece_before"].value / 2
    assert found["brier_after"].value < found["brier_before"].value
    assert found["temperature"].samples + found["ece_after"].samples == len(labels)


def test_error_is_the_gap_between_confidence_and_accuracy_by_hand():
    chances = np.repeat([[0.9, 0.1], [0.6, 0.4]], BINS * 10, axis=0)
    labels = np.zeros(len(chances), dtype=np.int64)
    assert calibration_error(chances, labels) == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)


def test_the_brier_score_is_between_the_best_and_the_worst():
    labels = np.zeros(FEWEST_ROWS, dtype=np.int64)
    certain = np.tile([50.0, -50.0], (FEWEST_ROWS, 1))
    assert measures(certain, labels)["brier"].value == pytest.approx(0)
    assert measures(-certain, labels)["brier"].value == pytest.approx(2)


def test_rows_without_an_answer_are_left_out_and_too_few_rows_say_nothing():
    logits, labels = calibrated(rows=200)
    logits[:40] = np.nan
    assert measures(logits, labels)["ece"].samples == 160
    assert measures(logits[:FEWEST_ROWS], labels[:FEWEST_ROWS]) == {}
    ensemble, _ = classified(labels, labels)  # answers with labels alone
    assert calibration_measures(ensemble, labels, seed=0) == []


def test_the_likeliest_temperature_stays_finite_where_every_answer_is_right():
    logits = np.tile([4.0, 0.0], (50, 1))
    assert 0.05 <= fitted_temperature(logits, np.zeros(50, dtype=np.int64)) <= 20

"""Correlations and errors of predicted numbers are scipy's and scikit-learn's, with intervals."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.statistics import intervals
from harness.statistics.intervals import bounds, side_by_side
from harness.statistics.metrics import correlates, regression_statistics, spearman_sums

STUDIES = 150
LEAST = 0.9
"""Of intervals that say 95%: nearly three standard deviations of this many studies below."""

Floats = NDArray[np.float64]
few_values = st.lists(
    st.tuples(st.integers(0, 6), st.integers(-4, 4)), min_size=4, max_size=60
).filter(lambda rows: len({x for x, _ in rows}) > 2 and len({y for _, y in rows}) > 2)


def columns(rows: list[tuple[int, int]]) -> tuple[Floats, Floats]:
    first, second = np.array(rows, dtype=np.float64).T
    return first, second


@given(few_values)
@settings(deadline=None, max_examples=60)
def test_values_are_the_libraries(rows: list[tuple[int, int]]) -> None:
    truth, predictions = columns(rows)

    found = {one.metric: one for one in regression_statistics(truth, predictions)}

    assert found["pearson"].value == pytest.approx(np.corrcoef(truth, predictions)[0, 1], abs=1e-12)
    assert found["spearman"].value == pytest.approx(
        stats.spearmanr(truth, predictions).statistic, abs=1e-12
    )
    assert found["mae"].value == pytest.approx(
        sklearn.metrics.mean_absolute_error(truth, predictions)
    )
    assert found["rmse"].value == pytest.approx(
        sklearn.metrics.root_mean_squared_error(truth, predictions)
    )
    for one in found.values():  # what is weighted for the interval is the same number
        whole = one.sums.of_sums(one.sums.table.sum(axis=0))
        assert float(whole) == pytest.approx(one.value, abs=1e-9)


@pytest.mark.parametrize("tied", [False, True])
def test_a_row_left_out_moves_the_rank_correlation_as_if_all_were_ranked_anew(tied: bool) -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 6, 200).astype(np.float64) if tied else rng.normal(size=200)
    predictions = truth + rng.normal(size=200) * (2 if tied else 1)
    sums = spearman_sums(truth, predictions)

    quick = sums.of_sums(sums.table.sum(axis=0) - sums.table)

    exact = [
        stats.spearmanr(np.delete(truth, row), np.delete(predictions, row)).statistic
        for row in range(200)
    ]
    assert np.corrcoef(quick, exact)[0, 1] > 0.999
    assert quick.std() == pytest.approx(np.std(exact), rel=0.03)


def graded(rows: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Grades 0 to 5 in whole numbers, a teacher's and a student's guesses of them."""
    meant = rng.normal(size=rows)
    teacher = 0.9 * meant + np.sqrt(1 - 0.9**2) * rng.normal(size=rows)
    student = 0.8 * meant + 0.6 * rng.normal(size=rows)
    return np.clip(np.round(2.5 + 1.2 * meant), 0, 5), teacher, student


@pytest.mark.parametrize("rows", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "MOST_DRAWS", 600)
    rng = np.random.default_rng(rows)
    truth, teacher, student = graded(1_000_000, rng)
    known = {one.metric: one.value for one in regression_statistics(truth, student)}
    theirs = {one.metric: one.value for one in regression_statistics(truth, teacher)}
    held, kept = dict.fromkeys(known, 0), dict.fromkeys(known, 0)

    for study in range(STUDIES):
        labels, first, second = graded(rows, rng)
        reference = {one.metric: one for one in regression_statistics(labels, first)}
        for own in regression_statistics(labels, second):
            alone = own.bounds(seed=study)
            beside = bounds(side_by_side(own.sums, reference[own.metric].sums), seed=study)
            share = known[own.metric] / theirs[own.metric]
            held[own.metric] += alone.low <= known[own.metric] <= alone.high  # type: ignore[operator]
            kept[own.metric] += beside.low <= share <= beside.high  # type: ignore[operator]

    for metric in known:
        assert held[metric] / STUDIES >= LEAST, metric
        assert kept[metric] / STUDIES >= LEAST, metric


def test_what_says_the_same_of_every_row_correlates_with_nothing() -> None:
    truth = np.arange(8.0)

    found = {one.metric for one in regression_statistics(truth, np.full(8, 2.5))}

    assert found == {"mae", "rmse"}
    assert not correlates(truth[:2], truth[:2])


def test_a_share_of_a_correlation_that_may_be_nothing_has_no_interval() -> None:
    """The teacher's own correlation with ten rows of noise may be 0, or below."""
    rng = np.random.default_rng(2)
    truth, teacher, student = rng.normal(size=(3, 10))
    own = {one.metric: one.sums for one in regression_statistics(truth, student)}
    theirs = {one.metric: one.sums for one in regression_statistics(truth, teacher)}

    for metric in ("pearson", "spearman"):
        found = bounds(side_by_side(own[metric], theirs[metric]), seed=1)
        assert (found.low, found.high) == (None, None)


def test_a_student_that_answers_against_the_truth_keeps_less_than_nothing() -> None:
    truth = np.linspace(0, 1, 200)
    wave = np.sin(40 * truth) / 10
    own = {one.metric: one for one in regression_statistics(truth, wave - truth)}
    theirs = {one.metric: one for one in regression_statistics(truth, wave + truth)}

    kept = bounds(side_by_side(own["pearson"].sums, theirs["pearson"].sums), seed=1)

    assert kept.high is not None
    assert kept.high < -0.9

"""Flips, agreement and divergence against numbers worked out by hand or by others."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quality_samples import spoken, sure
from scipy import special, stats
from sklearn.metrics import cohen_kappa_score

from harness.quality.losses import compare_with_teacher
from harness.statistics import intervals
from harness.statistics.intervals import bounds
from harness.statistics.metrics import mean_sums
from harness.tasks.causal_lm.statistics import log_likelihood_change_nats
from harness.tasks.classification.statistics import kl_to_teacher_nats, predictions_in_order_of

STUDIES = 600
"""Simulated studies behind each coverage; the standard error of 95% is 0.9 points."""


def measures(outcomes, teacher):
    found = compare_with_teacher(outcomes, teacher, family="family", seed=0)
    return {one.measure: one for one in found}


def two_classifiers(rows=400, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    truth = 2.0 * np.eye(classes)[labels]
    teacher = truth + rng.normal(size=(rows, classes))
    student = 0.7 * teacher + rng.normal(size=(rows, classes))
    return labels, teacher, student


def test_flips_count_both_directions_and_an_unanswered_sample_as_wrong():
    labels = np.zeros(5, dtype=np.int64)
    teacher = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0]], dtype=float)
    student = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [np.nan, 0]])
    found = measures(sure(labels, student), sure(labels, teacher, "teacher"))
    assert (found["right_to_wrong"].value, found["right_to_wrong"].samples) == (2 / 5, 5)
    assert found["wrong_to_right"].value == 1 / 5
    assert (found["agreement"].value, found["agreement"].samples) == (2 / 4, 4)
    exact = stats.binomtest(2, 5).proportion_ci()
    assert (found["right_to_wrong"].low, found["right_to_wrong"].high) == (exact.low, exact.high)


def test_kappa_and_divergence_are_those_of_scikit_learn_and_scipy():
    labels, teacher, student = two_classifiers()
    own, theirs = sure(labels, student), sure(labels, teacher, "teacher")
    found = measures(own, theirs)
    expected = cohen_kappa_score(own.predictions, theirs.predictions)
    assert found["cohen_kappa"].value == pytest.approx(expected)
    assert found["cohen_kappa"].low < expected < found["cohen_kappa"].high
    divergence = [
        stats.entropy(special.softmax(t), special.softmax(s))
        for t, s in zip(teacher, student, strict=True)
    ]
    np.testing.assert_allclose(kl_to_teacher_nats(own, theirs), divergence, rtol=1e-4, atol=1e-6)
    assert found["kl_mean_nats"].value == pytest.approx(np.mean(divergence), rel=1e-5)
    assert found["kl_p95_nats"].value == pytest.approx(np.quantile(divergence, 0.95), rel=1e-5)
    assert found["kl_p95_nats"].low <= found["kl_p95_nats"].value <= found["kl_p95_nats"].high


@given(arrays(np.float64, (6, 3), elements=st.floats(-200, 200, width=32)))
def test_divergence_is_never_negative_and_zero_beside_oneself(logits):
    labels = np.zeros(6, dtype=np.int64)
    own, other = sure(labels, logits), sure(labels, logits[::-1], "teacher")
    assert (kl_to_teacher_nats(own, other) > -1e-9).all()
    assert kl_to_teacher_nats(own, own) == pytest.approx(np.zeros(6), abs=1e-9)


def test_a_class_of_no_probability_to_the_variant_counts_with_all_its_divergence():
    """Next to certain of one class, 2,000 nats from the other, which float64 makes 0."""
    student, teacher = np.zeros((50, 2)), np.zeros((50, 2))
    student[:10, 0] = 2000
    labels = np.arange(50) % 2
    found = measures(sure(labels, student), sure(labels, teacher, "teacher"))
    assert found["kl_mean_nats"].samples == 50
    assert found["kl_mean_nats"].value == pytest.approx((1000 - np.log(2)) * 10 / 50)
    assert found["kl_mean_nats"].high > found["kl_mean_nats"].value


def test_classes_are_compared_by_name_where_checkpoints_number_them_differently():
    labels, teacher, _ = two_classifiers(classes=3)
    order = [2, 0, 1]
    names = ("no", "maybe", "yes")
    theirs = sure(labels, teacher, "teacher", names)
    own_labels = np.argsort(order)[labels]
    own = sure(own_labels, teacher[:, order], label_names=tuple(names[i] for i in order))
    found = measures(own, theirs)
    assert found["agreement"].value == 1
    assert found["kl_mean_nats"].value == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(predictions_in_order_of(theirs, own), theirs.predictions)
    assert measures(sure(labels, teacher), sure(labels, teacher)) == {}  # nothing beside oneself


def test_windows_of_a_language_model_are_paired_and_unanswered_ones_left_out():
    tokens, sizes = np.full(4, 10), np.array([40, 41, 42, 43])
    teacher, _ = spoken(np.array([-20.0, -21, -22, -23]), tokens, sizes, "teacher")
    student, _ = spoken(np.array([-22.0, -23, np.nan, -27]), tokens, sizes)
    found = measures(student, teacher)["log_likelihood_change_nats"]
    assert (found.value, found.samples) == (pytest.approx(-8 / 3), 3)
    other, _ = spoken(np.array([-20.0] * 4), tokens, sizes[::-1].copy(), "other tokenizer")
    assert log_likelihood_change_nats(other, teacher) is None
    assert measures(other, teacher) == {}


def test_intervals_of_flips_cover_at_least_as_often_as_they_say():
    truth, rows = 0.03, 300
    labels = np.zeros(rows, dtype=np.int64)
    right, wrong = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    teacher = sure(labels, np.tile(right, (rows, 1)), "teacher")
    held = {}
    counts = np.random.default_rng(2).binomial(rows, truth, STUDIES)
    for count in set(counts.tolist()):
        student = sure(labels, np.where(np.arange(rows)[:, None] < count, wrong, right))
        found = measures(student, teacher)["right_to_wrong"]
        held[count] = found.low <= truth <= found.high
    assert np.mean([held[count] for count in counts.tolist()]) > 0.94


@pytest.mark.slow
def test_intervals_of_the_mean_divergence_cover_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(intervals, "MOST_DRAWS", 4000)
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(STUDIES // 3):
        values = rng.gamma(0.5, 0.2, 400)  # skewed, as divergences are
        found = bounds(mean_sums(values), seed=4)
        held += found.low <= 0.1 <= found.high
    assert held / (STUDIES // 3) > 0.925


def test_two_that_agree_on_every_sample_are_not_known_to_agree_everywhere():
    labels, teacher, _ = two_classifiers(rows=20, classes=3)
    found = measures(sure(labels, teacher), sure(labels, teacher, "teacher"))
    assert found["cohen_kappa"].value == 1
    assert found["cohen_kappa"].low < 0.85
    assert found["agreement"].low == pytest.approx(0.025 ** (1 / 20))
    assert (found["kl_mean_nats"].low, found["kl_mean_nats"].high) == (None, None)


def test_greedy_tokens_of_one_document_have_no_interval():
    tokens, sizes = np.full(6, 10), np.arange(40, 46)
    said = tuple(np.arange(10) for _ in range(6))
    likelihoods = -np.linspace(20, 25, 6)
    pair = [
        dataclasses.replace(spoken(likelihoods, tokens, sizes, name)[0], greedy=said)
        for name in ("student", "teacher")
    ]
    apart = measures(*pair)["greedy_agreement"]
    assert apart.value == 1
    assert apart.low < 0.7
    one = [dataclasses.replace(p, documents=np.zeros(6, dtype=np.int64)) for p in pair]
    together = measures(*one)["greedy_agreement"]
    assert (together.low, together.high) == (None, None)
    assert measures(*one)["log_likelihood_change_nats"].low is None

"""Scores, intervals and the relation to the teacher."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quality_samples import classified, spoken, variant
from quality_samples import labelled as labelled_split
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from harness.errors import DataError, MissingExtraError
from harness.quality.scores import baseline_scores, score
from harness.tasks.classification.outcomes import ClassOutcomes
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.classification.statistics import classification_statistics
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.types import QualityScore, Role

LANGUAGE = variant("causal-lm")
CLASSIFICATION = family_of("sequence-classification")
TEACHER = variant(name="teacher", role=Role.TEACHER)


def by_metric(scores: list[QualityScore]) -> dict[str, QualityScore]:
    return {item.metric: item for item in scores}


def noisy(labels: np.ndarray, errors: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < errors, (labels + 1) % 4, labels)


LABELS = np.arange(400) % 4


def scored_by_logits(
    labels: np.ndarray, predictions: np.ndarray, names: tuple[str, ...], name: str
) -> tuple[ClassOutcomes, LabelledDataset]:
    """Outcomes with logits and names of the classes, and the data set as this model takes it."""
    outcomes = ClassOutcomes(
        variant=name,
        sha256=name,
        unanswered=np.zeros(len(labels), dtype=bool),
        predictions=predictions,
        correct=predictions == labels,
        logits=np.eye(len(names), dtype=np.float32)[predictions],
        label_names=names,
    )
    return outcomes, labelled_split(labels, names)


class TestClassification:
    def test_scores_are_sklearns_inside_their_intervals(self) -> None:
        predictions = noisy(LABELS, 0.2, 1)
        outcomes, split = classified(LABELS, predictions)

        scores = by_metric(score(outcomes, split, variant=variant(), teacher=None, seed=1))

        assert scores["accuracy"].value == accuracy_score(LABELS, predictions)
        assert scores["macro_f1"].value == f1_score(LABELS, predictions, average="macro")
        for item in scores.values():
            assert item.low < item.value < item.high
            assert item.samples == 400
            assert item.relative_to_teacher is None
            assert item.p_value is None

    def test_the_retained_share_is_paired(self) -> None:
        """A student that errs where its teacher errs is known far better than by two scores."""
        teacher_predictions = noisy(LABELS, 0.3, 1)
        predictions = teacher_predictions.copy()
        predictions[:8] = (LABELS[:8] + 1) % 4
        teacher, _ = classified(LABELS, teacher_predictions, "teacher")
        student, split = classified(LABELS, predictions)

        accuracy = by_metric(score(student, split, variant=variant(), teacher=teacher, seed=1))[
            "accuracy"
        ]

        share = accuracy_score(LABELS, predictions) / accuracy_score(LABELS, teacher_predictions)
        assert accuracy.relative_to_teacher == pytest.approx(share)
        assert accuracy.relative_low is not None
        assert accuracy.relative_high is not None
        assert accuracy.relative_low < share < accuracy.relative_high
        width = accuracy.relative_high - accuracy.relative_low
        assert width < 0.5 * (accuracy.high - accuracy.low) / accuracy.value

    def test_a_teacher_that_numbers_the_classes_otherwise_is_scored_by_their_names(self) -> None:
        names, turned = ("a", "b", "c", "d"), [2, 0, 3, 1]
        teacher_predictions, predictions = noisy(LABELS, 0.1, 1), noisy(LABELS, 0.2, 2)
        teacher = scored_by_logits(LABELS, teacher_predictions, names, "teacher")[0]
        place = np.argsort(turned)
        student, split = scored_by_logits(
            place[LABELS], place[predictions], tuple(names[one] for one in turned), "student"
        )

        scores = by_metric(score(student, split, variant=variant(), teacher=teacher, seed=1))

        for metric, value in {
            "accuracy": accuracy_score,
            "macro_f1": lambda truth, said: f1_score(truth, said, average="macro"),
        }.items():
            share = value(LABELS, predictions) / value(LABELS, teacher_predictions)
            assert scores[metric].value == pytest.approx(value(LABELS, predictions))
            assert scores[metric].relative_to_teacher == pytest.approx(share)

    def test_p_value_is_mcnemars_for_accuracy_alone(self) -> None:
        teacher, split = classified(LABELS, noisy(LABELS, 0.1, 1), "teacher")
        student, _ = classified(LABELS, noisy(LABELS, 0.2, 2))

        scores = by_metric(score(student, split, variant=variant(), teacher=teacher, seed=1))

        assert teacher.correct is not None
        assert student.correct is not None
        b = int((teacher.correct & ~student.correct).sum())
        c = int((student.correct & ~teacher.correct).sum())
        assert scores["accuracy"].p_value == pytest.approx(
            min(1, 2 * binom.cdf(min(b, c), b + c, 0.5))
        )
        assert scores["macro_f1"].p_value is None

    @pytest.mark.parametrize("given_itself", [True, False])
    def test_the_teacher_is_all_of_itself(self, given_itself: bool) -> None:
        teacher, split = classified(LABELS, noisy(LABELS, 0.1, 1), "teacher")

        for item in score(
            teacher, split, variant=TEACHER, teacher=teacher if given_itself else None, seed=1
        ):
            assert (item.relative_to_teacher, item.relative_low, item.relative_high) == (1, 1, 1)
            assert item.p_value is None

    def test_an_unanswered_row_is_wrong(self) -> None:
        predictions = LABELS.copy()
        predictions[:40] = -1
        outcomes, split = classified(LABELS, predictions)
        outcomes = dataclasses.replace(outcomes, unanswered=predictions < 0)

        scores = by_metric(score(outcomes, split, variant=variant(), teacher=None, seed=1))

        assert scores["accuracy"].value == pytest.approx(0.9)
        assert scores["accuracy"].samples == 400
        assert scores["macro_f1"].value == pytest.approx(
            f1_score(LABELS, predictions, labels=range(4), average="macro")
        )

    def test_a_teacher_that_knows_nothing_is_no_yardstick(self) -> None:
        teacher, split = classified(LABELS, (LABELS + 1) % 4, "teacher")
        student, _ = classified(LABELS, LABELS)

        for item in score(student, split, variant=variant(), teacher=teacher, seed=1):
            assert item.value == 1
            assert item.relative_to_teacher is None

    def test_outcomes_of_another_split_are_refused(self) -> None:
        outcomes, _ = classified(LABELS, LABELS)
        shorter, split = classified(LABELS[:10], LABELS[:10])

        with pytest.raises(DataError, match=r"400 rows.*has 10"):
            score(outcomes, split, variant=variant(), teacher=None, seed=1)
        with pytest.raises(DataError, match="one test split"):
            score(shorter, split, variant=variant(), teacher=outcomes, seed=1)

    def test_without_sklearn_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
        outcomes, split = classified(LABELS, LABELS)

        with pytest.raises(MissingExtraError) as caught:
            score(outcomes, split, variant=variant(), teacher=None, seed=1)
        assert "[quality]" in caught.value.next_step


class TestBaseline:
    def test_it_is_scored_beside_the_teacher_without_a_digest(self) -> None:
        teacher, split = classified(LABELS, noisy(LABELS, 0.3, 1), "teacher")

        told = CLASSIFICATION.told("tfidf", [str(label) for label in LABELS], split)

        scores = by_metric(baseline_scores(told, split, family="family", teacher=teacher, seed=1))

        assert scores["accuracy"].value == 1
        assert scores["accuracy"].role is Role.BASELINE
        assert scores["accuracy"].sha256 == ""
        assert (scores["accuracy"].relative_to_teacher or 0) > 1.2
        assert (scores["accuracy"].p_value or 1) < 1e-6

    def test_it_must_predict_every_row(self) -> None:
        _, split = classified(LABELS, LABELS, "teacher")

        with pytest.raises(DataError, match="tfidf has outcomes of 3 rows"):
            CLASSIFICATION.told("tfidf", [str(label) for label in LABELS[:3]], split)


class TestLanguage:
    def test_perplexity_and_bits_per_byte_are_as_by_hand(self) -> None:
        outcomes, split = spoken(
            np.array([-6.0, -3.0, -1.0]), np.array([3, 2, 1]), np.array([10, 5, 5])
        )

        scores = by_metric(score(outcomes, split, variant=LANGUAGE, teacher=None, seed=1))

        assert scores["perplexity"].value == pytest.approx(math.exp(10 / 6))
        assert scores["bits_per_byte"].value == pytest.approx(10 / math.log(2) / 20)
        assert "word_perplexity" not in scores  # nobody counted words

    def test_perplexities_by_word_and_byte_are_lm_evals(self) -> None:
        metrics = pytest.importorskip("lm_eval.api.metrics")
        nats, bytes_, words = (
            np.array([-6.0, -3.0, -1.5]),
            np.array([10, 5, 5]),
            np.array([2, 0, 1]),
        )
        outcomes, split = spoken(nats, np.array([3, 2, 1]), bytes_)
        outcomes = dataclasses.replace(outcomes, words=words)

        scores = by_metric(score(outcomes, split, variant=LANGUAGE, teacher=outcomes, seed=1))

        for name, weights in (("word_perplexity", words), ("byte_perplexity", bytes_)):
            theirs = metrics.weighted_perplexity(list(zip(nats, weights, strict=True)))
            assert scores[name].value == pytest.approx(theirs)
            assert scores[name].low <= theirs <= scores[name].high
            assert scores[name].relative_to_teacher == 1
            assert scores[name].units == 3
        assert list(scores)[:2] == ["perplexity", "bits_per_byte"]

    def test_unanswered_windows_are_left_out_on_both_sides(self) -> None:
        rng = np.random.default_rng(5)
        tokens, byte_counts = np.full(300, 10), np.full(300, 40)
        own = -rng.gamma(20, size=300)
        teachers = own / 2
        teacher, split = spoken(teachers, tokens, byte_counts, "teacher")
        missing = own.copy()
        missing[[3, 70]] = np.nan
        student, _ = spoken(missing, tokens, byte_counts)

        scores = by_metric(score(student, split, variant=LANGUAGE, teacher=teacher, seed=1))

        kept = ~np.isnan(missing)
        assert scores["perplexity"].samples == 298
        assert scores["perplexity"].value == pytest.approx(math.exp(-own[kept].mean() / 10))
        assert scores["bits_per_byte"].relative_to_teacher == pytest.approx(2.0)

    def test_too_many_unanswered_windows_are_no_score(self) -> None:
        values = np.full(100, -5.0)
        values[:2] = np.nan
        student, split = spoken(values, np.full(100, 3), np.full(100, 9))

        assert score(student, split, variant=LANGUAGE, teacher=None, seed=1) == []

    def test_other_tokens_compare_by_bytes_only(self) -> None:
        byte_counts = np.full(50, 30)
        student, split = spoken(np.full(50, -8.0), np.full(50, 8), byte_counts)
        teacher, _ = spoken(np.full(50, -4.0), np.full(50, 7), byte_counts, "teacher")

        scores = by_metric(score(student, split, variant=LANGUAGE, teacher=teacher, seed=1))

        assert scores["perplexity"].relative_to_teacher is None
        assert scores["bits_per_byte"].relative_to_teacher == pytest.approx(2.0)
        assert scores["bits_per_byte"].relative_low is None  # alike in every row

    def test_full_windows_of_other_text_have_no_perplexity_beside_the_teachers(self) -> None:
        """A long document fills the windows of any tokenizer, each with text of its own."""
        full = np.full(50, 63)
        student, split = spoken(np.full(50, -80.0), full, np.full(50, 240))
        teacher, _ = spoken(np.full(50, -60.0), full, np.full(50, 150), "teacher")

        scores = by_metric(score(student, split, variant=LANGUAGE, teacher=teacher, seed=1))

        assert scores["perplexity"].relative_to_teacher is None
        assert scores["bits_per_byte"].relative_to_teacher is not None

    def test_other_windows_compare_unpaired(self) -> None:
        """Two tokenizers cut windows elsewhere: nothing to pair, unless documents are known."""
        rng = np.random.default_rng(2)
        byte_counts = rng.integers(20, 40, size=200)
        nats = -byte_counts * rng.gamma(30, 1 / 30, size=200)
        half = nats * rng.uniform(0.89, 0.91, size=200)
        documents = np.arange(200)
        tokens = np.full(200, 8)
        student, split = spoken(nats, tokens, byte_counts)
        same, _ = spoken(half, tokens, byte_counts, "teacher")
        shuffled = rng.permutation(200)
        other, _ = spoken(half[shuffled], tokens + 1, byte_counts[shuffled], "teacher")
        known = dataclasses.replace(other, documents=documents[shuffled])

        paired, apart, by_document = (
            by_metric(score(own, split, variant=LANGUAGE, teacher=teacher, seed=1))["bits_per_byte"]
            for own, teacher in (
                (student, same),
                (student, other),
                (dataclasses.replace(student, documents=documents), known),
            )
        )

        for one in (paired, apart, by_document):
            assert one.relative_to_teacher == pytest.approx(1 / 0.9, rel=0.002)
            assert one.relative_low < one.relative_to_teacher < one.relative_high
        assert apart.relative_high - apart.relative_low > 0.05
        assert paired.relative_high - paired.relative_low < 0.01
        assert by_document.relative_high == pytest.approx(paired.relative_high, rel=1e-3)
        assert by_document.relative_low == pytest.approx(paired.relative_low, rel=1e-3)

    def test_windows_of_one_document_have_no_interval(self) -> None:
        rng = np.random.default_rng(3)
        outcomes, split = spoken(-rng.gamma(20, size=40), np.full(40, 10), np.full(40, 40))
        one = dataclasses.replace(outcomes, documents=np.zeros(40, dtype=np.int64))

        teacher = dataclasses.replace(one, variant="teacher")
        for item in score(one, split, variant=LANGUAGE, teacher=teacher, seed=1):
            assert (item.low, item.high, item.units, item.samples) == (None, None, 1, 40)
            assert (item.relative_low, item.relative_high) == (None, None)

    def test_a_model_broken_beyond_measure_still_has_a_number(self) -> None:
        student, split = spoken(np.full(5, -1e7), np.full(5, 3), np.full(5, 9))

        perplexity = score(student, split, variant=LANGUAGE, teacher=None, seed=1)[0]

        assert math.isfinite(perplexity.value)

    def test_a_classifiers_outcomes_are_refused(self) -> None:
        outcomes, _ = classified(LABELS[:5], LABELS[:5])
        _, split = spoken(np.full(5, -1.0), np.full(5, 3), np.full(5, 9))

        with pytest.raises(DataError, match="not of the test split's task"):
            score(outcomes, split, variant=LANGUAGE, teacher=None, seed=1)


labelled = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
        st.lists(st.integers(-1, 4), min_size=n, max_size=n),
    )
)


@given(labelled)
def test_metrics_of_sums_are_sklearns(rows: tuple[list[int], list[int]]) -> None:
    """What is weighed is the very metric that sklearn computes."""
    labels, predictions = map(np.array, rows)

    for statistic in classification_statistics(labels, predictions):
        of_all_rows = float(statistic.sums.of_sums(statistic.sums.table.sum(axis=0)))
        assert of_all_rows == pytest.approx(statistic.value, abs=1e-12)


windows = st.lists(
    st.tuples(st.floats(-500, -0.01), st.integers(1, 64), st.integers(1, 300)),
    min_size=1,
    max_size=40,
)


@given(windows, st.integers(0, 2**32))
def test_an_identical_model_keeps_all_as_far_as_the_rows_tell(
    rows: list[tuple[float, int, int]], seed: int
) -> None:
    log_likelihood, tokens, byte_counts = (np.array(column) for column in zip(*rows, strict=True))
    teacher, split = spoken(log_likelihood, tokens, byte_counts, "teacher")
    student = _copied(teacher)

    for item in score(student, split, variant=LANGUAGE, teacher=teacher, seed=seed):
        assert item.relative_to_teacher == 1
        if item.relative_low is not None:
            assert item.relative_low < 1 < item.relative_high


@given(labelled, st.integers(0, 2**32))
def test_an_identical_classifier_keeps_all_as_far_as_the_rows_tell(
    rows: tuple[list[int], list[int]], seed: int
) -> None:
    labels, predictions = map(np.array, rows)
    teacher, split = classified(labels, predictions, "teacher")

    scores = by_metric(
        score(_copied(teacher), split, variant=variant(), teacher=teacher, seed=seed)
    )

    assert scores["accuracy"].p_value == 1
    for item in scores.values():
        assert item.relative_to_teacher == (1 if item.value > 0 else None)
        if item.value > 0:
            assert item.relative_low < 1 < item.relative_high


def _copied(teacher: Outcomes) -> Outcomes:
    """Another model with the same outcomes, in memory of its own."""
    arrays = {
        field.name: value.copy()
        for field in dataclasses.fields(teacher)
        if isinstance(value := getattr(teacher, field.name), np.ndarray)
    }
    return dataclasses.replace(teacher, variant="student", **arrays)

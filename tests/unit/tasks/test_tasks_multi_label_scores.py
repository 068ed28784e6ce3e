"""Micro- and macro-F1 and subset accuracy: scikit-learn's, by name, with sound intervals."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from scipy import special, stats

from harness.quality.collection import read_outcomes
from harness.statistics import intervals
from harness.statistics.intervals import bounds, side_by_side
from harness.tasks.encoding import EncodedGroup
from harness.tasks.multi_label.family import MultiLabelFamily
from harness.tasks.multi_label.outcomes import ScoredLabelSets, given_labels
from harness.tasks.multi_label.relabelling import find_relabelling
from harness.tasks.multi_label.rows import LabelSetDataset
from harness.tasks.multi_label.statistics import (
    average_precision_sums,
    kl_to_teacher_nats,
    label_set_details,
    label_set_statistics,
    macro_f1_sums,
    micro_f1_sums,
    paired_measures,
)
from harness.tasks.outcomes import write_outcomes

NAMES = ("joy", "love", "anger", "fear")


def dataset_of(labels, names=NAMES, class_names=None, threshold=0.5):
    rows = np.arange(len(labels))
    ids = np.ones((len(labels), 4), dtype=np.int64)
    return LabelSetDataset(
        groups=(EncodedGroup({"input_ids": ids, "attention_mask": ids}, rows),),
        size=len(labels),
        truncated=0,
        padding_share=0.0,
        digest="d",
        pad_token_id=0,
        labels=np.array(labels, dtype=bool),
        label_names=tuple(names),
        class_names=tuple(class_names or names),
        threshold=threshold,
    )


def outcomes_of(logits, dataset, variant="student", unanswered=()):
    logits = np.array(logits, dtype=np.float32)
    missing = np.isin(np.arange(len(logits)), unanswered)
    logits[missing] = np.nan
    given = given_labels(logits, dataset.threshold)
    return ScoredLabelSets(
        variant=variant,
        sha256="s",
        unanswered=missing,
        given=given,
        logits=logits,
        correct=(given == dataset.labels).all(axis=1) & ~missing,
        label_names=dataset.class_names,
    )


def scores(outcomes, dataset):
    kept = np.ones(dataset.size, dtype=bool)
    return {one.metric: one for one in label_set_statistics(outcomes, dataset, kept)}


def test_a_single_label_is_scored_as_one_of_several_is():
    """scikit-learn averages a single column's F1 over its zeros and ones: 3 of 5 here, not 1/2."""
    labels, logits = [[1], [1], [0], [0], [0]], [[1], [-1], [1], [-1], [-1]]
    dataset = dataset_of(labels, ("joy",))
    found = scores(outcomes_of(logits, dataset), dataset)
    assert found["micro_f1"].value == pytest.approx(1 / 2)
    assert found["macro_f1"].value == pytest.approx(1 / 2)

    several = dataset_of([[*row, 0, 0] for row in labels], NAMES[:3])
    given = outcomes_of([[*row, 1, -1] for row in logits], several)
    found = scores(given, several)
    assert found["micro_f1"].value == pytest.approx(2 / 9)  # love was given to all, wrongly
    assert found["macro_f1"].value == pytest.approx(1 / 2)
    for one in found.values():
        span = one.bounds(seed=0)
        assert span.low <= one.value <= span.high


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_values_are_scikit_learns_at_the_studys_threshold(threshold):
    rng = np.random.default_rng(5)
    truth = rng.random((80, 4)) < [0.5, 0.3, 0.2, 0.0]  # fear is in no row
    logits = rng.normal(size=(80, 4)) + 2 * truth - 1
    dataset = dataset_of(truth, threshold=threshold)
    given = special.expit(logits.astype(np.float32).astype(np.float64)) >= threshold

    found = scores(outcomes_of(logits, dataset), dataset)

    expected = {
        "micro_f1": sklearn.metrics.f1_score(truth, given, average="micro"),
        "macro_f1": sklearn.metrics.f1_score(truth, given, labels=[0, 1, 2], average="macro"),
        "subset_accuracy": sklearn.metrics.accuracy_score(truth, given),
        "mean_average_precision": sklearn.metrics.average_precision_score(
            truth[:, :3], logits[:, :3].astype(np.float32)
        ),
    }
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected)
    for one in found.values():  # what is weighted for the interval is the same number
        whole = one.sums.of_sums(one.sums.table.sum(axis=0))
        assert float(whole) == pytest.approx(one.value)


def test_an_unanswered_row_is_given_nothing_and_is_not_right():
    truth = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    dataset = dataset_of(truth)
    logits = np.where(np.array(truth), 5.0, -5.0)

    found = scores(outcomes_of(logits, dataset, unanswered=(0, 1)), dataset)

    assert found["subset_accuracy"].value == pytest.approx(1 / 3)
    assert found["micro_f1"].value == pytest.approx(2 / 3)


def test_a_model_is_scored_by_the_names_of_its_labels_whatever_their_order():
    """Its teacher too, beside whose numbering the student's data is another."""
    rng = np.random.default_rng(6)
    truth = rng.random((60, 4)) < 0.4
    logits = rng.normal(size=(60, 4)) + 3 * truth - 1.5
    order = [2, 0, 3, 1]
    own = dataset_of(truth)
    other = dataset_of(truth[:, order], names=[NAMES[one] for one in order])

    straight = scores(outcomes_of(logits, own), own)
    turned = scores(outcomes_of(logits[:, order], other), other)
    teacher_on_the_students_data = scores(outcomes_of(logits, own), other)

    for found in (turned, teacher_on_the_students_data):
        assert {name: one.value for name, one in found.items()} == pytest.approx(
            {name: one.value for name, one in straight.items()}
        )
    measures = {
        name: value
        for name, value, *_ in paired_measures(
            outcomes_of(logits[:, order], other), outcomes_of(logits, own), 1
        )
    }
    assert measures["agreement"] == measures["label_agreement"] == 1.0
    assert measures["kl_mean_nats"] == pytest.approx(0.0, abs=1e-9)


def test_a_label_that_the_data_does_not_know_is_wrong_wherever_it_is_given():
    truth = [[1, 0], [0, 1]]
    dataset = dataset_of(truth, names=("joy", "love"))
    more = dataset_of([[1, 0, 0], [0, 1, 0]], names=("joy", "love", "pride"))
    outcomes = outcomes_of([[5, -5, 5], [-5, 5, -5]], more)

    found = scores(outcomes, dataset)

    assert found["subset_accuracy"].value == 0.5
    assert found["micro_f1"].value == pytest.approx(4 / 5)


def test_the_divergence_is_scipys_of_each_label_summed():
    rng = np.random.default_rng(7)
    dataset = dataset_of(np.zeros((9, 4)))
    first, second = rng.normal(size=(2, 9, 4)).astype(np.float32)

    found = kl_to_teacher_nats(
        outcomes_of(first, dataset), outcomes_of(second, dataset, variant="teacher")
    )

    p, q = special.expit(second.astype(float)), special.expit(first.astype(float))
    each = np.stack([p, 1 - p]), np.stack([q, 1 - q])
    np.testing.assert_allclose(found, stats.entropy(*each, axis=0).sum(axis=1), rtol=1e-6)


def test_outcomes_come_back_from_their_file(tmp_path):
    rng = np.random.default_rng(8)
    dataset = dataset_of(rng.random((12, 4)) < 0.5, threshold=0.3)
    outcomes = outcomes_of(rng.normal(size=(12, 4)), dataset, unanswered=(3,))
    family = MultiLabelFamily()

    write_outcomes(tmp_path / "o.parquet", outcomes, dataset, family.truth(dataset), {})
    back = read_outcomes(tmp_path / "o.parquet")

    assert isinstance(back, ScoredLabelSets)
    assert back.label_names == NAMES
    np.testing.assert_array_equal(back.logits, outcomes.logits)
    np.testing.assert_array_equal(back.given, outcomes.given)
    np.testing.assert_array_equal(back.correct, outcomes.correct)
    assert not back.given[3].any()


def test_the_examples_and_labels_that_fell_are_the_students():
    truth = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]] * 4, dtype=bool)
    dataset = dataset_of(truth)
    right = np.where(truth, 4.0, -4.0)
    worse = right.copy()
    worse[1, 1], worse[4, 1], worse[2, 0] = -6.0, -1.0, 3.0
    student = outcomes_of(worse, dataset)
    teacher = outcomes_of(right, dataset, variant="teacher")

    found = label_set_details(student, teacher, dataset, tuple("abcdefghijkl"))

    assert [one.row for one in found.examples] == [1, 2, 4]
    first = found.examples[0]
    assert (first.label, first.teacher_says, first.variant_says) == (
        "joy, love", "joy, love", "joy",
    )  # fmt: skip
    assert [(one.label, one.taken_for, one.teacher, one.variant) for one in found.shifts] == [
        ("love", "(not given)", 0, 2),
        ("(given wrongly)", "joy", 0, 1),
    ]


SHARES = np.array([0.5, 0.2, 0.1])
RIGHT = {"often": (0.85, 0.1), "always": (1.0, 0.0), "seldom": (0.4, 0.3)}
"""Chance that a label is given where it is right, and where it is not."""


@pytest.mark.parametrize("rows", [20, 100])
@pytest.mark.parametrize("skill", RIGHT)
def test_intervals_of_f1_hold_the_truth(rows, skill, monkeypatch):
    monkeypatch.setattr(intervals, "MOST_DRAWS", 600)
    rng = np.random.default_rng(rows)
    hit, false = RIGHT[skill]

    def drawn(count):
        truth = rng.random((count, 3)) < SHARES
        given = rng.random((count, 3)) < np.where(truth, hit, false)
        return truth, given

    f1 = 2 * hit * SHARES / (hit * SHARES + false * (1 - SHARES) + SHARES)
    micro = 2 * (hit * SHARES).sum() / (hit * SHARES + false * (1 - SHARES) + SHARES).sum()
    held = {"micro": 0, "macro": 0, "kept": 0}
    studies = 0
    while studies < 120:
        truth, given = drawn(rows)
        if not truth.any(axis=0).all():
            continue
        studies += 1
        better = given | truth
        first, second = micro_f1_sums(truth, given), micro_f1_sums(truth, better)
        micro_found = bounds(first, seed=studies)
        macro_found = bounds(macro_f1_sums(truth, given), seed=studies)
        beside = bounds(side_by_side(first, second), seed=studies)
        of_better = 2 * SHARES.sum() / (2 * SHARES + false * (1 - SHARES)).sum()
        held["micro"] += micro_found.low <= micro + 1e-9 and micro <= micro_found.high + 1e-9
        held["macro"] += (
            macro_found.low <= f1.mean() + 1e-9 and f1.mean() <= macro_found.high + 1e-9
        )
        held["kept"] += (
            beside.low <= micro / of_better + 1e-9 and micro / of_better <= beside.high + 1e-9
        )

    assert min(held.values()) / studies >= 0.89, held


def test_a_row_left_out_moves_the_average_precision_as_if_all_were_ranked_anew():
    rng = np.random.default_rng(9)
    truth = rng.random((200, 3)) < SHARES
    scores = np.round(rng.normal(size=(200, 3)) + 1.5 * truth, 1)  # many are shared
    sums = average_precision_sums(truth, scores)

    quick = sums.of_sums(sums.table.sum(axis=0) - sums.table)

    assert float(sums.of_sums(sums.table.sum(axis=0))) == pytest.approx(
        sklearn.metrics.average_precision_score(truth, scores)
    )
    exact = [
        sklearn.metrics.average_precision_score(
            np.delete(truth, row, axis=0), np.delete(scores, row, axis=0)
        )
        for row in range(200)
    ]
    assert np.corrcoef(quick, exact)[0, 1] > 0.98
    assert quick.std() == pytest.approx(np.std(exact), rel=0.05)


def test_the_interval_of_a_perfect_average_precision_is_not_certain():
    truth = np.eye(4, dtype=bool)[np.arange(200) % 4]

    found = bounds(average_precision_sums(truth, truth.astype(float)), seed=1)

    assert found.high == 1.0
    assert 0.9 < found.low < 0.99


def test_of_one_row_with_a_label_no_share_of_the_teachers_average_precision_is_certain():
    truth = np.arange(20)[:, None] == 3
    perfect = average_precision_sums(truth, truth.astype(float))
    beside = bounds(side_by_side(perfect, perfect), seed=0)
    assert (beside.low, beside.high) == (None, None)  # the teacher's own may be nothing
    several = np.arange(20)[:, None] % 4 == 3
    perfect = average_precision_sums(several, several.astype(float))
    beside = bounds(side_by_side(perfect, perfect), seed=0)
    assert beside.low is None or beside.low < 1 < beside.high


def test_twenty_rows_all_right_are_not_certainly_all_right():
    truth = np.eye(4, dtype=bool)[np.arange(20) % 4]

    found = bounds(micro_f1_sums(truth, truth), seed=1)

    assert found.high == 1.0
    assert 0.75 < found.low < 0.9


def test_right_and_taken_rows():
    dataset = dataset_of([[1, 0, 0, 0], [0, 1, 0, 0]])
    outcomes = outcomes_of([[5, -5, -5, -5], [5, -5, -5, -5]], dataset)
    family = MultiLabelFamily()

    assert family.right("subset_accuracy", outcomes).tolist() == [True, False]
    assert family.right("micro_f1", outcomes) is None


def noisy_labels(rows, seed, order=(0, 1, 2, 3), errors=0.05):
    """Labels, and what a model gives that is nearly right but for the order of its outputs."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 4)) < [0.4, 0.3, 0.2, 0.2]
    given = truth ^ (rng.random((rows, 4)) < errors)
    return dataset_of(truth), np.where(given, 3.0, -3.0)[:, list(order)]


def test_outputs_in_another_order_than_they_are_called_are_found():
    dataset, logits = noisy_labels(200, 1, order=(1, 2, 0, 3))

    found = find_relabelling(outcomes_of(logits, dataset), dataset, "f")

    assert found is not None
    assert found.called == NAMES
    assert found.means == ("love", "anger", "joy", "fear")
    assert found.accuracy < 0.4
    assert found.mended > 0.7


@pytest.mark.parametrize("seed", range(5))
def test_a_good_model_a_bad_one_and_labels_that_come_together_are_not_mixed_up(seed):
    dataset, logits = noisy_labels(200, seed)
    bad = np.random.default_rng(seed).normal(size=logits.shape)
    never = logits.copy()
    never[:, 1] = -3.0  # love is never given, and joy is given wherever love is
    together = dataset_of(np.column_stack([dataset.labels[:, 1], *dataset.labels.T[1:]]))
    few_dataset, few = noisy_labels(6, seed, order=(1, 0, 2, 3), errors=0.0)

    for one, split in ((logits, dataset), (bad, dataset), (never, together), (few, few_dataset)):
        assert find_relabelling(outcomes_of(one, split), split, "f") is None

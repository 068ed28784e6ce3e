"""Classes that are mixed up are found with the permutation that fixes it; bad models are not."""

import numpy as np
import pytest
from quality_samples import sure

from harness.tasks.classification.confusions import find_relabelling


def outcomes(labels, predictions, names, variant="student"):
    logits = np.eye(len(names))[predictions] * 4.0
    return sure(np.asarray(labels), logits, variant, tuple(names))


def found_in(labels, predictions, names, **others):
    one = outcomes(labels, predictions, names)
    return find_relabelling(one, np.asarray(labels), called=names, family="family", **others)


def noisy(predictions, classes, wrong, rng):
    """Some answers replaced by any class."""
    anything = rng.integers(classes, size=len(predictions))
    return np.where(rng.random(len(predictions)) < wrong, anything, predictions)


@pytest.mark.parametrize(("classes", "rows"), [(2, 40), (3, 60), (5, 100), (12, 240)])
def test_outputs_in_another_order_are_found_with_their_order(classes, rows):
    rng = np.random.default_rng(classes)
    names = [f"class {n}" for n in range(classes)]
    labels = rng.integers(classes, size=rows)
    order = np.roll(np.arange(classes), 1)  # class n is answered by output order[n]
    found = found_in(labels, noisy(order[labels], classes, 0.1, rng), names)
    assert [found.means[order[label]] for label in range(classes)] == names
    assert found.called == tuple(names)
    assert found.accuracy < 0.2
    assert found.mended > 0.8


def test_two_classes_of_many_that_are_swapped_are_found_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(8, size=400)
    order = np.array([0, 1, 5, 3, 4, 2, 6, 7])
    found = found_in(labels, noisy(order[labels], 8, 0.1, rng), list("abcdefgh"))
    assert found.means == tuple("abfdecgh")
    assert found.mended > found.accuracy + 0.15


def test_a_shift_by_one_is_found_where_one_class_never_appears():
    labels = np.repeat([0, 1, 2, 3], 20)  # of five classes, the last unseen
    found = found_in(labels, labels + 1, list("12345"))
    assert found.means == tuple("51234")
    assert (found.accuracy, found.mended) == (0.0, 1.0)


def test_what_the_checkpoint_calls_its_outputs_stands_beside_the_classes():
    labels = np.tile([0, 1], 30)
    one = outcomes(labels, 1 - labels, ["neg", "pos"])
    found = find_relabelling(one, labels, called=("LABEL_0", "LABEL_1"), family="family")
    assert (found.called, found.means) == (("LABEL_0", "LABEL_1"), ("pos", "neg"))


def test_a_student_of_a_teacher_that_is_often_wrong_is_found_beside_the_teacher():
    rng = np.random.default_rng(1)
    labels = rng.integers(6, size=600)
    says = noisy(labels, 6, 0.7, rng)
    student = outcomes(labels, noisy((says + 2) % 6, 6, 0.05, rng), list("abcdef"))
    teacher = outcomes(labels, says, list("abcdef"), "teacher")
    accuracy = float(teacher.correct.mean())
    found = find_relabelling(
        student, labels, called=list("abcdef"), family="family", teacher=teacher,
        reference=accuracy,
    )  # fmt: skip
    assert found.means == tuple("efabcd")
    assert found.mended == pytest.approx(accuracy, abs=0.05)


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_good_bad_constant_and_one_sided_models_are_left_alone(classes):
    rng = np.random.default_rng(classes)
    names = [str(n) for n in range(classes)]
    labels = rng.integers(classes, size=300)
    for predictions in (
        labels,
        noisy(labels, classes, 0.5, rng),
        rng.integers(classes, size=300),
        np.zeros(300, dtype=np.int64),
        np.where(labels == 0, 1, labels),  # one class lost to another
        np.full(300, -1),
    ):
        one = outcomes(labels, np.maximum(predictions, 0), names)
        one.predictions[:] = predictions
        assert find_relabelling(one, labels, called=names, family="family") is None


@pytest.mark.parametrize(("classes", "rows"), [(2, 20), (2, 200), (3, 60), (5, 30), (12, 120)])
def test_a_model_of_random_weights_is_taken_for_a_mixed_up_one_less_than_once_in_a_hundred(
    classes, rows
):
    """Teacher and student: linear models of random weights on the same 16 features."""
    rng = np.random.default_rng(0)
    names, alarms, studies = [str(n) for n in range(classes)], 0, 400
    for _ in range(studies):
        features = rng.normal(size=(rows, 16)) + rng.normal(size=16)
        labels = (features @ rng.normal(size=(16, classes))).argmax(axis=1)
        predictions = (features @ rng.normal(size=(16, classes))).argmax(axis=1)
        alarms += found_in(labels, predictions, names, reference=1.0) is not None
    assert alarms <= studies / 100

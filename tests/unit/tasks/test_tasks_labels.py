"""How a column of labels is read for a checkpoint: the right output is known for each case."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tasks.label_values import is_generic
from harness.tasks.labels import choose_reading

MNLI_DATA = ["entailment", "neutral", "contradiction"]
MNLI_MODEL = ["CONTRADICTION", "ENTAILMENT", "NEUTRAL"]
TWELVE = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, ...
STARS = ["1", "2", "3", "4", "5"]
GENERIC = [f"LABEL_{index}" for index in range(12)]
SENTIMENT = ["neg", "pos"]


def reading(values, outputs, **others):
    return choose_reading(values, "student", outputs, **others)


def read(values, outputs, **others):
    found = reading(values, outputs, **others)
    assert found.problem == ""
    return [found.reader.read(value) for value in values]


def teacher(values, outputs, **others):
    return choose_reading(values, "teacher", outputs, **others).reader


def test_names_decide_where_data_and_checkpoint_number_differently():
    assert read([0, 1, 2], MNLI_MODEL, order=MNLI_DATA) == [1, 2, 0]
    assert read(MNLI_DATA, MNLI_MODEL, order=MNLI_DATA) == [1, 2, 0]
    assert read(["2", "0"], MNLI_MODEL, order=MNLI_DATA) == [0, 1]


def test_without_names_of_the_data_an_index_is_the_checkpoints():
    assert read([1, "neutral"], MNLI_MODEL) == [1, 2]


def test_generic_names_say_nothing_so_indexes_stand_and_names_come_from_the_study():
    assert is_generic(["LABEL_0", "LABEL_1"])
    assert not is_generic(["LABEL_1", "LABEL_0"])
    assert read(["2", 0], GENERIC[:3]) == [2, 0]
    assert reading(["neutral"], GENERIC[:3]).reader.read("neutral") is None
    named = reading(["neutral"], GENERIC[:3], order=MNLI_DATA).reader
    assert named.names == tuple(MNLI_DATA)
    assert named.read("neutral") == 1


@pytest.mark.parametrize("kind", [int, str, float, np.int64, np.float32, lambda x: f" {x:02d} "])
def test_classes_called_by_numbers_are_read_by_name_however_the_numbers_are_written(kind):
    values = [kind(number) for number in range(12)]
    assert read(values, TWELVE) == [TWELVE.index(str(number)) for number in range(12)]


def test_a_column_of_names_that_could_be_indexes_too_is_said():
    assert "2 is '2', output 4" in reading(list(range(12)), TWELVE).note
    assert reading([0, 1], SENTIMENT).note == ""


def test_the_whole_column_says_whether_numbers_are_stars_or_indexes():
    assert read([1, 2, 3, 4, 5], STARS) == [0, 1, 2, 3, 4]
    assert read([0, 1, 2, 3, 4], STARS) == [0, 1, 2, 3, 4]
    assert read([0.0, 4.0], STARS) == [0, 4]
    assert read(["5", "1"], STARS) == [4, 0]
    assert "read as indexes" in reading([0, 1, 2, 3, 4], STARS).note
    assert read([3, 3], STARS) == [2, 2]


RATINGS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")


def test_indexes_that_may_be_the_numbers_in_the_names_are_refused():
    """Reviews of one to four stars would each be counted as one star more."""
    found = reading([1, 2, 3, 4], RATINGS)
    assert "1 may be the number in '1 star' or the index of '2 stars'" in found.problem
    assert read([0, 1, 2, 3, 4], RATINGS) == [0, 1, 2, 3, 4]
    assert read([1, 2, 3, 4], RATINGS, order=RATINGS) == [1, 2, 3, 4]
    assert read([1, 0], ("topic 0", "topic 1", "topic 2")) == [1, 0]
    assert read([1, 0], ("2 of 3", "1 of 3")) == [1, 0]


def test_numbers_that_are_names_in_one_row_and_indexes_in_another_are_refused_once():
    problem = reading([0, 1, 5], STARS).problem
    assert "the classes of student" in problem
    assert "[0, 1, 5]" in problem
    assert "[1, 2, 3, 4, 5]" in problem


@pytest.mark.parametrize(
    ("values", "outputs", "expected"),
    [
        (["LABEL_1", "label_0"], SENTIMENT, [1, 0]),
        (["LABEL_1", "LABEL_0"], GENERIC[:2], [1, 0]),
        (["LABEL_1", "LABEL_0"], ["LABEL_1", "LABEL_0"], [0, 1]),
        ([1.0, "0.0", np.int32(1)], SENTIMENT, [1, 0, 1]),
        ([" Pos ", "NEG\u00a0"], SENTIMENT, [1, 0]),
        (["cafe\u0301"], ["caf\u00e9", "tea"], [0]),
        ([True, False], ["False", "True"], [1, 0]),
        (["TRUE", "false"], ["true", "false"], [0, 1]),
        ([True, False], SENTIMENT, [1, 0]),
        ([True, "false"], GENERIC[:2], [1, 0]),
        ([True, False], ["1", "0"], [0, 1]),
        ([np.bool_(True)], ["not spam", "spam"], [1]),
        ([1, 0], ["false", "true"], [1, 0]),
        (["01", "1"], ["1", "01"], [1, 0]),
        ([-1, 0, 1], ["-1", "0", "1"], [0, 1, 2]),
        (["prose", 0], ["code", "prose"], [1, 0]),
    ],
)
def test_what_can_only_mean_one_class_is_taken(values, outputs, expected):
    assert read(values, outputs) == expected


@pytest.mark.parametrize(
    ("values", "outputs"),
    [
        ([True, False], ["toxic", "clean"]),
        ([True, False], ["a", "b", "c"]),
        ([1, 0], ["true", "false"]),
        ([1, 0], ["LABEL_1", "LABEL_0"]),
        ([1.5], SENTIMENT),
        (["a"], ["A", "\uff41"]),
        (["x"], ["x", "x"]),
    ],
)
def test_what_could_mean_two_or_none_is_not(values, outputs):
    found = reading(values, outputs)
    assert found.problem or None in [found.reader.read(value) for value in values]


def test_the_studys_labels_settle_what_the_column_leaves_open():
    assert read([1, 0], ["true", "false"], order=["false", "true"]) == [0, 1]
    assert read([True, False], ["toxic", "clean"], order=["clean", "toxic"]) == [0, 1]
    assert read([2], GENERIC, order=TWELVE) == [4]


def test_declared_indexes_are_never_names():
    assert read([2, 4], TWELVE, order=TWELVE, declared=True) == [2, 4]
    assert read([0, 1], ["pos", "neg"], order=SENTIMENT, declared=True) == [1, 0]


def test_another_number_of_classes_is_a_problem():
    problem = reading([0], GENERIC[:3], order=["yes", "no"]).problem
    assert "the data has 2 classes" in problem
    assert "the checkpoint has 3" in problem


def test_names_that_the_checkpoint_lacks_are_a_problem_with_both_lists():
    problem = reading([0], ["code", "prose"], order=["pos", "neg"]).problem
    assert "[pos, neg]" in problem
    assert "[code, prose]" in problem


def test_data_may_have_fewer_classes_than_the_checkpoint():
    assert read([0], MNLI_MODEL, order=["neutral", "entailment"]) == [2]


@pytest.mark.parametrize("value", [1.5, None, "", "3", 3, -1, "-1", "other", [1], float("nan")])
def test_what_is_no_label(value):
    assert reading([0, 1], MNLI_MODEL, order=MNLI_DATA).reader.read(value) is None


@pytest.mark.parametrize(
    ("own", "expected", "classes"),
    [
        (["NEG", "POS"], [0, 1], ("neg", "pos")),
        (["POS", "NEG"], [1, 0], ("pos", "neg")),
        (["LABEL_0", "LABEL_1"], [0, 1], ("neg", "pos")),
        (["negative", "positive"], [0, 1], ("neg", "pos")),
        (["pos", "neutral", "neg"], [2, 0], ("pos", "neutral", "neg")),
        (GENERIC[:3], [0, 1], ("neg", "pos", "LABEL_2")),
    ],
)
def test_a_students_outputs_are_the_classes_that_its_teacher_reads_in_the_same_rows(
    own, expected, classes
):
    beside = teacher([0, 1], SENTIMENT)
    assert read([0, 1], own, teacher=beside) == expected
    assert reading([0, 1], own, teacher=beside).reader.class_names == classes


def test_an_unnamed_teacher_and_a_student_named_by_numbers_meet_in_the_datas_numbers():
    values = list(range(12))
    found = reading(values, TWELVE, teacher=teacher(values, GENERIC)).reader
    assert found.class_names == tuple(f"LABEL_{name}" for name in TWELVE)


def test_an_unnamed_student_of_a_teacher_named_in_another_order_is_refused_unless_told():
    values = list(range(12))
    problem = reading(values, GENERIC, teacher=teacher(values, TWELVE)).problem
    assert "2 is the class '2' of the teacher" in problem
    beside = teacher(values, TWELVE, order=TWELVE)
    found = reading(values, GENERIC, order=TWELVE, teacher=beside).reader
    assert found.read(2) == beside.read(2) == 4
    assert found.class_names == beside.class_names


def test_a_row_is_never_of_one_class_for_the_teacher_and_of_another_for_the_student():
    beside = teacher([0, 1, 2], ["1", "2", "3"])
    assert "the teacher" in reading([0, 1, 2], ["0", "1", "2"], teacher=beside).problem
    three = teacher([0, 1], ["neg", "neutral", "pos"])
    found = reading([0, 1], SENTIMENT, teacher=three).reader
    assert [found.read(0), found.read(1)] == [0, None]


def test_classes_that_a_study_names_in_an_order_of_its_own_are_shared_by_all_models():
    order = ["c", "b", "a"]
    beside = teacher([0, 1, 2], ["A", "B", "C"], order=order)
    assert read([0, 1, 2], ["B", "A", "C"], order=order, teacher=beside) == [2, 0, 1]
    unnamed = reading([0, 1, 2], GENERIC[:3], order=order, teacher=beside).reader
    assert unnamed.class_names == ("C", "B", "A")


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=2, max_size=6, unique=True),
    st.randoms(use_true_random=False),
)
def test_a_label_ends_at_the_output_of_its_name_whatever_the_two_orders(names, random):
    shuffled = random.sample(names, len(names))
    found = reading(names, shuffled, order=names)
    assert found.problem == ""
    for index, name in enumerate(names):
        assert shuffled[found.reader.read(index)] == name
        assert shuffled[found.reader.read(name)] == name


@given(st.permutations(range(7)), st.permutations(range(7)), st.sampled_from([int, str, float]))
def test_two_models_named_by_numbers_in_any_two_orders_read_every_row_as_one_class(a, b, kind):
    values = [kind(number) for number in range(7)]
    beside = teacher(values, list(map(str, a)))
    found = reading(values, list(map(str, b)), teacher=beside)
    assert found.problem == ""
    for number, value in enumerate(values):
        assert b[found.reader.read(value)] == a[beside.read(value)] == number
    assert [beside.class_names.index(name) for name in found.reader.class_names] == [
        a.index(number) for number in b
    ]


@pytest.mark.parametrize("own", [("ham", "spam"), ("a", "b"), ("1", "2")])
def test_what_one_label_is_for_both_is_one_class_whatever_either_calls_it(own):
    beside = teacher([0, 1], ["False", "True"])
    found = reading([0, 1], own, teacher=beside)
    assert found.problem == ""
    assert [found.reader.read(value) for value in (0, 1)] == [0, 1]
    assert found.reader.class_names == beside.class_names == ("False", "True")

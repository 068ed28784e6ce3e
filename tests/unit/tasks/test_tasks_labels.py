import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.tasks.labels import is_generic, make_reader

MNLI_DATA = ["entailment", "neutral", "contradiction"]
MNLI_MODEL = ["CONTRADICTION", "ENTAILMENT", "NEUTRAL"]


def test_names_decide_where_data_and_checkpoint_number_differently():
    reader, problem = make_reader(MNLI_DATA, MNLI_MODEL)
    assert problem == ""
    assert reader.names == tuple(MNLI_MODEL)
    assert [reader.read(index) for index in range(3)] == [1, 2, 0]
    assert [reader.read(name) for name in MNLI_DATA] == [1, 2, 0]
    assert reader.read("2") == 0


def test_without_names_of_the_data_an_index_is_the_checkpoints():
    reader, _ = make_reader(None, MNLI_MODEL)
    assert reader.read(1) == 1
    assert reader.read("neutral") == 2


def test_generic_names_say_nothing_so_indexes_stand_and_names_come_from_the_study():
    assert is_generic(["LABEL_0", "LABEL_1"])
    bare, problem = make_reader(None, ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert problem == ""
    assert bare.names is None
    assert bare.read("2") == 2
    assert bare.read("neutral") is None
    named, problem = make_reader(MNLI_DATA, ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert problem == ""
    assert named.names == tuple(MNLI_DATA)
    assert named.read("neutral") == 1


def test_another_number_of_classes_is_a_problem():
    _, problem = make_reader(["yes", "no"], ["LABEL_0", "LABEL_1", "LABEL_2"])
    assert "2 classes (yes, no)" in problem
    assert "checkpoint has 3" in problem


def test_names_that_the_checkpoint_lacks_are_a_problem_with_both_lists():
    _, problem = make_reader(["pos", "neg"], ["code", "prose"])
    assert "[pos, neg]" in problem
    assert "[code, prose]" in problem


def test_data_may_have_fewer_classes_than_the_checkpoint():
    reader, problem = make_reader(["neutral", "entailment"], MNLI_MODEL)
    assert problem == ""
    assert reader.read(0) == 2


def test_digits_may_be_names():
    reader, _ = make_reader(None, ["1", "2", "3"])
    assert reader.read("1") == 0
    assert reader.read(1) == 1


@pytest.mark.parametrize("value", [True, 1.0, None, "", "3", 3, -1, "-1", "other", [1]])
def test_what_is_no_label(value):
    reader, _ = make_reader(MNLI_DATA, MNLI_MODEL)
    assert reader.read(value) is None


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=2, max_size=6, unique=True),
    st.randoms(use_true_random=False),
)
def test_a_label_ends_at_the_output_of_its_name_whatever_the_two_orders(names, random):
    shuffled = random.sample(names, len(names))
    reader, problem = make_reader(names, shuffled)
    assert problem == ""
    for index, name in enumerate(names):
        assert shuffled[reader.read(index)] == name
        assert shuffled[reader.read(name)] == name

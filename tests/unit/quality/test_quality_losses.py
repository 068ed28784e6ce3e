"""Shares along a chain, losses by slice, confusions: against truths known by construction."""

import dataclasses
import gc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quality_samples import classified, spoken, sure, variant
from statsmodels.stats.multitest import multipletests

from harness.quality.losses import (
    FEWEST_SAMPLES,
    MOST_VALUES,
    OTHER,
    Rows,
    Slicing,
    loss_chain,
    slice_losses,
    slicings,
)
from harness.quality.scores import score
from harness.statistics.paired import holm, paired_loss, paired_scores
from harness.tasks.classification.confusions import confusion_shifts, confusions, worst_examples
from harness.tasks.losses import MOST_CHARACTERS, Step, chain_of_rows, shortened
from harness.tasks.rowwise import take

STUDIES = 600
correctness = arrays(np.bool_, st.tuples(st.integers(2, 6), st.integers(1, 40)))


def right(flags, name="step"):
    labels = np.zeros(len(flags), dtype=np.int64)
    return classified(labels, np.where(flags, 0, 1), name)[0]


@given(correctness)
def test_the_shares_of_a_chain_add_up_to_the_whole(steps):
    chain = loss_chain([Step(str(i), right(flags)) for i, flags in enumerate(steps)], seed=0)
    assert sum(link.loss.value for link in chain.links) == pytest.approx(chain.total.value)
    assert chain.total.value == pytest.approx(chain.links[0].quality - chain.links[-1].quality)
    for link in chain.links[1:]:
        assert link.loss.low <= link.loss.high


def test_a_number_that_moves_by_rounding_alone_has_not_changed():
    errors = np.array([47.0, 3.0, 0.5, 0.0])

    def pair(before, after):
        return paired_scores(
            before, after, seed=0, answered=np.ones(4, np.bool_), most=np.inf,
            higher_is_better=False,
        )  # fmt: skip

    steps = [errors, errors * (1 + 1e-7) + 1e-7, errors + np.array([0.0, 0.01, 0.0, 0.0])]
    chain = chain_of_rows("mae", [Step(str(i), one) for i, one in enumerate(steps)], pair)
    assert [link.changed for link in chain.links] == [0, 0, 1]


def test_a_language_models_shares_add_up_over_the_windows_that_every_step_answered():
    rng = np.random.default_rng(0)
    tokens, sizes = np.full(50, 10), rng.integers(30, 60, 50)
    steps = [-20 - i + rng.normal(size=50) for i in range(3)]
    steps[1][[3, 7]] = np.nan
    spoken_steps = [Step(str(i), spoken(ll, tokens, sizes)[0]) for i, ll in enumerate(steps)]
    chain = loss_chain(spoken_steps, seed=0)
    assert (chain.samples, chain.left_out) == (48, 2)
    assert sum(link.loss.value for link in chain.links) == pytest.approx(chain.total.value)
    assert chain.total.low < chain.total.value < chain.total.high
    assert chain.links[1].changed == 48
    nothing = [Step("a", spoken(np.full(50, np.nan), tokens, sizes)[0]), spoken_steps[0]]
    assert loss_chain(nothing, seed=0) is None


def test_windows_of_another_tokenizer_are_compared_over_the_whole_text():
    teacher = spoken(np.full(40, -20.0), np.full(40, 10), np.full(40, 50), "teacher")[0]
    student = spoken(np.full(50, -18.0), np.full(50, 8), np.full(50, 40))[0]
    chain = loss_chain([Step("teacher", teacher), Step("distillation", student)], seed=0)
    assert chain.total.value == pytest.approx((50 * 18 - 40 * 20) / (2000 * np.log(2)))


def test_a_step_that_changes_nothing_is_still_not_known_to_the_last_digit():
    same = np.arange(1500) < 1400
    found = paired_loss(same, same, seed=0)
    assert found.low < 0 < found.high < 0.003


def test_the_loss_and_the_retained_share_tell_one_story():
    """20 rows, both right on all: the table's loss and the objective's share are one interval."""
    flags = np.ones(20, dtype=bool)
    chain = loss_chain([Step("teacher", right(flags)), Step("serving", right(flags))], seed=1)
    teacher, split = classified(np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64), "t")
    student = dataclasses.replace(teacher, variant="student")
    accuracy = score(student, split, variant=variant(), teacher=teacher, seed=1)[0]
    assert chain.total.high == pytest.approx(1 - accuracy.relative_low, abs=0.004)
    assert accuracy.low == pytest.approx(accuracy.relative_low, abs=0.004)


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_holm_is_statsmodels(p_values):
    # It collects garbage at each call: in a process as large as this one that is half a second.
    with patch.object(gc, "collect"):
        theirs = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), theirs)


def groups(member, names=None):
    names = names or tuple(str(i) for i in range(int(member.max()) + 1))
    return Slicing("group", names, member, None)


def test_a_slice_that_loses_more_is_found_and_a_small_one_is_not_tested():
    rng = np.random.default_rng(1)
    member = np.repeat([0, 1, 2], [300, 300, FEWEST_SAMPLES - 1])
    teacher = right(np.ones(len(member), dtype=bool), "teacher")
    student = right(rng.random(len(member)) > np.array([0.02, 0.3, 0.5])[member])
    found = {s.name: s for s in slice_losses(student, teacher, [groups(member)], seed=0)}
    assert next(iter(found)) == "1"  # the greatest loss first, what is too small last
    assert list(found)[-1] == "2"
    assert found["1"].p_value < 0.001
    assert found["0"].p_value > 0.5
    assert found["1"].loss.low < 0.3 < found["1"].loss.high
    assert (found["2"].p_value, found["2"].loss.low, found["2"].excess) == (None, None, None)
    assert found["2"].samples == FEWEST_SAMPLES - 1


def test_where_all_slices_lose_alike_a_false_alarm_is_as_rare_as_it_says():
    rng = np.random.default_rng(2)
    rows = 600
    teacher = right(np.ones(rows, dtype=bool), "teacher")
    alarms = 0
    for _ in range(150):
        divisions = [groups(rng.integers(4, size=rows))]
        student = right(rng.random(rows) > 0.05)
        found = slice_losses(student, teacher, divisions, seed=0)
        alarms += any(one.p_value is not None and one.p_value < 0.05 for one in found)
    assert alarms / 150 < 0.1  # 5% and three standard errors


def test_a_language_models_slices_leave_unanswered_windows_out():
    tokens, sizes = np.full(80, 10), np.full(80, 40)
    teacher = spoken(np.full(80, -20.0), tokens, sizes, "teacher")[0]
    change = np.where(np.arange(80) < 40, -1.0, -3.0) + 0.01 * np.arange(80)
    likelihood = -20 + change
    likelihood[0] = np.nan
    student = spoken(likelihood, tokens, sizes)[0]
    found = {
        s.name: s for s in slice_losses(student, teacher, [groups(np.repeat([0, 1], 40))], seed=0)
    }
    assert (found["0"].samples, found["1"].samples) == (39, 40)
    assert found["1"].loss.value == pytest.approx(-change[40:].sum() / (1600 * np.log(2)))
    assert found["1"].p_value < 0.001


def test_samples_are_divided_by_class_length_confidence_and_columns():
    rng = np.random.default_rng(3)
    rows = 200
    labels = rng.integers(2, size=rows)
    teacher = sure(labels, rng.normal(size=(rows, 2)), "teacher")
    texts = ["x" * int(n) for n in rng.integers(5, 100, rows)]
    columns = {
        "source": ["web"] * 150 + ["book"] * 49 + [""],
        "year": [str(1900 + i) for i in range(rows)],
        "author": [f"author {i}" for i in range(rows)],
        "constant": ["one"] * rows,
    }
    known = Rows(texts, [str(label) for label in labels], columns)
    training = Rows(["y" * 50] * 10, ["1"] * 10, {"source": ["web"] * 7 + ["radio"] * 3})
    found = {one.name: one for one in slicings(known, teacher, training)}
    assert list(found) == ["class", "source", "year", "author", "characters", "teacher confidence"]
    assert found["class"].training == (0, 10)
    source = found["source"]
    assert dict(zip(source.slices, source.training, strict=True)) == {
        "(empty)": 0,
        "book": 0,
        "web": 7,
    }
    assert len(found["year"].slices) == 4
    assert found["author"].slices[-1] == OTHER
    assert len(found["author"].slices) == MOST_VALUES
    assert sum(found["characters"].training) == 10
    for one in found.values():
        assert np.bincount(one.member).sum() == rows
        assert one.member.max() < len(one.slices)


def test_a_band_holds_the_lengths_that_its_name_says():
    lengths = range(40, 48)
    labels = np.arange(8) % 2
    teacher = sure(labels, np.eye(2)[labels], "teacher")
    (bands,) = (
        one for one in slicings(Rows(["x" * n for n in lengths]), teacher, None)
        if one.name == "characters"
    )  # fmt: skip
    assert bands.slices == ("up to 41", "41 to 43", "43 to 45", "above 45")
    assert bands.member.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_confusions_count_what_is_now_taken_for_what():
    labels = np.array([0, 0, 0, 1, 1, 2])
    names = ("a", "b", "c")
    teacher = sure(labels, 4.0 * np.eye(3)[labels], "teacher", names)
    logits = 4.0 * np.eye(3)[[1, 1, 0, 1, 1, 2]]
    logits[5] = np.nan
    student = sure(labels, logits, label_names=names)
    counts = confusions(student, teacher, labels)
    assert counts.sum() == 2 * len(labels)
    shifts = confusion_shifts(counts, names)
    assert [(s.label, s.taken_for, s.teacher, s.variant) for s in shifts] == [
        ("a", "b", 0, 2),
        ("c", "(no answer)", 0, 1),
    ]


def test_the_worst_examples_are_those_the_teacher_had_right_and_the_variant_is_surest_of():
    labels = np.zeros(4, dtype=np.int64)
    teacher = sure(labels, np.array([[3.0, 0], [3, 0], [0, 3], [3, 0]]), "teacher", ("no", "yes"))
    logits = np.array([[0, 1.0], [0, 9], [0, 9], [np.nan, 0]])
    student = sure(labels, logits, label_names=("no", "yes"))
    found = worst_examples(student, teacher, labels, ["first", "second <b>\n bold", "x", "y"])
    assert [one.row for one in found] == [1, 0]
    assert (found[0].text, found[0].label) == ("second <b> bold", "no")
    assert found[0].teacher_says == "no (95.3%)"
    assert len(shortened("word " * 200)) == MOST_CHARACTERS


def test_some_rows_of_outcomes_keep_their_order():
    labels = np.array([0, 1, 1])
    whole = sure(labels, np.array([[1.0, 0], [0, 1], [1, 0]]))
    part = take(whole, np.array([0, 2]))
    assert part.correct.tolist() == [True, False]
    assert part.logits.shape == (2, 2)

"""Rows taken of what has rows: every field with an entry a row is cut, whatever its name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest

from harness.tasks.causal_lm.outcomes import WindowOutcomes
from harness.tasks.causal_lm.rows import WindowDataset
from harness.tasks.classification.outcomes import ClassOutcomes
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.encoding import EncodedGroup, take_rows
from harness.tasks.question_answering.outcomes import QuestionOutcomes
from harness.tasks.question_answering.rows import ContextGroup, QuestionDataset, Questions
from harness.tasks.rowwise import OF_ALL, PER_ROW, cut_by, rowwise, take


def plain(value: object) -> object:
    """Without arrays, so that two can be compared."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value


def fields_of(container: object) -> dict[str, object]:
    return {one.name: plain(getattr(container, one.name)) for one in fields(container)}


def test_a_field_that_does_not_say_how_it_is_cut_is_refused():
    with pytest.raises(TypeError, match="Forgetful: words"):

        @rowwise
        @dataclass
        class Forgetful:
            size: int = field(metadata=OF_ALL)
            words: tuple[str, ...] = ()


def test_a_mask_takes_the_rows_that_positions_do():
    @rowwise
    @dataclass(frozen=True)
    class Inner:
        numbers: np.ndarray = field(metadata=PER_ROW)
        name: str = field(metadata=OF_ALL)

    @rowwise
    @dataclass(frozen=True)
    class Outer:
        inner: Inner | None = field(metadata=PER_ROW)
        by_name: dict[str, np.ndarray] = field(metadata=PER_ROW)
        texts: tuple[str, ...] = field(metadata=PER_ROW)
        size: int = field(metadata=cut_by(lambda whole, rows: len(rows)))

    whole = Outer(Inner(np.arange(3) * 10, "n"), {"a": np.eye(3)}, ("x", "y", "z"), 3)
    part = take(whole, np.array([True, False, True]))
    assert fields_of(part.inner) == {"numbers": [0, 20], "name": "n"}
    assert plain(part.by_name) == {"a": [[1, 0, 0], [0, 0, 1]]}
    assert (part.texts, part.size) == (("x", "z"), 2)
    turned = take(whole, np.array([2, 0]))
    assert turned.texts == ("z", "x")
    assert plain(turned.inner.numbers) == [20, 0]


def test_fields_of_unequal_length_are_not_cut_in_silence():
    whole = WindowDataset(
        groups=(),
        size=3,
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
        byte_counts=np.arange(3),
        word_counts=np.arange(2),
        windows=((0, 0, 1),) * 3,
    )
    with pytest.raises(ValueError, match="'byte_counts': 3, 'word_counts': 2"):
        take_rows(whole, np.array([0]))


def rows_of_two_lengths() -> dict[str, Any]:
    """The fields of every data set."""
    ids = np.arange(12).reshape(4, 3)
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 0]])
    return {
        "groups": (EncodedGroup({"input_ids": ids, "attention_mask": mask}, np.arange(4)),),
        "size": 4,
        "truncated": 1,
        "padding_share": 2 / 12,
        "digest": "whole",
        "pad_token_id": 9,
    }


def language_rows() -> WindowDataset:
    return WindowDataset(
        **rows_of_two_lengths(),
        byte_counts=np.array([5, 6, 7, 8]),
        word_counts=np.array([1, 2, 3, 4]),
        windows=((0, 0, 5), (0, 5, 11), (1, 0, 7), (1, 7, 15)),
    )


def labelled_rows() -> LabelledDataset:
    return LabelledDataset(
        **rows_of_two_lengths(),
        labels=np.array([0, 1, 0, 1]),
        label_names=("no", "yes"),
        class_names=("false", "true"),
    )


@pytest.mark.parametrize(
    ("whole", "own"),
    [
        (
            language_rows(),
            {
                "byte_counts": [6, 8],
                "word_counts": [2, 4],
                "windows": [[0, 5, 11], [1, 7, 15]],
            },
        ),
        (
            labelled_rows(),
            {"labels": [1, 1], "label_names": ["no", "yes"], "class_names": ["false", "true"]},
        ),
    ],
    ids=["windows", "labels"],
)
def test_every_field_of_a_data_set_is_cut(whole, own):
    part = take_rows(whole, np.array([1, 3]))
    found = fields_of(part)
    groups, digest = found.pop("groups"), found.pop("digest")
    assert [fields_of(group) for group in groups] == [
        {
            "inputs": {"input_ids": [[3, 4, 5], [9, 10, 11]], "attention_mask": [[1, 1, 0]] * 2},
            "rows": [0, 1],
        }
    ]
    assert digest not in {"whole", take_rows(whole, np.array([1, 2])).digest}
    assert found == {
        "size": 2,
        "truncated": 1,
        "padding_share": pytest.approx(2 / 6),
        "pad_token_id": 9,
        **own,
    }


def test_all_rows_are_the_data_set_itself_and_no_row_is_taken_twice():
    whole = language_rows()
    assert take_rows(whole, np.arange(4)) is whole
    assert plain(take_rows(whole, np.array([3, 2, 1, 0])).byte_counts) == [8, 7, 6, 5]
    with pytest.raises(ValueError, match="once"):
        take_rows(whole, np.array([0, 0]))


def test_windows_of_questions_keep_their_contexts_and_their_place_among_the_questions_left():
    mask = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.bool_)
    ids = {"input_ids": np.arange(8).reshape(4, 2), "attention_mask": np.ones((4, 2), np.int64)}
    offsets = tuple(np.array([[row, row + 1]] * 2) for row in range(4))
    questions = Questions(
        ("a", "b", "c"), (("A",), (), ("C",)), np.array([0, 1, 1, 2]), offsets, True
    )
    group = ContextGroup(ids, np.arange(4), mask, 7)
    whole = QuestionDataset(
        groups=(group,),
        size=4,
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
        questions=questions,
    )
    part = take_rows(whole, np.array([2, 3]))
    assert fields_of(part.groups[0]) == {
        "inputs": {"input_ids": [[4, 5], [6, 7]], "attention_mask": [[1, 1]] * 2},
        "rows": [0, 1],
        "context": [[1, 0], [0, 0]],
        "longest_answer": 7,
    }
    assert fields_of(part.questions) == {
        "contexts": ["b", "c"],
        "answers": [[], ["C"]],
        "of_window": [0, 1],
        "offsets": [[[2, 3], [2, 3]], [[3, 4], [3, 4]]],
        "may_be_unanswerable": True,
    }
    assert (part.size, part.samples, part.questions.size) == (2, 2, 2)


THREE = np.arange(3)
COMMON = {"variant": "v", "sha256": "s", "unanswered": THREE == 2}


@pytest.mark.parametrize(
    ("whole", "own"),
    [
        (
            ClassOutcomes(
                **COMMON,
                predictions=THREE,
                correct=THREE == 1,
                logits=np.eye(3, dtype=np.float32),
                label_names=("p", "q", "r"),
            ),
            {
                "predictions": [0, 2],
                "correct": [False, False],
                "logits": [[1, 0, 0], [0, 0, 1]],
                "label_names": ["p", "q", "r"],
            },
        ),
        (
            WindowOutcomes(
                **COMMON,
                log_likelihood=THREE * 0.5,
                tokens=THREE + 1,
                bytes=THREE + 2,
                words=THREE + 3,
                greedy=(np.array([1]), np.array([2, 3]), np.array([])),
                documents=np.array([7, 7, 8]),
            ),
            {
                "log_likelihood": [0, 1],
                "tokens": [1, 3],
                "bytes": [2, 4],
                "words": [3, 5],
                "greedy": [[1], []],
                "documents": [7, 8],
            },
        ),
        (
            QuestionOutcomes(
                **COMMON,
                correct=THREE == 1,
                f1=THREE * 0.25,
                answers=("x", "y", "z"),
                contexts=np.array([7, 7, 8]),
            ),
            {
                "correct": [False, False],
                "f1": [0, 0.5],
                "answers": ["x", "z"],
                "contexts": [7, 8],
            },
        ),
    ],
    ids=["classes", "windows", "questions"],
)
def test_every_field_of_outcomes_is_cut(whole, own):
    part = take(whole, np.array([0, 2]))
    assert fields_of(part) == {
        "variant": "v",
        "sha256": "s",
        "unanswered": [False, True],
        **own,
    }

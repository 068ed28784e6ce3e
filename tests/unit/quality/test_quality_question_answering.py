"""Spans, answers over windows, and SQuAD's two scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from quality_samples import RuleEndpoint, variant

from harness.errors import ServerError
from harness.quality.collection import collect_outcomes, read_outcomes, write_outcomes
from harness.quality.losses import batch_consistency
from harness.quality.scores import score
from harness.tasks.question_answering.outcomes import best_spans
from harness.tasks.question_answering.rows import ContextGroup, QuestionDataset, Questions
from harness.types import Progress, TensorSpec

CONTEXTS = ("The red fox, it jumps.", "A lazy dog sleeps here", "nothing to see")
ANSWERS = (("red fox", "fox"), ("dog",), ("see",))
LENGTH = 8
MODEL = dataclasses.replace(
    variant("question-answering"),
    outputs=(TensorSpec("start_logits", "FP32", (-1,)), TensorSpec("end_logits", "FP32", (-1,))),
)


def split(*, may_be_unanswerable: bool = False) -> QuestionDataset:
    """A token a word behind [CLS]; the first question in two windows of three words."""
    pieces = [(0, 0, 3), (0, 2, 5), (1, 0, 5), (2, 0, 3)]
    ids = np.zeros((len(pieces), LENGTH), dtype=np.int64)
    mask, context = np.zeros_like(ids), np.zeros_like(ids, dtype=bool)
    offsets = []
    for row, (question, first, last) in enumerate(pieces):
        words = _words(CONTEXTS[question])[first:last]
        ids[row] = row * 100 + np.arange(LENGTH)
        mask[row, : len(words) + 1] = 1
        context[row, 1 : len(words) + 1] = True
        offsets.append(np.array([(0, 0), *words]))
    group = ContextGroup(
        {"input_ids": ids, "attention_mask": mask}, np.arange(len(pieces)), context, 2
    )
    questions = Questions(
        CONTEXTS, ANSWERS, np.array([p[0] for p in pieces]), tuple(offsets), may_be_unanswerable
    )
    return QuestionDataset(
        groups=(group,),
        size=4,
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
        questions=questions,
    )


def _words(text: str) -> list[tuple[int, int]]:
    words, at = [], 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        words.append((start, at))
    return words


def answering(spans: Mapping[int, tuple[int, int, float]], null: float = -9.0) -> RuleEndpoint:
    """Each window's likeliest first and last token, with the logit of either."""

    def rule(
        rows: NDArray[np.int64], inputs: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        logits = np.full((2, len(rows), LENGTH), -5.0, dtype=np.float32)
        logits[:, :, 0] = null
        for place, row in enumerate(rows.tolist()):
            first, last, height = spans[row]
            logits[0, place, first] = logits[1, place, last] = height
        return {"start_logits": logits[0], "end_logits": logits[1]}

    return RuleEndpoint(rule)


RIGHT = {0: (2, 3, 3.0), 1: (2, 2, 1.0), 2: (2, 3, 2.0), 3: (1, 1, 2.0)}


def collect(endpoint: RuleEndpoint, data: QuestionDataset, notes: list[Progress] | None = None):
    notes = [] if notes is None else notes
    return collect_outcomes(MODEL, data, endpoint, batch_size=3, progress=notes.append)


def test_a_questions_best_window_answers_and_is_scored_as_squad_does(tmp_path: Path) -> None:
    data = split()

    outcomes = collect(answering(RIGHT), data)
    scores = {s.metric: s for s in score(outcomes, data, variant=MODEL, teacher=None, seed=1)}

    assert outcomes.answers == ("red fox,", "lazy dog", "nothing")
    assert outcomes.correct.tolist() == [True, False, False]
    assert outcomes.f1 == pytest.approx([1, 2 / 3, 0])
    assert scores["exact_match"].value == pytest.approx(1 / 3)
    assert scores["f1"].value == pytest.approx(5 / 9)
    assert scores["f1"].samples == 3
    write_outcomes(tmp_path / "qa.parquet", outcomes, data)
    again = read_outcomes(tmp_path / "qa.parquet")
    assert again.answers == outcomes.answers
    assert np.array_equal(again.f1, outcomes.f1)


def test_a_student_is_paired_with_its_teacher_by_question() -> None:
    data = split()
    teacher = dataclasses.replace(collect(answering(RIGHT), data), variant="teacher")
    student = collect(answering(RIGHT | {0: (3, 3, 3.0)}), data)

    scores = {s.metric: s for s in score(student, data, variant=MODEL, teacher=teacher, seed=1)}

    assert student.answers[0] == "fox,"
    assert scores["exact_match"].p_value == 1
    assert scores["exact_match"].relative_to_teacher == 1
    assert scores["f1"].p_value is None


def test_no_answer_wins_only_where_it_may() -> None:
    plain, open_ended = split(), split(may_be_unanswerable=True)

    assert collect(answering(RIGHT, null=5.0), plain).answers == ("red fox,", "lazy dog", "nothing")
    assert collect(answering(RIGHT, null=5.0), open_ended).answers == ("", "", "")
    assert collect(answering(RIGHT, null=2.5), open_ended).answers == ("red fox,", "", "")


def test_a_question_without_answer_is_right_when_nothing_is_answered() -> None:
    data = split(may_be_unanswerable=True)
    questions = dataclasses.replace(data.questions, answers=(*ANSWERS[:2], ()))
    data = dataclasses.replace(data, questions=questions)

    outcomes = collect(answering(RIGHT, null=2.5), data)

    assert outcomes.correct.tolist() == [True, False, True]
    assert outcomes.f1 == pytest.approx([1, 0, 1])


def test_a_question_with_a_failed_window_is_unanswered_and_wrong() -> None:
    data, notes = split(), []
    endpoint = answering(RIGHT)
    endpoint.fails = lambda rows: 3 in rows

    outcomes = collect(endpoint, data, notes)

    assert outcomes.unanswered.tolist() == [False, False, True]
    assert outcomes.answers == ("red fox,", "lazy dog", "")
    assert "student: 1 of 3 questions unanswered: refused rows [3]" in notes[-1].note


def test_logits_that_are_no_numbers_answer_nothing() -> None:
    data = split()
    with pytest.raises(ServerError, match=r"none of 3 questions .* not numbers \(NaN\)"):
        collect(answering(RIGHT | dict.fromkeys(range(4), (1, 1, np.nan))), data)
    outcomes = collect(answering(RIGHT | {1: (1, 1, np.nan)}), data)
    assert outcomes.unanswered.tolist() == [True, False, False]


def test_batch_sizes_are_compared_by_their_spans() -> None:
    found = batch_consistency(MODEL, split(), answering(RIGHT), batch_sizes=(1, 2), samples=4)
    assert [(one.changed_predictions, one.max_abs_difference) for one in found] == [(0, 0)] * 2


numbers = st.floats(-10, 10, width=32)


@given(
    st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=12),
    st.integers(1, 6),
)
def test_the_best_span_is_that_of_trying_all(
    tokens: list[tuple[float, float, bool]], longest: int
) -> None:
    start, end, allowed = (np.array([column]) for column in zip(*tokens, strict=True))
    spans = best_spans(start, end, allowed, longest)
    sums = [
        start[0, first] + end[0, last]
        for first in range(len(tokens))
        for last in range(first, min(first + longest, len(tokens)))
        if allowed[0, first] and allowed[0, last]
    ]
    assert spans.scores[0] == (max(sums) if sums else -np.inf)
    if sums:
        first, last = int(spans.starts[0]), int(spans.ends[0])
        assert start[0, first] + end[0, last] == spans.scores[0]
        assert 0 <= last - first < longest

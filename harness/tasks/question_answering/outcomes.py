"""What a model answered to each question, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.tasks.encoding import EncodedGroup
from harness.tasks.outcomes import Batch, Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.question_answering.answers import Spans, answer_questions, best_spans
from harness.tasks.question_answering.contexts import Questions
from harness.tasks.question_answering.rows import ContextGroup, QuestionDataset
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.types import ModelVariant


@rowwise
@dataclass(frozen=True, kw_only=True)
class QuestionOutcomes(Outcomes):
    """An answer a question, and how right it is."""

    kind = "question-answering"

    correct: NDArray[np.bool_] = field(metadata=PER_ROW)
    """Whether the answer is one of the right ones, (questions,)."""
    f1: NDArray[np.float64] = field(metadata=PER_ROW)
    """Overlap with the right answer, 0 to 1, (questions,)."""
    answers: tuple[str, ...] = field(metadata=PER_ROW)
    """The spans found, empty for none."""
    contexts: NDArray[np.int64] = field(metadata=PER_ROW)
    """Number of each question's context: those of one context belong together, (questions,)."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Questions of one context belong together; None where no two share one."""
        alone = len(np.unique(self.contexts)) == len(self.contexts)
        return None if alone else self.contexts

    def columns(self) -> Columns:
        """`correct`, `f1` and `answer`."""
        return {
            "correct": pa.array(self.correct),
            "f1": pa.array(self.f1),
            "answer": pa.array(self.answers, pa.string()),
        }


@dataclass(frozen=True)
class SpanAnswer:
    """The best span of each of a batch's windows."""

    spans: Spans
    usable: NDArray[np.bool_]
    """False where some logit is not a number, (n,)."""


def read_spans(batch: Batch, outputs: Tensors) -> SpanAnswer:
    """The answer in `start_logits` and `end_logits`, (n, length) each."""
    start, end = outputs["start_logits"], outputs["end_logits"]
    usable = ~(np.isnan(start) | np.isnan(end)).any(axis=1)
    return SpanAnswer(_spans(batch.group, start, end), np.asarray(usable))


def compared_spans(batch: Batch, outputs: Tensors) -> list[RowAnswer]:
    """The span of each window, and the logits of its context."""
    start, end = outputs["start_logits"], outputs["end_logits"]
    spans = _spans(batch.group, start, end)
    chosen = np.stack([spans.starts, spans.ends], axis=1)
    both = np.stack([start, end], axis=2)
    context = _group(batch.group).context
    numbers = np.where(context[:, :, None], both, 0.0)
    return [
        RowAnswer(span, row.astype(np.float64)) for span, row in zip(chosen, numbers, strict=True)
    ]


def question_outcomes(
    variant: ModelVariant,
    dataset: QuestionDataset,
    replies: Iterable[tuple[Batch, SpanAnswer | None]],
) -> QuestionOutcomes:
    """Every question's answer: the best span over its windows."""
    spans = Spans.none(dataset.size)
    answered = np.zeros(dataset.size, dtype=np.bool_)
    for batch, answer in replies:
        if answer is not None:
            spans.put(batch.rows, answer.spans)
            answered[batch.rows] = answer.usable
    found = answer_questions(dataset.questions, spans, answered)
    return QuestionOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=found.unanswered,
        correct=found.exact_match,
        f1=found.f1,
        answers=found.answers,
        contexts=numbered_contexts(dataset.questions),
    )


def numbered_contexts(questions: Questions) -> NDArray[np.int64]:
    """Number of each question's context, (questions,); equal for equal contexts."""
    number = {context: place for place, context in enumerate(dict.fromkeys(questions.contexts))}
    return np.array([number[context] for context in questions.contexts], dtype=np.int64)


def restore_questions(stored: StoredOutcomes) -> QuestionOutcomes:
    """Read outcomes back; where no group was told, no two questions share a context."""
    return QuestionOutcomes(
        **stored.common,
        correct=stored.array("correct"),
        f1=stored.array("f1"),
        answers=stored.rows("answer"),
        contexts=stored.array("group") if stored.has("group") else np.arange(stored.size),
    )


def _group(group: EncodedGroup) -> ContextGroup:
    if not isinstance(group, ContextGroup):
        raise TypeError("question answering wants groups that know their contexts")
    return group


def _spans(group: EncodedGroup, start: NDArray[Any], end: NDArray[Any]) -> Spans:
    known = _group(group)
    return best_spans(start, end, known.context, known.longest_answer)

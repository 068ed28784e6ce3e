"""What a model answered to each question, how that is found, and how it is kept.

The best span of a window is the pair of context tokens, the end not before the start and at most
`max_answer_length` tokens in all, whose logits sum to the most; of a question's windows the best
one answers. Where a model may say that there is no answer, that stands for the sum at the first
token ([CLS]), the least over the windows, and wins where it is greater (Devlin et al. 2019, 4.3).

Exact match and F1 are SQuAD's (Rajpurkar et al. 2016), normalisation included, from torchmetrics:
the best over a question's right answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.statistics.metrics import Statistic, share_statistic
from harness.tasks.encoding import EncodedGroup
from harness.tasks.outcomes import Batch, Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.question_answering.rows import ContextGroup, QuestionDataset, Questions
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.types import ModelVariant

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """The best span of each window, (windows,) each."""

    starts: Integers
    """First token of each span."""
    ends: Integers
    """Last token of each span, included."""
    scores: Floats
    """Sum of both logits."""
    no_answer: Floats
    """Sum of both logits at the first token: how much speaks for there being no answer."""

    @classmethod
    def none(cls, windows: int) -> Spans:
        """Room for as many windows."""
        return cls(
            np.zeros(windows, dtype=np.int64),
            np.zeros(windows, dtype=np.int64),
            np.full(windows, -np.inf),
            np.full(windows, np.inf),
        )

    def put(self, rows: Integers, others: Spans) -> None:
        """Write the spans of some windows to their places."""
        self.starts[rows], self.ends[rows] = others.starts, others.ends
        self.scores[rows], self.no_answer[rows] = others.scores, others.no_answer


@dataclass(frozen=True)
class AnsweredQuestions:
    """What a model answered, and how right it is; one entry a question."""

    answers: tuple[str, ...]
    """Spans of the contexts; empty for no answer."""
    exact_match: NDArray[np.bool_]
    f1: Floats
    """Overlap with the right answer, 0 to 1."""
    unanswered: NDArray[np.bool_]
    """Some window's request failed or held no numbers; counts as wrong."""


def best_spans(
    start_logits: NDArray[Any], end_logits: NDArray[Any], context: NDArray[np.bool_], longest: int
) -> Spans:
    """The best span of each window: exact, over all allowed pairs.

    Args:
        start_logits: (windows, tokens).
        end_logits: (windows, tokens).
        context: the tokens that an answer may consist of, (windows, tokens).
        longest: most tokens of an answer.
    """
    start = np.where(context, start_logits, -np.inf).astype(np.float64)
    end = np.where(context, end_logits, -np.inf).astype(np.float64)
    windows, tokens = start.shape
    spans = Spans.none(windows)
    every = np.arange(windows)
    for more in range(min(longest, tokens)):
        sums = start[:, : tokens - more] + end[:, more:]
        first = sums.argmax(axis=1)
        better = sums[every, first] > spans.scores
        spans.starts[better], spans.ends[better] = first[better], first[better] + more
        spans.scores[better] = sums[every, first][better]
    spans.no_answer[:] = start_logits[:, 0].astype(np.float64) + end_logits[:, 0]
    return spans


def answer_questions(
    questions: Questions, spans: Spans, answered: NDArray[np.bool_]
) -> AnsweredQuestions:
    """Each question's answer over its windows, compared with the right ones.

    Args:
        questions: what was asked.
        spans: the best of each window.
        answered: whether each window was answered with numbers, (windows,).

    Raises:
        MissingExtraError: torchmetrics is not installed.
    """
    unanswered = np.zeros(questions.size, dtype=np.bool_)
    unanswered[questions.of_window[~answered]] = True
    texts = [
        "" if unanswered[number] else _answer(questions, spans, windows)
        for number, windows in enumerate(_windows_by_question(questions))
    ]
    exact, f1 = _squad(texts, questions.answers)
    return AnsweredQuestions(
        answers=tuple(texts),
        exact_match=(exact == 1) & ~unanswered,
        f1=np.where(unanswered, 0.0, f1),
        unanswered=unanswered,
    )


def question_statistics(exact_match: NDArray[np.bool_], f1: Floats) -> tuple[Statistic, ...]:
    """Exact match and F1, means over questions; both arguments are (questions,)."""
    return share_statistic("exact_match", exact_match), share_statistic("f1", f1)


def _windows_by_question(questions: Questions) -> list[Integers]:
    order = np.argsort(questions.of_window, kind="stable")
    counts = np.bincount(questions.of_window, minlength=questions.size)
    return np.split(order, np.cumsum(counts)[:-1])


def _answer(questions: Questions, spans: Spans, windows: Integers) -> str:
    best = int(windows[spans.scores[windows].argmax()])
    score = spans.scores[best]
    no_answer = spans.no_answer[windows].min()
    if not np.isfinite(score) or (questions.may_be_unanswerable and no_answer > score):
        return ""
    context = questions.contexts[int(questions.of_window[best])]
    offsets = questions.offsets[best]
    first, end = int(offsets[spans.starts[best], 0]), int(offsets[spans.ends[best], 1])
    return context[first:end]


def _squad(texts: Sequence[str], answers: Sequence[Sequence[str]]) -> tuple[Floats, Floats]:
    """SQuAD's exact match and F1 of each answer, 0 to 1."""
    try:
        from torchmetrics.functional.text import squad
    except ImportError as error:
        raise MissingExtraError("torchmetrics", "quality") from error
    exact, f1 = np.zeros(len(texts)), np.zeros(len(texts))
    for row, (text, right) in enumerate(zip(texts, answers, strict=True)):
        # SQuAD 2's own script scores a question without an answer as one whose answer is empty.
        target: dict[str, Any] = {"id": "0", "answers": {"text": list(right) or [""]}}
        scores = squad({"id": "0", "prediction_text": text}, target)
        exact[row], f1[row] = float(scores["exact_match"]) / 100, float(scores["f1"]) / 100
    return exact, f1


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
        """The columns `correct`, `f1` and `answer`."""
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

"""From start and end logits to answers, and from answers to exact match and F1.

The best span of a window is the pair of context tokens, the end not before the start and at most
`max_answer_length` tokens in all, whose logits sum to the most; of a question's windows the best
one answers. Where a model may say that there is no answer, that stands for the sum at the first
token ([CLS]), the least over the windows, and wins where it is greater (Devlin et al. 2019, 4.3).

Exact match and F1 are SQuAD's (Rajpurkar et al. 2016), normalisation included, from torchmetrics:
the best over a question's right answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingExtraError
from harness.statistics.metrics import Statistic, share_statistic
from harness.tasks.question_answering.contexts import Questions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """The best span of each window, (windows,) each."""

    starts: Integers
    """Its first token."""
    ends: Integers
    """Its last token, included."""
    scores: Floats
    """Sum of both logits."""
    no_answer: Floats
    """The same sum at the first token: how much speaks for there being no answer."""

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
    """0 to 1."""
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

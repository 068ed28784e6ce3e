"""The rows of question answering: questions with their contexts, read, cut and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.tasks.encoding import EncodedDataset, EncodedGroup, bucketed, fields_of, make_dataset
from harness.tasks.family import Reading
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.question_answering.contexts import (
    Questions,
    check_answers,
    cut_contexts,
    read_answers,
)
from harness.tasks.question_answering.section import QuestionAnswering
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTEXT = "context"


@dataclass(frozen=True, kw_only=True)
class QuestionSamples(Samples):
    """Questions (`texts`) and contexts (`pairs`) with the right answers."""

    answers: tuple[tuple[str, ...], ...]
    """Those that count as right, one entry per question; none where there is no answer."""


@rowwise
@dataclass(frozen=True)
class ContextGroup(EncodedGroup):
    """Windows of one padded length, and where an answer may lie in them."""

    context: NDArray[np.bool_] = field(metadata=PER_ROW)
    """The context's tokens, (n, length)."""
    longest_answer: int = field(metadata=OF_ALL)
    """Maximum number of tokens in an answer."""


@rowwise
@dataclass(frozen=True, kw_only=True)
class QuestionDataset(EncodedDataset):
    """Windows of contexts, each beside the whole question."""

    questions: Questions = field(metadata=PER_ROW)
    """What the windows were cut from."""

    @property
    def samples(self) -> int:
        """Number of questions: one may have several windows."""
        return self.questions.size

    @property
    def owners(self) -> NDArray[np.int64]:
        """Position of each window's question, (size,)."""
        return self.questions.of_window

    @property
    def windowed(self) -> int:
        """Questions whose context is longer than a window."""
        return self.questions.windowed

    @property
    def cut_note(self) -> str:
        """How many contexts are cut into windows."""
        if not self.windowed:
            return ""
        return (
            f"{self.windowed} of {self.samples} contexts are longer than a window: "
            f"{self.size} windows in all"
        )


def read_questions(task: QuestionAnswering, reading: Reading) -> QuestionSamples:
    """Questions, contexts and right answers, at most this many drawn with the seed.

    Raises:
        DataError: with every problem of the data.
    """
    table = reading.table
    questions, contexts = read_texts(table, (task.question, task.context))
    answers = read_answers(table, task)
    check_answers(table, contexts, answers)
    kept = draw(len(questions), task.samples, reading.seed)
    drawn = tuple(questions[row] for row in kept)
    drawn_contexts = tuple(contexts[row] for row in kept)
    drawn_answers = tuple(answers[row] for row in kept)
    return QuestionSamples(
        texts=drawn,
        pairs=drawn_contexts,
        digest=digest_of(drawn, drawn_contexts, drawn_answers),
        rows=tuple(kept),
        seed=reading.seed,
        answers=drawn_answers,
    )


def encode_questions(
    task: QuestionAnswering,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInputs,
) -> QuestionDataset:
    """Each question with its context, in as many windows as that takes.

    Raises:
        DataError: a question leaves no room for its context.
    """
    contexts = samples.pairs or ()
    right = samples.answers if isinstance(samples, QuestionSamples) else ((),) * len(contexts)
    windows = cut_contexts(task, samples.texts, contexts, right, tokenizer, model.names)
    model.check(windows.encoded)
    columns = {**windows.encoded, _CONTEXT: windows.context}
    groups = [
        ContextGroup(
            {name: group.inputs[name] for name in model.names},
            group.rows,
            group.inputs[_CONTEXT] == 1,
            task.max_answer_length,
        )
        for group in bucketed(columns, task.buckets, tokenizer)
    ]
    dataset = make_dataset(groups, samples, tokenizer)
    return QuestionDataset(**fields_of(dataset), questions=windows.questions)

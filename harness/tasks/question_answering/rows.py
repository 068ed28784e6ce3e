"""The rows of question answering: its section of the study, questions with their contexts.

A context that does not fit beside its question is not truncated but *windowed*: cut into windows
that share `doc_stride` tokens, each asked with the whole question, as transformers' own
question-answering pipeline does it. One window is one inference; the best span over all of a
question's windows is its answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.errors import DataError
from harness.system.strict import PositiveInt
from harness.tasks.encoding import EncodedDataset, EncodedGroup, bucketed, fields_of, make_dataset
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import OF_ALL, PER_ROW, cut_by, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts
from harness.tasks.section import Data, PaddedSection
from harness.tasks.spelt_lists import AS_JSON, spelt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QuestionAnswering(PaddedSection):
    """A span of a context as the answer to a question, as in SQuAD."""

    kind: Literal["question-answering"]
    data: Data
    question: str = Field("question", description="Column of the question.")
    context: str = Field("context", description="Column of the text that holds the answer.")
    answers: str = Field(
        "answers",
        description="Column of the right answers: a text, a list, or SQuAD's {text: [...]}.",
    )
    max_length: PositiveInt = Field(
        384, description="Tokens of question and context; a longer context is cut into windows."
    )
    doc_stride: Annotated[int, Field(ge=0)] = Field(
        128, description="Tokens that neighbouring windows of one context share."
    )
    max_answer_length: PositiveInt = Field(30, description="Maximum number of tokens in an answer.")
    context_first: bool = Field(
        False,
        description="Ask with the context before the question, as transformers' own training "
        "script does where a tokenizer pads on the left.",
    )
    unanswerable: bool = Field(
        False, description="Questions may be unanswerable (SQuAD 2), and a model may say so."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many questions, drawn with the seed."
    )

    @model_validator(mode="after")
    def _stride_fits(self) -> Self:
        if self.doc_stride >= self.max_length:
            raise ValueError(
                f"doc_stride is {self.doc_stride} and max_length {self.max_length}: windows "
                "that share all they hold never come to an end; make doc_stride smaller"
            )
        return self


def _asked_in(windows: NDArray[np.int64], values: Sequence[Any]) -> tuple[Any, ...]:
    """What belongs to the questions of some windows, by question."""
    return tuple(values[number] for number in np.unique(windows).tolist())


def _renumbered(whole: Questions, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(whole.of_window[rows], return_inverse=True)[1]


@rowwise
@dataclass(frozen=True)
class Questions:
    """What the windows were cut from, and where their tokens lie in it; its rows are windows."""

    contexts: tuple[str, ...] = field(
        metadata=cut_by(lambda whole, rows: _asked_in(whole.of_window[rows], whole.contexts))
    )
    """One context per question, in the data's order."""
    answers: tuple[tuple[str, ...], ...] = field(
        metadata=cut_by(lambda whole, rows: _asked_in(whole.of_window[rows], whole.answers))
    )
    """Every answer that counts as right; none for a question that the context does not answer."""
    of_window: NDArray[np.int64] = field(
        metadata=cut_by(
            lambda whole, rows: np.unique(whole.of_window[rows], return_inverse=True)[1]
        )
    )
    """Position of each window's question, (windows,)."""
    offsets: tuple[NDArray[np.int64], ...] = field(metadata=PER_ROW)
    """For each window, (tokens, 2): first character and end of every token within the context."""
    may_be_unanswerable: bool = field(metadata=OF_ALL)
    """Whether a model may answer that there is no answer."""

    @property
    def size(self) -> int:
        """Number of questions."""
        return len(self.contexts)

    @property
    def windowed(self) -> int:
        """Questions whose context was longer than the model takes: asked in several windows."""
        return int((np.bincount(self.of_window, minlength=self.size) > 1).sum())


@dataclass(frozen=True)
class Windows:
    """All windows of the samples, tokenised and not yet padded."""

    encoded: Mapping[str, Sequence[Sequence[int]]]
    """Token ids and the other inputs, by name."""
    context: Sequence[Sequence[int]]
    """1 where a token belongs to the context, a window each."""
    questions: Questions


def read_answers(table: DataTable, task: QuestionAnswering) -> list[tuple[str, ...]]:
    """The right answers of each row, as SQuAD has them or more plainly.

    A text is one answer, a list several; `{"text": [...], "answer_start": [...]}` is SQuAD's own
    form, of which only the texts count. In a CSV a list or an object stands in its field, as JSON
    or as Python prints it.

    Raises:
        DataError: with every row that has no such answer.
    """
    found = [_texts_of(row.get(task.answers)) for row in table.rows]
    refuse(
        table.source,
        [
            f"{table.place(row)}: '{task.answers}' is not an answer: "
            f"{json.dumps(table.rows[row].get(task.answers), default=str)[:60]}"
            for row, texts in enumerate(found)
            if texts is None
        ],
        next_step='an answer is a text, a list of texts, or {"text": [...]} as in SQuAD; '
        + AS_JSON,
    )
    answers = [tuple(texts or ()) for texts in found]
    if not task.unanswerable:
        refuse(
            table.source,
            [
                f"{table.place(row)}: the question has no answer"
                for row, texts in enumerate(answers)
                if not texts
            ],
            next_step="if that is meant, as in SQuAD 2, set the task's unanswerable: true",
        )
    return answers


def check_answers(
    table: DataTable, contexts: Sequence[str], answers: Sequence[Sequence[str]]
) -> None:
    """Refuse data in which nothing can be found: its columns are mixed up.

    Raises:
        DataError: not one answer occurs in its context.
    """
    wanted = [(context, texts) for context, texts in zip(contexts, answers, strict=True) if texts]
    if wanted and not any(text in context for context, texts in wanted for text in texts):
        refuse(
            table.source,
            ["no answer of any row occurs in its context"],
            next_step="look whether the task's 'context', 'question' and 'answers' name the "
            "right columns: answers are spans of the context",
        )


def cut_contexts(
    task: QuestionAnswering,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
) -> Windows:
    """Tokenise each question with its context, in as many windows as that takes.

    `names` are the inputs of the served model.

    Raises:
        DataError: a question leaves no room for its context.
    """
    _check_room(task, questions, tokenizer)
    first, second = (contexts, questions) if task.context_first else (questions, contexts)
    encoded = tokenizer(
        list(first),
        list(second),
        truncation="only_first" if task.context_first else "only_second",
        max_length=task.max_length,
        stride=task.doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=True,
        return_token_type_ids="token_type_ids" in names,
    )
    of_window = np.array(encoded["overflow_to_sample_mapping"], dtype=np.int64)
    context = [
        [int(part == (not task.context_first)) for part in encoded.sequence_ids(window)]
        for window in range(len(of_window))
    ]
    return Windows(
        encoded={name: encoded[name] for name in names},
        context=context,
        questions=Questions(
            contexts=tuple(contexts),
            answers=tuple(answers),
            of_window=of_window,
            offsets=tuple(np.array(one, dtype=np.int64) for one in encoded["offset_mapping"]),
            may_be_unanswerable=task.unanswerable,
        ),
    )


def _check_room(
    task: QuestionAnswering, questions: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """The tokenizer itself would fall into an endless stride, or panic."""
    tokens = tokenizer(list(questions), add_special_tokens=False, verbose=False)["input_ids"]
    room = task.max_length - tokenizer.num_special_tokens_to_add(pair=True) - task.doc_stride
    crowded = [row for row, ids in enumerate(tokens) if len(ids) >= room]
    if crowded:
        longest = max(crowded, key=lambda row: len(tokens[row]))
        raise DataError(
            f"{len(crowded)} of {len(tokens)} questions leave no room for their context within "
            f"max_length {task.max_length} and doc_stride {task.doc_stride}; the longest has "
            f"{len(tokens[longest])} tokens: {questions[longest][:60]!r}",
            next_step="raise the task's max_length or lower its doc_stride",
        )


def _texts_of(value: object) -> list[str] | None:
    """The texts of an answer in any of its forms; None where it has none of them."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        try:
            value = spelt(value)  # of an answer that begins with a bracket: itself
        except ValueError:
            return None
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        # An empty text is no answer: beside others it would make no answer at all a right one.
        return [str(one) for one in value if one.strip()]
    return None


_CONTEXT = "context"


@dataclass(frozen=True, kw_only=True)
class QuestionSamples(Samples):
    """Questions (`texts`) and contexts (`pairs`) with the right answers."""

    answers: tuple[tuple[str, ...], ...]
    """The answers that count as right, one entry per question; none where there is no answer."""


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

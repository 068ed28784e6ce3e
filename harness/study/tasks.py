"""The tasks a family can be judged on, and what is known of their samples."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.study.base import PositiveInt, Strict
from harness.study.data import Data
from harness.types import TaskKind


class _Diagnosed(Strict):
    """What a task says of finding out where quality was lost."""

    slices: list[str] = Field(
        [],
        description="Columns of the data; on each of their values a variant is compared with the "
        "teacher.",
    )
    training_data: Data | None = Field(
        None,
        description="What the students were trained on, in the same columns: the report counts "
        "how much of it lies in each slice.",
    )
    chain_samples: Annotated[int, Field(ge=0)] = Field(
        2000,
        description="At most so many samples, drawn by the seed, on which the loss is split into "
        "distillation, export, quantisation, serving and batching; 0 leaves that out.",
    )


class _Padded(_Diagnosed):
    max_length: PositiveInt
    length_buckets: list[PositiveInt] | None = Field(
        None,
        description="Samples are padded to the next of these lengths; default: max_length alone. "
        "Triton joins only requests of equal shape.",
    )

    @model_validator(mode="after")
    def _buckets_fit(self) -> Self:
        if self.length_buckets and max(self.length_buckets) != self.max_length:
            raise ValueError(
                f"the longest of length_buckets is {max(self.length_buckets)} "
                f"but max_length is {self.max_length}: make them equal"
            )
        return self

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths, ascending."""
        return tuple(sorted(set(self.length_buckets or [self.max_length])))


class SequenceClassification(_Padded):
    """One label for a text or a pair of texts."""

    kind: Literal[TaskKind.SEQUENCE_CLASSIFICATION]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field("label", description="Column of the label: a name or a class index.")
    labels: list[str] | None = Field(
        None, description="Class names in the data's order; default: the checkpoint's id2label."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most so many, drawn by the seed.")


class QuestionAnswering(_Padded):
    """A span of a context as the answer to a question, as in SQuAD."""

    kind: Literal[TaskKind.QUESTION_ANSWERING]
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
    max_answer_length: PositiveInt = Field(30, description="Most tokens of an answer.")
    context_first: bool = Field(
        False,
        description="Ask with the context before the question, as transformers' own training "
        "script does where a tokenizer pads on the left.",
    )
    unanswerable: bool = Field(
        False, description="Questions may have no answer (SQuAD 2), and a model may say so."
    )
    samples: PositiveInt | None = Field(
        None, description="At most so many questions, drawn by the seed."
    )

    @model_validator(mode="after")
    def _stride_fits(self) -> Self:
        if self.doc_stride >= self.max_length:
            raise ValueError(
                f"doc_stride is {self.doc_stride} and max_length {self.max_length}: windows "
                "that share all they hold never come to an end; make doc_stride smaller"
            )
        return self


class CausalLanguageModelling(_Diagnosed):
    """Scores of running text: perplexity and bits per byte over fixed windows."""

    kind: Literal[TaskKind.CAUSAL_LM]
    data: Data
    text: str = Field("text", description="Column of the text.")
    max_length: Annotated[int, Field(ge=2)] = Field(
        64, description="Tokens a window; a document longer than this is cut into windows."
    )
    samples: PositiveInt | None = Field(
        None, description="At most so many windows, drawn by the seed."
    )

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths: every window is as long as the longest."""
        return (self.max_length,)


Task = Annotated[
    SequenceClassification | QuestionAnswering | CausalLanguageModelling,
    Field(discriminator="kind"),
]

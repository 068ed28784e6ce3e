"""The study's section of extractive question answering."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.system.strict import PositiveInt
from harness.tasks.section import Data, PaddedSection


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

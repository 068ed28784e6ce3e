"""Extractive question answering as a task family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.parity import Inputs, Probe
from harness.tasks.question_answering.outcomes import (
    QuestionOutcomes,
    SpanAnswer,
    compared_spans,
    question_outcomes,
    question_statistics,
    read_spans,
    restore_questions,
)
from harness.tasks.question_answering.rows import (
    QuestionAnswering,
    QuestionDataset,
    encode_questions,
    read_questions,
)
from harness.tasks.roles.reading import Reading
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from harness.tasks.graphs import Graph


class QuestionAnsweringFamily(
    TaskFamily[QuestionAnswering, QuestionDataset, SpanAnswer, QuestionOutcomes]
):
    """A span of a context as the answer to a question, as in SQuAD."""

    kind = "question-answering"
    section = QuestionAnswering
    dataset = QuestionDataset
    lacking = "questions"
    rows_called = "questions"
    traces_losses = False  # outcomes are of questions, and the rows that steps are asked windows
    auto_class = "AutoModelForQuestionAnswering"
    architectures = ("ForQuestionAnswering",)
    described = "an extractive question answerer"

    def columns(self, task: QuestionAnswering) -> Mapping[str, str | None]:
        """Columns of the question, its context and the right answers."""
        return {"question": task.question, "context": task.context, "answers": task.answers}

    def read(self, task: QuestionAnswering, reading: Reading) -> Samples:
        """Questions, contexts and right answers."""
        return read_questions(task, reading)

    def encode(
        self,
        task: QuestionAnswering,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Contexts cut into windows, each beside its question."""
        return encode_questions(task, samples, tokenizer, inputs)

    def tokenizer_note(self, task: QuestionAnswering, tokenizer: PreTrainedTokenizerBase) -> str:
        """Where transformers' own training script would put the context first."""
        if task.context_first or tokenizer.padding_side != "left":
            return ""
        return (
            "its tokenizer pads on the left: transformers' own training script then puts the "
            "context before the question, and here the question comes first (the task's "
            "context_first: true turns them round)"
        )

    def graph(self, model: PreTrainedModel, task: QuestionAnswering) -> Graph:
        """Logits of an answer's start and end at each token."""
        from harness.tasks.question_answering.graph import SpanGraph

        return SpanGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """Both logits of the real tokens, and the likeliest start and end."""
        from harness.tasks.question_answering.graph import span_probe

        return span_probe(inputs, scores)

    def probe_answer(
        self, outputs: Sequence[NDArray[Any]], probe: Probe
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Start and end as one array, (batch, 2, sequence), and the likeliest of each."""
        spans = np.stack(outputs, axis=1)
        return spans, np.where(probe.value_counts, spans, -np.inf).argmax(-1)

    def filled(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        fill: Callable[[Sequence[str]], str],
    ) -> tuple[str, str | None]:
        """An ordinary question with a context that fills the window."""
        return texts[0], fill(pairs or texts)

    def bare_options(self, task: QuestionAnswering) -> dict[str, Any]:
        """The question whole, its context cut."""
        cut = "only_first" if task.context_first else "only_second"
        return {"truncation": cut, "max_length": task.max_length}

    def bare_tokens(
        self,
        task: QuestionAnswering,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        pair: str | None,
        **settings: Any,
    ) -> BatchEncoding:
        """Question and context in the order that the task asks them in."""
        if task.context_first and pair is not None:
            text, pair = pair, text
        return super().bare_tokens(task, tokenizer, text, pair, **settings)

    def bare_values(
        self,
        answer: Any,
        model: PreTrainedModel,
        task: QuestionAnswering,
    ) -> Tensor:
        """Logits of start and end, (2, tokens)."""
        import torch

        return torch.cat([answer.start_logits, answer.end_logits])

    def graph_values(
        self, outputs: Sequence[NDArray[Any]], place: int, tokens: int
    ) -> NDArray[np.float32]:
        """Logits of start and end, (2, tokens)."""
        return np.stack([outputs[0][place], outputs[1][place]])[:, :tokens]

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """`start_logits` and `end_logits`, (length,) each."""
        return (
            TensorSpec("start_logits", "FP32", (-1,)),
            TensorSpec("end_logits", "FP32", (-1,)),
        )

    def read_answer(self, batch: Batch, outputs: Tensors) -> SpanAnswer:
        """The best span of each window."""
        return read_spans(batch, outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each window's span, and the logits of its context."""
        return compared_spans(batch, outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: QuestionDataset,
        replies: Sequence[tuple[Batch, SpanAnswer | None]],
    ) -> QuestionOutcomes:
        """Every question's answer over its windows."""
        return question_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> QuestionOutcomes:
        """Answers, and how right they are."""
        return restore_questions(stored)

    def statistics(
        self,
        outcomes: QuestionOutcomes,
        dataset: QuestionDataset,
        kept: Mask,
    ) -> tuple[Statistic, ...]:
        """Exact match and F1, means over questions."""
        return question_statistics(outcomes.correct[kept], outcomes.f1[kept])

    def right(self, metric: str, outcomes: QuestionOutcomes) -> Mask | None:
        """Exact match is the share of right questions."""
        return outcomes.correct if metric == "exact_match" else None

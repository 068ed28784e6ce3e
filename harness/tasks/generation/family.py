"""Generation as a task family: the text that a model writes behind a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import CheckpointError, DataError
from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure, PairedRows
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.generation.agreement import characters
from harness.tasks.generation.encoder_decoders import is_served
from harness.tasks.generation.outcomes import (
    STREAM_OUTPUTS,
    WrittenAnswer,
    WrittenOutcomes,
    read_written,
    restore_written,
    same_tokens,
    written_outcomes,
)
from harness.tasks.generation.rows import (
    PromptDataset,
    PromptSamples,
    TextGeneration,
    encode_prompts,
    read_prompts,
)
from harness.tasks.generation.statistics import (
    LOSS_METRIC,
    TEACHERS_METRIC,
    answered_by_both,
    compared,
    paired_measures,
    paired_texts,
    reference_statistics,
    teacher_statistics,
    worst_texts,
)
from harness.tasks.losses import Confidence, LossDetails
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, Columns, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.reading import Reading
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.words.numbers import number

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from harness.tasks.graphs import Graph

MAX_UNANSWERED_SHARE = 0.01
"""Largest share of prompts without an answer. A reference whose likelihood is missing cannot be
counted as wrong; beyond this the rest is no longer the same test, and nothing is scored."""


class GenerationFamily(TaskFamily[TextGeneration, PromptDataset, WrittenAnswer, WrittenOutcomes]):
    """Texts that a model writes greedily, prompt by prompt beside the teacher's."""

    kind = "generation"
    section = TextGeneration
    dataset = PromptDataset
    lacking = "prompts"
    rows_called = "prompts"
    auto_class = "AutoModelForCausalLM"
    architectures = ("ForCausalLM", "LMHeadModel")
    encoder_decoders = True
    described = "a causal language model or an encoder-decoder that writes"
    checkpoint_files = ("chat_template.jinja", "chat_template.json")
    causal = True
    writes = True
    typed = False  # as of every causal language model: they would all be zero
    whole_texts = False  # a training text is a prompt with its answer

    def made_for(self, config: PretrainedConfig) -> bool:
        """Causal language models, and encoder-decoders of the types that are exported."""
        return super().made_for(config) or is_served(config)

    def class_for(self, config: PretrainedConfig) -> str:
        """Encoder-decoders have a class of their own."""
        return "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else self.auto_class

    def columns(self, task: TextGeneration) -> Mapping[str, str | None]:
        """Columns of the prompt, the reference and the document."""
        return {"prompt": task.prompt, "reference": task.reference, "document": task.document}

    def read(self, task: TextGeneration, reading: Reading) -> Samples:
        """Read prompts with their references."""
        return read_prompts(task, reading)

    def encode(
        self,
        task: TextGeneration,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Prompts and references in tokens."""
        if not isinstance(samples, PromptSamples):
            raise DataError("these samples are no prompts: read them by the task's own section")
        return encode_prompts(task, samples, tokenizer, has_encoder=inputs.has_encoder)

    def lacks(self, task: TextGeneration, metric: str) -> str:
        """The column of references, for what compares with them."""
        of_teacher = {"agreement", TEACHERS_METRIC}
        return "" if task.reference is not None or metric in of_teacher else "reference"

    def graph(self, model: PreTrainedModel, task: TextGeneration) -> Graph:
        """One pass over a whole text; what is served has a cache of keys and values beside.

        Raises:
            CheckpointError: the model has an encoder, and its text is not in one piece.
        """
        from harness.tasks.causal_lm.graph import ScoringGraph

        if model.config.is_encoder_decoder:
            raise CheckpointError(
                f"{type(model).__name__} has an encoder: it cannot be run over one text in process",
                next_step="measure it through the server: harness run, harness load",
            )

        return ScoringGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The log probabilities, and the next token at each position."""
        from harness.tasks.causal_lm.graph import token_probe

        return token_probe(inputs, scores, outputs)

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """What a stream brings: see `harness.types.generation`."""
        return STREAM_OUTPUTS

    def read_answer(self, batch: Batch, outputs: Tensors) -> WrittenAnswer:
        """The text of each prompt, once its stream has ended."""
        return read_written(outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each prompt's new tokens, and the log probabilities of its reference's.

        A server that tells no tokens is held to the characters of its text.
        """
        return [
            RowAnswer(
                np.array(one.tokens or characters(one.text, by_itself=one.ended), dtype=np.int64),
                np.empty(0) if one.reference_logprobs is None else one.reference_logprobs,
            )
            for one in read_written(outputs).texts
        ]

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: PromptDataset,
        replies: Sequence[tuple[Batch, WrittenAnswer | None]],
    ) -> WrittenOutcomes:
        """The text written for every prompt, as outcome rows."""
        return written_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> WrittenOutcomes:
        """Read outcomes back."""
        return restore_written(stored)

    def truth(self, dataset: PromptDataset) -> Columns:
        """The reference of every prompt."""
        return {} if dataset.references is None else {"reference": pa.array(dataset.references)}

    def scorable(self, outcomes: WrittenOutcomes) -> Mask | None:
        """The answered prompts; None where more than `MAX_UNANSWERED_SHARE` are missing."""
        if outcomes.unanswered.mean() > MAX_UNANSWERED_SHARE:
            return None
        return ~outcomes.unanswered

    def statistics(
        self, outcomes: WrittenOutcomes, dataset: PromptDataset, kept: Mask
    ) -> tuple[Statistic, ...]:
        """chrF, ROUGE, and how probable the references are."""
        return reference_statistics(outcomes, dataset.references, kept)

    def teacher_statistics(
        self, outcomes: WrittenOutcomes, teacher: WrittenOutcomes, kept: Mask
    ) -> tuple[Statistic, ...]:
        """How much of the text is the teacher's."""
        return teacher_statistics(outcomes, teacher, kept)

    def changed(self, outcomes: WrittenOutcomes, before: WrittenOutcomes) -> int:
        """Prompts answered both times, of whose text any token is another."""
        both = answered_by_both(outcomes, before)
        return int((~compared(outcomes, before).same & both).sum())

    def comparable(self, metric: str, outcomes: WrittenOutcomes, teacher: WrittenOutcomes) -> bool:
        """Perplexity by token wants the same tokens."""
        return metric != "perplexity" or same_tokens(outcomes, teacher)

    def paired_measures(
        self, outcomes: WrittenOutcomes, teacher: WrittenOutcomes, seed: int
    ) -> list[Measure]:
        """Common beginnings, and the change of the references' likelihood."""
        return paired_measures(outcomes, teacher, seed)

    def beside_teacher(
        self, outcomes: WrittenOutcomes, teacher: WrittenOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """How long both texts are the same, in tokens (characters of other vocabularies)."""
        return {"common_prefix": compared(outcomes, teacher).prefix.astype(np.float64)}

    def loss_metric_of(self, task: TextGeneration) -> str:
        """ROUGE-L; without references how much is the teacher's."""
        return TEACHERS_METRIC if task.reference is None else LOSS_METRIC

    def paired_rows(
        self, outcomes: WrittenOutcomes, teacher: WrittenOutcomes, seed: int
    ) -> PairedRows | None:
        """Each text's score; None where there are references that ROUGE cannot read."""
        if outcomes.reference_tokens.any() and not outcomes.rouge:
            return None
        return paired_texts(outcomes, teacher, seed)

    def loss_details(
        self,
        outcomes: WrittenOutcomes,
        teacher: WrittenOutcomes,
        dataset: PromptDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """The prompts on which the variant falls furthest behind."""
        examples = worst_texts(outcomes, teacher, dataset.references, texts)
        lost_in = "ROUGE-L" if outcomes.rouge else "common beginning"
        return LossDetails(examples, examples_in=f"loss in {lost_in}")

    def confidence(self, teacher: WrittenOutcomes) -> Confidence | None:
        """How many bits the teacher takes for a byte of each reference."""
        if not np.isfinite(teacher.log_likelihood).any():
            return None
        bits = -teacher.log_likelihood / (np.maximum(teacher.reference_bytes, 1) * np.log(2))
        return Confidence("teacher's bits per byte", bits, number)

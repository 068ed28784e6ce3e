"""Causal language modelling as a task family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure, PairedRows
from harness.tasks.causal_lm.outcomes import (
    TokenAnswer,
    WindowOutcomes,
    compared_tokens,
    read_tokens,
    restore_windows,
    window_outcomes,
)
from harness.tasks.causal_lm.rows import (
    CausalLanguageModelling,
    WindowDataset,
    encode_windows,
    read_documents,
)
from harness.tasks.causal_lm.statistics import (
    language_statistics,
    likelihood_chain,
    log_likelihood_change_nats,
    paired_bits,
    paired_measures,
    worst_windows,
)
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.losses import Confidence, LossDetails, Step
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.reading import Reading
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain
from harness.words.numbers import number

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.tasks.graphs import Graph

MAX_UNANSWERED_SHARE = 0.01
"""Largest share of windows without an answer. What is missing cannot be counted as wrong, as a
classifier's rows are; beyond this the rest is no longer the same text, and nothing is scored."""


class CausalLmFamily(
    TaskFamily[CausalLanguageModelling, WindowDataset, TokenAnswer, WindowOutcomes]
):
    """How probable running text is to a model, window by window."""

    kind = "causal-lm"
    section = CausalLanguageModelling
    dataset = WindowDataset
    lacking = "byte counts"
    loss_metric = "bits_per_byte"
    auto_class = "AutoModelForCausalLM"
    architectures = ("ForCausalLM", "LMHeadModel")
    described = "a causal language model"
    causal = True
    whole_texts = False  # windows are cut from documents; training documents are whole
    typed = False  # they would all be zero, which is the default

    def columns(self, task: CausalLanguageModelling) -> Mapping[str, str | None]:
        """The column of the text."""
        return {"text": task.text}

    def read(self, task: CausalLanguageModelling, reading: Reading) -> Samples:
        """Every document; windows are drawn when they are cut."""
        return read_documents(task, reading)

    def encode(
        self,
        task: CausalLanguageModelling,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Documents as windows of tokens."""
        return encode_windows(task, samples, tokenizer)

    def row_texts(self, dataset: EncodedDataset, samples: Samples) -> tuple[str, ...]:
        """The scored part of each window."""
        spans = dataset.spans or ()
        return tuple(samples.texts[document][a:b] for document, a, b in spans)

    def graph(self, model: PreTrainedModel, task: CausalLanguageModelling) -> Graph:
        """Log probabilities of the tokens, and the likeliest ones."""
        from harness.tasks.causal_lm.graph import ScoringGraph

        return ScoringGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The log probabilities, and the next token at each position."""
        from harness.tasks.causal_lm.graph import token_probe

        return token_probe(inputs, scores, outputs)

    def probe_answer(
        self, outputs: Sequence[NDArray[Any]], probe: Probe
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Log probabilities and next tokens."""
        return outputs[0], outputs[1]

    def graph_values(
        self, outputs: Sequence[NDArray[Any]], place: int, tokens: int
    ) -> NDArray[np.float32]:
        """The log probability of each real token but the first, (tokens - 1,)."""
        values: NDArray[np.float32] = outputs[0][place][1:tokens]
        return values

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """`token_logprobs` and `greedy_token_ids`, (length,) each."""
        return (
            TensorSpec("token_logprobs", "FP32", (-1,)),
            TensorSpec("greedy_token_ids", "INT64", (-1,)),
        )

    def read_answer(self, batch: Batch, outputs: Tensors) -> TokenAnswer:
        """The likelihood of each row, and the likeliest tokens."""
        return read_tokens(batch, outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each row's next tokens, and the log probabilities of its own."""
        return compared_tokens(batch, outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: WindowDataset,
        replies: Sequence[tuple[Batch, TokenAnswer | None]],
    ) -> WindowOutcomes:
        """The likelihood of every window, as outcome rows."""
        return window_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> WindowOutcomes:
        """Older files tell no words, tokens or documents."""
        return restore_windows(stored)

    def scorable(self, outcomes: WindowOutcomes) -> Mask | None:
        """The answered windows; None where more than `MAX_UNANSWERED_SHARE` are missing."""
        if outcomes.unanswered.mean() > MAX_UNANSWERED_SHARE:
            return None
        return ~outcomes.unanswered

    def statistics(
        self,
        outcomes: WindowOutcomes,
        dataset: WindowDataset,
        kept: Mask,
    ) -> tuple[Statistic, ...]:
        """Perplexities and bits per byte."""
        return language_statistics(
            outcomes.log_likelihood[kept],
            outcomes.tokens[kept],
            outcomes.bytes[kept],
            outcomes.words[kept],
        )

    def same_rows(self, outcomes: WindowOutcomes, teacher: WindowOutcomes) -> bool:
        """Whether both tokenizers cut the text into the same windows, as their bytes tell."""
        return np.array_equal(outcomes.bytes, teacher.bytes)

    def comparable(self, metric: str, outcomes: WindowOutcomes, teacher: WindowOutcomes) -> bool:
        """Perplexity by token wants the same text in as many tokens, window by window.

        As many tokens alone tell nothing: a window of a long document is full in any tokenizer.
        """
        if metric != "perplexity":
            return True
        same_text = self.same_rows(outcomes, teacher)
        return same_text and np.array_equal(outcomes.tokens, teacher.tokens)

    def paired_measures(
        self, outcomes: WindowOutcomes, teacher: WindowOutcomes, seed: int
    ) -> list[Measure]:
        """Changes of likelihood, and agreement of the next token."""
        return paired_measures(outcomes, teacher, seed)

    def beside_teacher(
        self, outcomes: WindowOutcomes, teacher: WindowOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """The change of each window's likelihood."""
        change = log_likelihood_change_nats(outcomes, teacher)
        return {} if change is None else {"log_likelihood_change_nats": change}

    def paired_rows(
        self, outcomes: WindowOutcomes, teacher: WindowOutcomes, seed: int
    ) -> PairedRows | None:
        """Bits of each window, where both have the same windows."""
        return paired_bits(outcomes, teacher, seed)

    def loss_chain(self, steps: Sequence[Step[WindowOutcomes]], seed: int) -> LossChain | None:
        """In bits per byte, over the windows that every step answered."""
        return likelihood_chain(steps, seed)

    def loss_details(
        self,
        outcomes: WindowOutcomes,
        teacher: WindowOutcomes,
        dataset: WindowDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """The windows that became the least probable."""
        return LossDetails(worst_windows(outcomes, teacher, texts))

    def confidence(self, teacher: WindowOutcomes) -> Confidence | None:
        """How many bits the teacher takes for a byte of each window."""
        bits = -teacher.log_likelihood / (np.maximum(teacher.bytes, 1) * np.log(2))
        return Confidence("teacher's bits per byte", bits, number)

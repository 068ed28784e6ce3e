"""Regression as a task family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic, regression_statistics
from harness.statistics.paired import Mask, Measure, PairedRows, paired_scores
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.losses import LossDetails, Step, chain_of_rows
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, RowAnswer, StoredOutcomes, Tensors, TextAnswer
from harness.tasks.parity import Inputs, Probe, class_probe
from harness.tasks.regression.outcomes import (
    NumberAnswer,
    NumberOutcomes,
    compared_numbers,
    number_outcomes,
    own_measures,
    paired_measures,
    read_numbers,
    restore_numbers,
    worst_numbers,
)
from harness.tasks.regression.rows import (
    NumberDataset,
    NumberedSamples,
    Regression,
    encode_numbered,
    read_numbered,
)
from harness.tasks.roles.reading import Reading
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain
from harness.words.numbers import number

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from harness.tasks.graphs import Graph

MAX_UNANSWERED_SHARE = 0.01
"""Largest share of unanswered rows. What is missing has no error that could be counted; beyond this
the rest is no longer the same data, and nothing is scored."""


class RegressionFamily(TaskFamily[Regression, NumberDataset, NumberAnswer, NumberOutcomes]):
    """A number for a text or a pair of texts."""

    kind = "regression"
    section = Regression
    dataset = NumberDataset
    lacking = "labels"
    loss_metric = "mae"
    auto_class = "AutoModelForSequenceClassification"
    architectures = ("ForSequenceClassification",)
    described = "a regression"
    has_ensemble = True

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Other outputs than one number."""
        if config.num_labels != 1:
            yield f"it has {config.num_labels} outputs; a regression has one number"
        if config.problem_type not in {None, "regression"}:
            yield (
                f"its config.json says problem_type {config.problem_type}: it was not trained for "
                "a regression"
            )

    def columns(self, task: Regression) -> Mapping[str, str | None]:
        """Columns of the text, of the pair's second text, and of the right number."""
        return {"text": task.text, "text_pair": task.text_pair, "label": task.label}

    def read(self, task: Regression, reading: Reading) -> Samples:
        """Texts or pairs with their numbers."""
        return read_numbered(task, reading)

    def label_words(self, samples: Samples) -> str:
        """The range of the right numbers, in words."""
        if not isinstance(samples, NumberedSamples):
            return ""
        return f"from {number(min(samples.labels))} to {number(max(samples.labels))}"

    def encode(
        self,
        task: Regression,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Texts as tensors, with their numbers."""
        return encode_numbered(task, samples, tokenizer, inputs)

    def graph(self, model: PreTrainedModel, task: Regression) -> Graph:
        """The number, as a classifier's one logit."""
        from harness.tasks.graphs import LogitsGraph

        return LogitsGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The numbers; nothing is chosen among them."""
        return class_probe(inputs, scores)

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """`logits`, (1,), as transformers calls it."""
        return (TensorSpec("logits", "FP32", (1,)),)

    def read_answer(self, batch: Batch, outputs: Tensors) -> NumberAnswer:
        """The numbers of a batch."""
        return read_numbers(outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """The number that each row was answered with."""
        return compared_numbers(outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: NumberDataset,
        replies: Sequence[tuple[Batch, NumberAnswer | None]],
    ) -> NumberOutcomes:
        """Every row's number beside the right one."""
        known = ((batch.rows, answer) for batch, answer in replies)
        return number_outcomes(variant, dataset, known)

    def restore(self, stored: StoredOutcomes) -> NumberOutcomes:
        """Read predictions and labels back."""
        return restore_numbers(stored)

    def text_answer(
        self, task: Regression, dataset: EncodedDataset, outputs: tuple[TensorSpec, ...]
    ) -> TextAnswer:
        """The number that the model itself gives for a text."""
        return TextAnswer(outputs)

    def text_outcomes(
        self,
        variant: ModelVariant,
        dataset: NumberDataset,
        replies: Sequence[tuple[Positions, Tensors | None]],
    ) -> NumberOutcomes:
        """Every row's number beside the right one."""
        known = ((rows, None if one is None else read_numbers(one)) for rows, one in replies)
        return number_outcomes(variant, dataset, known)

    def scorable(self, outcomes: NumberOutcomes) -> Mask | None:
        """The answered rows; None where more than `MAX_UNANSWERED_SHARE` are missing."""
        if outcomes.unanswered.mean() > MAX_UNANSWERED_SHARE:
            return None
        return ~outcomes.unanswered

    def statistics(
        self,
        outcomes: NumberOutcomes,
        dataset: NumberDataset,
        kept: Mask,
    ) -> tuple[Statistic, ...]:
        """Pearson's and Spearman's correlation, MAE and RMSE."""
        return regression_statistics(dataset.labels[kept], outcomes.predictions[kept])

    def own_measures(
        self, outcomes: NumberOutcomes, dataset: NumberDataset, seed: int
    ) -> list[Measure]:
        """Whether it answers too high or too low."""
        return own_measures(outcomes.predictions - dataset.labels, seed)

    def paired_measures(
        self, outcomes: NumberOutcomes, teacher: NumberOutcomes, seed: int
    ) -> list[Measure]:
        """Change of the error, and agreement with the teacher's numbers."""
        return paired_measures(outcomes, teacher, seed)

    def beside_teacher(
        self, outcomes: NumberOutcomes, teacher: NumberOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """How far each number is from the teacher's."""
        return {"difference_from_teacher": outcomes.predictions - teacher.predictions}

    def paired_rows(
        self, outcomes: NumberOutcomes, teacher: NumberOutcomes, seed: int
    ) -> PairedRows | None:
        """Absolute errors of variant and teacher, row by row."""
        return _paired_errors(teacher, outcomes, seed)

    def loss_chain(self, steps: Sequence[Step[NumberOutcomes]], seed: int) -> LossChain | None:
        """In mean absolute error, over the rows that every step answered."""
        return chain_of_rows(
            self.loss_metric, steps, lambda before, after: _paired_errors(before, after, seed)
        )

    def loss_details(
        self,
        outcomes: NumberOutcomes,
        teacher: NumberOutcomes,
        dataset: NumberDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """The samples whose error grew most."""
        return LossDetails(worst_numbers(outcomes, teacher, texts), examples_in="absolute error")


def _paired_errors(first: NumberOutcomes, second: NumberOutcomes, seed: int) -> PairedRows:
    return paired_scores(
        first.error,
        second.error,
        seed=seed,
        answered=~(first.unanswered | second.unanswered),
        most=np.inf,
        higher_is_better=False,
    )

"""Multi-label classification as a task family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure, PairedRows, paired_scores
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.losses import Confidence, LossDetails, Step, chain_of_rows
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.multi_label.outcomes import (
    LabelSetAnswer,
    LabelSetOutcomes,
    ScoredLabelSets,
    compared_label_sets,
    label_set_outcomes,
    labels_answer,
    named_label_sets,
    read_label_logits,
    restore_label_sets,
)
from harness.tasks.multi_label.relabelling import find_relabelling
from harness.tasks.multi_label.rows import (
    LabelSetDataset,
    LabelSetSamples,
    encode_label_sets,
    read_label_sets,
)
from harness.tasks.multi_label.section import MultiLabelClassification
from harness.tasks.multi_label.statistics import (
    certainty,
    kl_to_teacher_nats,
    label_set_details,
    label_set_statistics,
    paired_measures,
)
from harness.tasks.outcomes import (
    Batch,
    Columns,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
    matrix_column,
)
from harness.tasks.parity import Inputs, Probe
from harness.tasks.roles.reading import Reading
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import LossChain, Relabelling
from harness.words.numbers import percent

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from harness.tasks.graphs import Graph


class MultiLabelFamily(
    TaskFamily[MultiLabelClassification, LabelSetDataset, LabelSetAnswer, LabelSetOutcomes]
):
    """Any number of labels for a text or a pair of texts."""

    kind = "multi-label-classification"
    section = MultiLabelClassification
    dataset = LabelSetDataset
    lacking = "labels"
    loss_metric = "subset_accuracy"
    auto_class = "AutoModelForSequenceClassification"
    architectures = ("ForSequenceClassification",)
    described = "a multi-label classifier"
    has_pipeline = True

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Outputs that are no labels of their own each, or not known by their place."""
        said = config.problem_type
        if said not in {None, "multi_label_classification"}:
            yield (
                f"its config.json says problem_type {said}: it was not trained to give a text "
                "several labels"
            )
        elif said is None and (config.num_labels or 0) < 2:  # noqa: PLR2004  (a regression's one)
            yield (
                "it has one output and no problem_type: a regression, unless its config.json says "
                "problem_type multi_label_classification"
            )
        numbers = sorted(config.id2label or ())
        if numbers != list(range(len(numbers))):
            yield (
                f"its id2label numbers the classes {', '.join(map(str, numbers[:8]))}, and outputs "
                "are counted from 0: which output is which class is not certain"
            )

    def label_names(self, config: PretrainedConfig) -> tuple[str, ...] | None:
        """The names of id2label, in the order of the outputs."""
        names: dict[Any, str] = dict(config.id2label or {})
        return tuple(str(names[index]) for index in sorted(names))

    def columns(self, task: MultiLabelClassification) -> Mapping[str, str | None]:
        """Of the text, the pair's second text, and the labels."""
        found: dict[str, str | None] = {"text": task.text, "text_pair": task.text_pair}
        if task.label_columns is None:
            return {**found, "label": task.label}
        return found | {f"label_columns[{i}]": name for i, name in enumerate(task.label_columns)}

    def read(self, task: MultiLabelClassification, reading: Reading) -> Samples:
        """Texts or pairs with their labels; without, where the model's labels are not known."""
        return read_label_sets(task, reading)

    def encode(
        self,
        task: MultiLabelClassification,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Texts as tensors, with their labels where these are known."""
        return encode_label_sets(task, samples, tokenizer, inputs)

    def row_labels(self, samples: Samples) -> Sequence[str]:
        """The names of each sample's labels, in one text."""
        return samples.label_texts if isinstance(samples, LabelSetSamples) else ()

    def graph(self, model: PreTrainedModel, task: MultiLabelClassification) -> Graph:
        """Logits of the labels; a client takes the sigmoid, as of any served classifier."""
        from harness.tasks.graphs import LogitsGraph

        return LogitsGraph(model)

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The logits, and whether each label is more probable than not."""
        values = scores.numpy()
        return Probe(
            inputs=inputs,
            values=values,
            choices=_more_probable_than_not(values),
            margins=np.abs(values),
            value_counts=np.ones_like(values, dtype=np.bool_),
            choice_counts=np.ones_like(values, dtype=np.bool_),
        )

    def probe_answer(
        self, outputs: Sequence[NDArray[Any]], probe: Probe
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """An artefact's logits, and whether each label is more probable than not."""
        return outputs[0], _more_probable_than_not(outputs[0])

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """`logits`, (labels,)."""
        return (TensorSpec("logits", "FP32", (width,)),)

    def read_answer(self, batch: Batch, outputs: Tensors) -> LabelSetAnswer:
        """The logits of a batch."""
        return read_label_logits(outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each row's labels and logits."""
        return compared_label_sets(batch, outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: LabelSetDataset,
        replies: Sequence[tuple[Batch, LabelSetAnswer | None]],
    ) -> LabelSetOutcomes:
        """Every row's labels and logits."""
        return label_set_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> LabelSetOutcomes:
        """With scores where the file has them."""
        return restore_label_sets(stored)

    def truth(self, dataset: LabelSetDataset) -> Columns:
        """`labels`: whether each output is a label of the row, a list a row."""
        return {"labels": matrix_column(dataset.labels)}

    def text_answer(
        self,
        task: MultiLabelClassification,
        dataset: EncodedDataset,
        outputs: tuple[TensorSpec, ...],
    ) -> TextAnswer:
        """The labels that reach the threshold, by name, and how probable each of all is."""
        return labels_answer(dataset, task.threshold)

    def text_outcomes(
        self,
        variant: ModelVariant,
        dataset: LabelSetDataset,
        replies: Sequence[tuple[Positions, Tensors | None]],
    ) -> LabelSetOutcomes:
        """The labels that are named; a name that is none of the model's is not an answer."""
        return named_label_sets(variant, dataset, replies)

    def statistics(
        self, outcomes: LabelSetOutcomes, dataset: LabelSetDataset, kept: Mask
    ) -> tuple[Statistic, ...]:
        """Micro-F1, macro-F1, subset accuracy and mean average precision."""
        return label_set_statistics(outcomes, dataset, kept)

    def right(self, metric: str, outcomes: LabelSetOutcomes) -> Mask | None:
        """Subset accuracy is the share of rows that were given exactly the right labels."""
        return outcomes.correct if metric == "subset_accuracy" else None

    def paired_measures(
        self, outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes, seed: int
    ) -> list[Measure]:
        """Flips, agreement and divergence."""
        return paired_measures(outcomes, teacher, seed)

    def beside_teacher(
        self, outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """The divergence of each row's labels."""
        divergence = kl_to_teacher_nats(outcomes, teacher)
        return {} if divergence is None else {"kl_to_teacher_nats": divergence}

    def relabelling(
        self,
        outcomes: LabelSetOutcomes,
        dataset: LabelSetDataset,
        family: str,
        teacher: LabelSetOutcomes | None,
        of_teacher: Relabelling | None,
    ) -> Relabelling | None:
        """Labels in another order than they are called."""
        return find_relabelling(outcomes, dataset, family)

    def paired_rows(
        self, outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes, seed: int
    ) -> PairedRows | None:
        """Whether exactly the right labels were given."""
        return paired_scores(teacher.correct, outcomes.correct, seed=seed)

    def loss_chain(self, steps: Sequence[Step[LabelSetOutcomes]], seed: int) -> LossChain | None:
        """In subset accuracy; an unanswered row is wrong."""
        return chain_of_rows(
            self.loss_metric,
            steps,
            lambda before, after: paired_scores(before.correct, after.correct, seed=seed),
        )

    def loss_details(
        self,
        outcomes: LabelSetOutcomes,
        teacher: LabelSetOutcomes,
        dataset: LabelSetDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """Labels that are missed or given wrongly more often, and the worst flips."""
        return label_set_details(outcomes, teacher, dataset, tuple(texts))

    def confidence(self, teacher: LabelSetOutcomes) -> Confidence | None:
        """How probable the teacher finds the labels that it gave, all together."""
        if not isinstance(teacher, ScoredLabelSets):
            return None
        return Confidence("teacher confidence", certainty(teacher), percent)


def _more_probable_than_not(logits: NDArray[Any]) -> NDArray[np.int64]:
    return (logits >= 0).astype(np.int64)

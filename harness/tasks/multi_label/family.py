"""Multi-label classification as a task family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure
from harness.tasks.classifiers import ClassifierFamily
from harness.tasks.encoding import EncodedDataset
from harness.tasks.losses import Confidence, LossDetails
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
from harness.tasks.multi_label.written import column_of_labels
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
from harness.tasks.rows import DataTable
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import Relabelling
from harness.words.numbers import percent

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class MultiLabelFamily(
    ClassifierFamily[MultiLabelClassification, LabelSetDataset, LabelSetAnswer, LabelSetOutcomes]
):
    """Any number of labels for a text or a pair of texts."""

    kind = "multi-label-classification"
    section = MultiLabelClassification
    dataset = LabelSetDataset
    loss_metric = "subset_accuracy"
    described = "a multi-label classifier"

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
        yield from super().problems(config)

    def columns(self, task: MultiLabelClassification) -> Mapping[str, str | None]:
        """Columns of the text, of the pair's second text, and of the labels."""
        found: dict[str, str | None] = {"text": task.text, "text_pair": task.text_pair}
        if task.label_columns is None:
            return {**found, "label": task.label}
        return found | {f"label_columns[{i}]": name for i, name in enumerate(task.label_columns)}

    def read(self, task: MultiLabelClassification, reading: Reading) -> Samples:
        """Texts or pairs with their labels; without, where the model's labels are not known."""
        return read_label_sets(task, reading)

    def recognise(
        self, table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
    ) -> Mapping[str, str]:
        """The column whose every row names labels of the teacher's, whatever it is called."""
        if "label" in named or not label_names:
            return {}
        separator = self.section.model_fields["separator"].default
        found = column_of_labels(table, set(named.values()), label_names, separator)
        return {} if found is None else {"label": found}

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
        """Read outcomes back, with scores where the file has them."""
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

    def paired_measures(
        self, outcomes: LabelSetOutcomes, teacher: LabelSetOutcomes, seed: int
    ) -> list[Measure]:
        """Label flips, agreement and divergence between variant and teacher."""
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

"""Sequence classification as a task family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure
from harness.tasks.classification.confusions import USUAL, class_details, find_relabelling
from harness.tasks.classification.outcomes import (
    ClassAnswer,
    LabelOutcomes,
    class_outcomes,
    compared_logits,
    label_answer,
    label_outcomes,
    named_outcomes,
    read_logits,
    restore_classes,
)
from harness.tasks.classification.rows import (
    LabelledDataset,
    LabelledSamples,
    SequenceClassification,
    encode_labelled,
    read_labelled,
)
from harness.tasks.classification.statistics import (
    answered_rows,
    calibration_measures,
    classification_statistics,
    kl_to_teacher_nats,
    label_distribution,
    label_perplexity,
    log_probabilities,
    paired_measures,
    predictions_numbered_by,
)
from harness.tasks.classifiers import ClassifierFamily
from harness.tasks.encoding import EncodedDataset
from harness.tasks.losses import Confidence, LossDetails
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.outcomes import Batch, Columns, RowAnswer, StoredOutcomes, Tensors, TextAnswer
from harness.tasks.parity import Inputs, Probe, class_probe
from harness.tasks.roles.reading import Reading
from harness.tasks.rowwise import Positions
from harness.tasks.samples import Samples
from harness.types import ModelVariant, TensorSpec
from harness.types.losses import Relabelling
from harness.words.numbers import percent

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


_FEWEST_CLASSES = 2


class ClassificationFamily(
    ClassifierFamily[SequenceClassification, LabelledDataset, ClassAnswer, LabelOutcomes]
):
    """One label for a text or a pair of texts."""

    kind = "sequence-classification"
    section = SequenceClassification
    dataset = LabelledDataset
    loss_metric = "accuracy"
    described = "a sequence classifier"

    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Outputs that are no classes, or not known by their place."""
        if (config.num_labels or 0) < _FEWEST_CLASSES:
            yield "it has one output: a regression, not a classifier"
        yield from super().problems(config)
        if config.problem_type == "multi_label_classification":
            yield "it gives several labels per text; the task has one"
        if config.problem_type == "regression":
            yield "it was trained for a regression, not as a classifier"

    def columns(self, task: SequenceClassification) -> Mapping[str, str | None]:
        """Columns of the text, of the pair's second text, and of the label."""
        return {"text": task.text, "text_pair": task.text_pair, "label": task.label}

    def read(self, task: SequenceClassification, reading: Reading) -> Samples:
        """Texts or pairs with their labels; without, where the model's classes are not known."""
        return read_labelled(task, reading)

    def encode(
        self,
        task: SequenceClassification,
        samples: Samples,
        tokenizer: PreTrainedTokenizerBase,
        inputs: ModelInputs,
    ) -> EncodedDataset:
        """Texts as tensors, with their labels where these are known."""
        return encode_labelled(task, samples, tokenizer, inputs)

    def row_labels(self, samples: Samples) -> Sequence[str]:
        """The name of each sample's class."""
        if not isinstance(samples, LabelledSamples):
            return ()
        return [samples.label_names[label] for label in samples.labels]

    def probe(self, inputs: Inputs, scores: Tensor, outputs: tuple[Tensor, ...]) -> Probe:
        """The logits, and the likeliest class."""
        return class_probe(inputs, scores)

    def read_answer(self, batch: Batch, outputs: Tensors) -> ClassAnswer:
        """The classes and logits of a batch."""
        return read_logits(outputs)

    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each row's class and logits."""
        return compared_logits(outputs)

    def outcomes(
        self,
        variant: ModelVariant,
        dataset: LabelledDataset,
        replies: Sequence[tuple[Batch, ClassAnswer | None]],
    ) -> LabelOutcomes:
        """Every row's class and logits."""
        return class_outcomes(variant, dataset, replies)

    def restore(self, stored: StoredOutcomes) -> LabelOutcomes:
        """Read outcomes back, with logits where the file has them."""
        return restore_classes(stored)

    def told(self, name: str, answers: Sequence[str], dataset: LabelledDataset) -> LabelOutcomes:
        """Outcomes of what answers with the names of classes."""
        index = {label: number for number, label in enumerate(dataset.label_names)}
        predictions = np.array([index[label] for label in answers], dtype=np.int64)
        return label_outcomes(name, "", predictions, dataset)

    def truth(self, dataset: LabelledDataset) -> Columns:
        """`label`, the index of the right output."""
        return {"label": pa.array(dataset.labels)}

    def text_answer(
        self,
        task: SequenceClassification,
        dataset: EncodedDataset,
        outputs: tuple[TensorSpec, ...],
    ) -> TextAnswer:
        """The likeliest class by name, and how probable it is."""
        return label_answer(dataset)

    def text_outcomes(
        self,
        variant: ModelVariant,
        dataset: LabelledDataset,
        replies: Sequence[tuple[Positions, Tensors | None]],
    ) -> LabelOutcomes:
        """The class that each label names; a label that is none of the data's is not an answer."""
        return named_outcomes(variant, dataset, replies)

    def statistics(
        self, outcomes: LabelOutcomes, dataset: LabelledDataset, kept: Mask
    ) -> tuple[Statistic, ...]:
        """Accuracy, macro-F1 and label perplexity, however the model numbers the classes.

        What answers with labels alone (an ensemble, the baseline) has no label perplexity.
        """
        predictions = predictions_numbered_by(dataset.class_names, outcomes)
        found = classification_statistics(dataset.labels[kept], predictions[kept])
        distribution = label_distribution(outcomes, dataset.class_names)
        if distribution is None:
            return found
        return (*found, *label_perplexity(distribution[kept], dataset.labels[kept]))

    def comparable(self, metric: str, outcomes: LabelOutcomes, teacher: LabelOutcomes) -> bool:
        """A likelihood compares on the same rows alone; what is right or wrong on all of them."""
        if metric != "label_perplexity":
            return True
        own, theirs = label_distribution(outcomes), label_distribution(teacher)
        return (
            own is not None
            and theirs is not None
            and np.array_equal(answered_rows(own), answered_rows(theirs))
        )

    def own_measures(
        self, outcomes: LabelOutcomes, dataset: LabelledDataset, seed: int
    ) -> list[Measure]:
        """The calibration of the model's own probabilities."""
        return calibration_measures(outcomes, dataset.labels, seed)

    def paired_measures(
        self, outcomes: LabelOutcomes, teacher: LabelOutcomes, seed: int
    ) -> list[Measure]:
        """Flips, agreement, kappa and divergence."""
        return paired_measures(outcomes, teacher, seed)

    def beside_teacher(
        self, outcomes: LabelOutcomes, teacher: LabelOutcomes
    ) -> dict[str, NDArray[np.float64]]:
        """The divergence of each row's distribution."""
        divergence = kl_to_teacher_nats(outcomes, teacher)
        return {} if divergence is None else {"kl_to_teacher_nats": divergence}

    def relabelling(
        self,
        outcomes: LabelOutcomes,
        dataset: LabelledDataset,
        family: str,
        teacher: LabelOutcomes | None,
        of_teacher: Relabelling | None,
    ) -> Relabelling | None:
        """Classes in another order than they are called; the teacher's own put right first."""
        reference = USUAL
        if teacher is not None:
            reference = of_teacher.mended if of_teacher else float(teacher.correct.mean())
        return find_relabelling(
            outcomes,
            dataset.labels,
            called=dataset.label_names,
            family=family,
            teacher=teacher,
            reference=reference,
        )

    def loss_details(
        self,
        outcomes: LabelOutcomes,
        teacher: LabelOutcomes,
        dataset: LabelledDataset,
        texts: Sequence[str],
    ) -> LossDetails:
        """Confusions that became more frequent, and the worst flips."""
        return class_details(outcomes, teacher, dataset, texts)

    def confidence(self, teacher: LabelOutcomes) -> Confidence | None:
        """How probable the teacher finds its own answer."""
        distribution = log_probabilities(teacher)
        if distribution is None:
            return None
        sure = np.exp(distribution).max(axis=1)
        return Confidence("teacher confidence", sure, percent)

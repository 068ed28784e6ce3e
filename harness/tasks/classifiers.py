"""What the families of classifiers share: outputs that are classes with names, rows that are right.

One label per text and any number of labels per text are families of their own; both read texts
with labels by the names of the checkpoint's outputs, and both ask a head of
`AutoModelForSequenceClassification` for its logits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.statistics.paired import Mask, PairedRows, paired_scores
from harness.tasks.encoding import EncodedDataset
from harness.tasks.family import TaskFamily
from harness.tasks.labels import LabelReader
from harness.tasks.losses import Step, chain_of_rows
from harness.tasks.outcomes import Answer, Outcomes
from harness.tasks.roles.base import S
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples
from harness.types import TensorSpec
from harness.types.losses import LossChain

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from harness.tasks.graphs import Graph


@dataclass(frozen=True, kw_only=True)
class ClassSamples(Samples):
    """Texts or pairs that are labelled with classes."""

    label_names: tuple[str, ...]
    """What the checkpoint calls its outputs (else the data), in their order."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each output stands for, in the words of the family's teacher."""
        return self.reader.class_names if self.reader else self.label_names


@rowwise
@dataclass(frozen=True, kw_only=True)
class ClassDataset(EncodedDataset):
    """Encoded texts that are labelled with classes."""

    label_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What the checkpoint calls its outputs (else the data), in their order."""
    class_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What each output stands for in the words of the family's teacher, by which models are
    compared."""

    @property
    def width(self) -> int:
        """The number of outputs, a class each."""
        return len(self.label_names)


@rowwise
@dataclass(frozen=True, kw_only=True)
class JudgedOutcomes(Outcomes):
    """Answers of which each is right or wrong."""

    correct: NDArray[np.bool_] = field(metadata=PER_ROW)
    """Whether the answer is right; False for an unanswered row, (rows,)."""


def label_key(value: object) -> tuple[type, str]:
    """A label as the data writes it, to look it up by: 1, "1" and true are three labels."""
    return type(value), repr(value)


def labels_advice(reader: LabelReader, teacher: LabelReader | None) -> str:
    """What to do where labels cannot be read: what the task's `labels` would have to say."""
    named = teacher if teacher and teacher.is_named and not reader.is_named else reader
    return (
        "a label is a name of a class or an index; set the task's 'labels' to the names of the "
        f"classes, in the data's order: a permutation of [{', '.join(named.names)}]"
    )


def distinct_names(names: Sequence[str], called: str) -> None:
    """Make sure that an ensemble, which answers with names, can tell classes apart by them.

    Args:
        names: the names of the outputs.
        called: what an output stands for, in the singular: class.

    Raises:
        DataError: two outputs have one name.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"an ensemble answers with the names of {_several(called)}, and two have the same: "
            f"{', '.join(repeated)}",
            next_step=f"name each {called} once in the checkpoint's id2label",
        )


def unnamed(called: str) -> DataError:
    """The error of an ensemble whose answers have no names.

    Args:
        called: what an output stands for, in the singular: class.
    """
    return DataError(
        f"an ensemble answers with the names of {_several(called)}, and there are none",
        next_step="give the task's labels",
    )


def _several(called: str) -> str:
    return f"{called}es" if called.endswith("s") else f"{called}s"


CS = TypeVar("CS", bound=ClassDataset)
CA = TypeVar("CA", bound=Answer)
CR = TypeVar("CR", bound=JudgedOutcomes)


class ClassifierFamily(TaskFamily[S, CS, CA, CR], Generic[S, CS, CA, CR]):
    """A family whose models have an output for each class, and whose answers are right or wrong."""

    lacking = "labels"
    auto_class = "AutoModelForSequenceClassification"
    architectures = ("ForSequenceClassification",)
    has_ensemble = True

    @abstractmethod
    def problems(self, config: PretrainedConfig) -> Iterator[str]:
        """Why a checkpoint is not one of this kind; here: outputs that are not numbered from 0."""
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

    def graph(self, model: PreTrainedModel, task: S) -> Graph:
        """The logits of all classes: a client takes the softmax or the sigmoid."""
        from harness.tasks.graphs import LogitsGraph

        return LogitsGraph(model)

    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """The served output: `logits`, (classes,)."""
        return (TensorSpec("logits", "FP32", (width,)),)

    def right(self, metric: str, outcomes: CR) -> Mask | None:
        """Which rows are right, for the metric that is the share of these: the losses' own."""
        return outcomes.correct if metric == self.loss_metric else None

    def paired_rows(self, outcomes: CR, teacher: CR, seed: int) -> PairedRows | None:
        """Whether each row is right, beside the teacher's."""
        return paired_scores(teacher.correct, outcomes.correct, seed=seed)

    def loss_chain(self, steps: Sequence[Step[CR]], seed: int) -> LossChain | None:
        """The share of right rows, step by step; an unanswered row is wrong."""
        return chain_of_rows(
            self.loss_metric,
            steps,
            lambda before, after: paired_scores(before.correct, after.correct, seed=seed),
        )

"""What a classifier answered to each row, and how that is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import DataError
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.classifiers import JudgedOutcomes, distinct_names, unnamed
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import (
    Batch,
    Columns,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
    matrix_column,
)
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.types import ModelVariant, TensorSpec

NO_PREDICTION = -1
"""Stands where a class index would, for an unanswered row."""


@rowwise
@dataclass(frozen=True, kw_only=True)
class LabelOutcomes(JudgedOutcomes):
    """A class a row, without what it was chosen by: of an ensemble, which answers with labels."""

    kind = "sequence-classification"

    predictions: NDArray[np.int64] = field(metadata=PER_ROW)
    """Class indices, `NO_PREDICTION` where unanswered, (rows,)."""

    def columns(self) -> Columns:
        """The columns `prediction` and `correct`."""
        return {"prediction": pa.array(self.predictions), "correct": pa.array(self.correct)}


@rowwise
@dataclass(frozen=True, kw_only=True)
class ClassOutcomes(LabelOutcomes):
    """A class a row, and the scores of all classes."""

    logits: NDArray[np.float32] = field(metadata=PER_ROW)
    """(rows, classes), in the order of `label_names`; NaN where unanswered."""
    label_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What each of the checkpoint's outputs stands for, in the words of the family's teacher:
    equal for equal classes, whatever the checkpoints call them; empty where nobody names them."""

    def columns(self) -> Columns:
        """`prediction`, `correct` and `logits`, a list a row."""
        return {**super().columns(), "logits": matrix_column(self.logits)}

    def file_metadata(self) -> Mapping[str, str]:
        """The names of the classes."""
        return {"label_names": json.dumps(self.label_names)}


@dataclass(frozen=True)
class ClassAnswer:
    """A batch's classes and logits."""

    predictions: NDArray[np.int64]
    """The likeliest class, (n,)."""
    logits: NDArray[np.float32]
    """(n, classes) logits."""
    usable: NDArray[np.bool_]
    """False where some logit is not a number, (n,)."""


def read_logits(outputs: Tensors) -> ClassAnswer:
    """The answer in a classifier's output `logits`, (n, classes)."""
    logits = outputs["logits"]
    return ClassAnswer(
        logits.argmax(axis=1).astype(np.int64),
        logits.astype(np.float32),
        np.asarray(~np.isnan(logits).any(axis=1)),
    )


def compared_logits(outputs: Tensors) -> list[RowAnswer]:
    """The class and the logits of each row."""
    logits = outputs["logits"]
    return [
        RowAnswer(np.atleast_1d(best), row.astype(np.float64))
        for best, row in zip(logits.argmax(axis=1), logits, strict=True)
    ]


def class_outcomes(
    variant: ModelVariant,
    dataset: LabelledDataset,
    replies: Iterable[tuple[Batch, ClassAnswer | None]],
) -> ClassOutcomes:
    """Every row's class; a row without a usable answer has none."""
    predictions = np.full(dataset.size, NO_PREDICTION, dtype=np.int64)
    logits = np.full((dataset.size, variant.outputs[0].shape[-1]), np.nan, dtype=np.float32)
    for batch, answer in replies:
        if answer is not None:
            rows = batch.rows[answer.usable]
            predictions[rows] = answer.predictions[answer.usable]
            logits[rows] = answer.logits[answer.usable]
    return ClassOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=predictions == NO_PREDICTION,
        predictions=predictions,
        correct=predictions == dataset.labels,
        logits=logits,
        label_names=dataset.class_names,
    )


def label_answer(dataset: EncodedDataset) -> TextAnswer:
    """What an ensemble around a classifier answers: LABEL and SCORE.

    Raises:
        DataError: nobody names the classes, or two have one name.
    """
    if not isinstance(dataset, LabelledDataset):
        raise unnamed("class")
    labels = dataset.label_names
    distinct_names(labels, "class")
    return TextAnswer(
        outputs=(TensorSpec("LABEL", "BYTES", (1,)), TensorSpec("SCORE", "FP32", (1,))),
        part="label",
        parameters={"labels": json.dumps(list(labels))},
    )


def named_outcomes(
    variant: ModelVariant,
    dataset: LabelledDataset,
    replies: Iterable[tuple[NDArray[np.int64], Tensors | None]],
) -> LabelOutcomes:
    """Outcomes of an ensemble that answers with LABEL, (n, 1)."""
    index = {name.encode(): number for number, name in enumerate(dataset.label_names)}
    predictions = np.full(dataset.size, NO_PREDICTION, dtype=np.int64)
    for rows, outputs in replies:
        if outputs is not None:
            said = outputs["LABEL"].reshape(-1).tolist()
            predictions[rows] = [index.get(bytes(one), NO_PREDICTION) for one in said]
    return label_outcomes(variant.name, variant.sha256, predictions, dataset)


def label_outcomes(
    name: str, sha256: str, predictions: NDArray[np.int64], dataset: LabelledDataset
) -> LabelOutcomes:
    """Outcomes of whatever answered with classes alone.

    Args:
        name: of what answered.
        sha256: of the artefact; empty where it is not served.
        predictions: class indices as in `dataset.labels`, `NO_PREDICTION` where unanswered.
        dataset: the split.

    Raises:
        DataError: not one prediction a row.
    """
    if len(predictions) != dataset.size:
        raise DataError(
            f"{name} has outcomes of {len(predictions)} rows, the test split has {dataset.size}",
            next_step="the split changed since they were collected: score it again in a new run",
        )
    return LabelOutcomes(
        variant=name,
        sha256=sha256,
        unanswered=predictions == NO_PREDICTION,
        predictions=predictions,
        correct=predictions == dataset.labels,
    )


def restore_classes(stored: StoredOutcomes) -> LabelOutcomes:
    """Read outcomes back; those of an ensemble, and of runs that kept none, have no logits."""
    common = {
        **stored.common,
        "predictions": stored.array("prediction"),
        "correct": stored.array("correct"),
    }
    if not stored.has("logits"):
        return LabelOutcomes(**common)
    return ClassOutcomes(
        **common, logits=stored.matrix("logits"), label_names=stored.names("label_names")
    )

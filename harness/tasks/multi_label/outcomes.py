"""Which labels a model gave each row, and how that is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import scipy
from numpy.typing import NDArray

from harness.tasks.classifiers import JudgedOutcomes, distinct_names, unnamed
from harness.tasks.encoding import EncodedDataset
from harness.tasks.multi_label.rows import LabelSetDataset, LabelSetGroup
from harness.tasks.outcomes import (
    Batch,
    Columns,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
    matrix_column,
)
from harness.tasks.rowwise import OF_ALL, PER_ROW, Positions, rowwise
from harness.types import ModelVariant, TensorSpec

Mask = NDArray[np.bool_]


@rowwise
@dataclass(frozen=True, kw_only=True)
class LabelSetOutcomes(JudgedOutcomes):
    """The labels of each row alone: of an ensemble, which names them without their scores.

    A row is right where exactly the right labels were given.
    """

    kind = "multi-label-classification"

    given: Mask = field(metadata=PER_ROW)
    """Whether each label is given, (rows, labels); none to an unanswered row."""
    label_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What each of the checkpoint's outputs stands for, in the words of the family's teacher:
    equal for equal labels, whatever the checkpoints call them."""

    def columns(self) -> Columns:
        """`given`, a list of zeros and ones a row, and `correct`."""
        given = matrix_column(self.given.astype(np.uint8))
        return {"given": given, "correct": pa.array(self.correct)}

    def file_metadata(self) -> Mapping[str, str]:
        """The names of the labels."""
        return {"label_names": json.dumps(self.label_names)}


@rowwise
@dataclass(frozen=True, kw_only=True)
class ScoredLabelSets(LabelSetOutcomes):
    """The labels of each row, and the scores of all labels."""

    logits: NDArray[np.float32] = field(metadata=PER_ROW)
    """(rows, labels), in the order of `label_names`; NaN where unanswered."""

    def columns(self) -> Columns:
        """`given`, `correct` and `logits`, a list a row."""
        return {**super().columns(), "logits": matrix_column(self.logits)}


@dataclass(frozen=True)
class LabelSetAnswer:
    """The scores that a batch was answered with."""

    logits: NDArray[np.float32]
    """(n, labels) logits."""
    usable: Mask
    """False where some logit is not a number, (n,)."""


def given_labels(logits: NDArray[np.floating], threshold: float) -> Mask:
    """Whether a label's probability reaches the threshold; False if the logit is not a number."""
    return np.asarray(scipy.special.expit(logits.astype(np.float64)) >= threshold)


def read_label_logits(outputs: Tensors) -> LabelSetAnswer:
    """The answer in the output `logits`, (n, labels)."""
    logits = outputs["logits"].astype(np.float32)
    return LabelSetAnswer(logits, np.asarray(~np.isnan(logits).any(axis=1)))


def compared_label_sets(batch: Batch, outputs: Tensors) -> list[RowAnswer]:
    """The labels and the logits of each row."""
    logits = outputs["logits"]
    threshold = batch.group.threshold if isinstance(batch.group, LabelSetGroup) else 0.5
    return [
        RowAnswer(given, row.astype(np.float64))
        for given, row in zip(given_labels(logits, threshold), logits, strict=True)
    ]


def label_set_outcomes(
    variant: ModelVariant,
    dataset: LabelSetDataset,
    replies: Iterable[tuple[Batch, LabelSetAnswer | None]],
) -> ScoredLabelSets:
    """Every row's scores; a row without a usable answer has none, and is not right."""
    logits = np.full((dataset.size, variant.outputs[0].shape[-1]), np.nan, dtype=np.float32)
    unanswered = np.ones(dataset.size, dtype=np.bool_)
    for batch, answer in replies:
        if answer is not None:
            rows = batch.rows[answer.usable]
            logits[rows] = answer.logits[answer.usable]
            unanswered[rows] = False
    given = given_labels(logits, dataset.threshold)
    return ScoredLabelSets(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=unanswered,
        given=given,
        correct=(given == dataset.labels).all(axis=1) & ~unanswered,
        logits=logits,
        label_names=dataset.class_names,
    )


def labels_answer(dataset: EncodedDataset, threshold: float) -> TextAnswer:
    """What an ensemble around a multi-label classifier answers: LABELS as JSON, PROBABILITIES.

    Raises:
        DataError: nobody names the labels, or two have one name.
    """
    if not isinstance(dataset, LabelSetDataset):
        raise unnamed("label")
    labels = dataset.label_names
    distinct_names(labels, "label")
    return TextAnswer(
        outputs=(
            TensorSpec("LABELS", "BYTES", (1,)),
            TensorSpec("PROBABILITIES", "FP32", (len(labels),)),
        ),
        part="labels",
        parameters={"labels": json.dumps(list(labels)), "threshold": repr(threshold)},
    )


def named_label_sets(
    variant: ModelVariant,
    dataset: LabelSetDataset,
    replies: Iterable[tuple[Positions, Tensors | None]],
) -> LabelSetOutcomes:
    """Outcomes of an ensemble that answers with LABELS, (n, 1), a JSON list of names each.

    An answer that is none, or with a name that is none of the model's, is not an answer.
    """
    place = {name: index for index, name in enumerate(dataset.label_names)}
    given = np.zeros_like(dataset.labels)
    unanswered = np.ones(dataset.size, dtype=np.bool_)
    for rows, outputs in replies:
        if outputs is None:
            continue
        for row, written in zip(rows.tolist(), outputs["LABELS"].reshape(-1).tolist(), strict=True):
            places = _places(written, place)
            if places is not None:
                given[row, places] = True
                unanswered[row] = False
    return LabelSetOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=unanswered,
        given=given,
        correct=(given == dataset.labels).all(axis=1) & ~unanswered,
        label_names=dataset.class_names,
    )


def _places(written: bytes, place: Mapping[str, int]) -> list[int] | None:
    """Outputs of the labels that an answer names; None where it is no such answer."""
    try:
        names = json.loads(written)
        return [place[name] for name in names]
    except (ValueError, KeyError, TypeError):
        return None


def restore_label_sets(stored: StoredOutcomes) -> LabelSetOutcomes:
    """Read outcomes back from their file; those of an ensemble have no logits."""
    common = {
        **stored.common,
        "given": stored.matrix("given").astype(np.bool_),
        "correct": stored.array("correct"),
        "label_names": stored.names("label_names"),
    }
    if not stored.has("logits"):
        return LabelSetOutcomes(**common)
    return ScoredLabelSets(**common, logits=stored.matrix("logits"))


def in_order(
    values: NDArray[Any], own: Sequence[str], wanted: Sequence[str], *, missing: float
) -> NDArray[Any]:
    """Columns of labels in another order, (rows, wanted).

    Args:
        values: (rows, own).
        own: names of the labels, in their order.
        wanted: names in the order wanted.
        missing: what stands in the column of a label that is not among them.
    """
    place = {name: index for index, name in enumerate(own)}
    found = np.full((len(values), len(wanted)), missing).astype(values.dtype)
    for column, name in enumerate(wanted):
        if name in place:
            found[:, column] = values[:, place[name]]
    return found

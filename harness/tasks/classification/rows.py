"""The rows of a classification: its section of the study, texts with a label read and encoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.classifiers import ClassDataset, ClassSamples, label_key, labels_advice
from harness.tasks.encoding import EncodedDataset, encode_texts, fields_of
from harness.tasks.label_values import form_of
from harness.tasks.labels import LabelReader, choose_reading, distinct_labels, mismatch
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.samples import Samples, draw_texts
from harness.tasks.section import Data, PaddedSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SequenceClassification(PaddedSection):
    """One label for a text or a pair of texts."""

    kind: Literal["sequence-classification"]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field("label", description="Column of the label: a name or a class index.")
    labels: list[str] | None = Field(
        None, description="Class names in the data's order; default: the checkpoint's id2label."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most this many, drawn with the seed.")


@dataclass(frozen=True, kw_only=True)
class LabelledSamples(ClassSamples):
    """Texts or pairs with a label each."""

    labels: tuple[int, ...]
    """Indexes into the checkpoint's outputs."""


@rowwise
@dataclass(frozen=True, kw_only=True)
class LabelledDataset(ClassDataset):
    """The encoded texts with their labels."""

    labels: NDArray[np.int64] = field(metadata=PER_ROW)
    """Indexes of the checkpoint's outputs, (size,)."""


def encode_labelled(
    task: SequenceClassification,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    inputs: ModelInputs,
) -> EncodedDataset:
    """Texts as tensors, with their labels where these are known.

    Raises:
        DataError: the texts cannot be encoded.
    """
    encoded = encode_texts(task, samples, tokenizer, inputs)
    if not isinstance(samples, LabelledSamples):
        return encoded
    return LabelledDataset(
        **fields_of(encoded),
        labels=np.array(samples.labels, dtype=np.int64),
        label_names=samples.label_names,
        class_names=samples.class_names,
    )


def read_labelled(task: SequenceClassification, reading: Reading) -> Samples:
    """Texts or pairs with their labels; without, where the checkpoint's classes are not known.

    Raises:
        DataError: with every problem of the data.
    """
    table = reading.table
    drawn = draw_texts(task, table, reading.seed)
    found = _labels(task, reading, reading.label_names) if reading.label_names else None
    common = drawn.fields([table.rows[row].get(task.label) for row in drawn.kept])
    if found is None:
        return Samples(**common)
    return LabelledSamples(
        **common,
        labels=tuple(found.outputs[row] for row in drawn.kept),
        label_names=found.reader.names,
        reader=found.reader,
        label_note=found.note,
    )


@dataclass(frozen=True)
class _Labels:
    outputs: Sequence[int]
    """The checkpoint's output for each row."""
    reader: LabelReader
    note: str


def _labels(task: SequenceClassification, reading: Reading, label_names: Sequence[str]) -> _Labels:
    """Every row's label as an output of the checkpoint; whatever is wrong is said once."""
    table, teacher = reading.table, reading.teacher
    declared = table.class_names.get(task.label)
    values = [row.get(task.label) for row in table.rows]
    if reading.like is None or declared:
        chosen = choose_reading(
            values,
            reading.model,
            label_names,
            order=task.labels or declared,
            declared=declared is not None,
            teacher=teacher,
        )
        reader, problem, note = chosen.reader, chosen.problem, chosen.note
    else:
        reader, problem, note = reading.like, "", ""
    known = {label_key(value): reader.read(value) for value in distinct_labels(values)}
    found = [known[label_key(value)] for value in values]
    unknown = [row for row, output in enumerate(found) if output is None]
    _refuse_unlabelled(table, values, unknown)
    if unknown and not problem:
        first = f"{table.place(unknown[0])}: {json.dumps(values[unknown[0]], default=str)}"
        rows = f"{len(unknown)} of {len(values)} rows"
        why = f"the label of {rows} is none of them, the first {first}"
        problem = mismatch(distinct_labels(values), reader, why)
    refuse(table.source, [problem] if problem else [], next_step=labels_advice(reader, teacher))
    return _Labels([output for output in found if output is not None], reader, note)


def _refuse_unlabelled(table: DataTable, values: Sequence[object], unknown: Sequence[int]) -> None:
    """Rows without any label: missing ones, and the -1 of the hub's test splits."""
    rows = [row for row in unknown if form_of(values[row]) is None]
    step = "drop them, or give them labels"
    if not rows and unknown and all(values[row] in (-1, "-1") for row in unknown):
        rows = list(unknown)
        step = "label -1 marks an unlabelled split: take one with labels, such as validation"
    if rows:
        shown = json.dumps(values[rows[0]], default=str)
        first = f"{table.place(rows[0])}: {shown}"
        problem = f"{len(rows)} of {len(values)} rows have no label, the first {first}"
        refuse(table.source, [problem], next_step=step)

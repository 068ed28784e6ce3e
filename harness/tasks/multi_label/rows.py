"""The rows of a multi-label classification: its section of the study, rows read and encoded.

The whole column decides how it is read, never one row:

| a row's labels                                 | are                                           |
|------------------------------------------------|-----------------------------------------------|
| `["joy", "love"]`, `[3, 17]`, `"joy, love"`    | those                                         |
| `[]`, or an empty text in a CSV                | none                                          |
| `[0, 1, 0, 1]`, as long in every row, and some | the classes at the places of the ones         |
| number repeated in a row                       |                                               |
| one 0 or 1 in each of `label_columns`          | the classes of the columns that hold a 1      |

Lists of zeros and ones as long as there are classes, in none of which a number comes twice (`[0,
1]` and `[1, 0]` of two classes), could be either: they are refused. So is a missing value, which
may mean no label or that nobody looked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.tasks.classifiers import ClassDataset, ClassSamples, label_key, labels_advice
from harness.tasks.encoding import EncodedDataset, EncodedGroup, encode_texts, fields_of
from harness.tasks.labels import LabelReader, choose_reading, distinct_labels, mismatch
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.multi_label.section import MultiLabelClassification
from harness.tasks.multi_label.written import WrittenLabels, written_labels
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples, draw_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_LABEL = "(no label)"


@dataclass(frozen=True, kw_only=True)
class LabelSetSamples(ClassSamples):
    """Texts or pairs with any number of labels each."""

    labels: tuple[tuple[int, ...], ...]
    """Indexes of the checkpoint's outputs, ascending; a row without a label has none."""

    @property
    def undefined_metrics(self) -> Mapping[str, str]:
        """All but the share of rows that are right, where no row that was drawn has a label."""
        if any(self.labels):
            return {}
        of_labels = ("micro_f1", "macro_f1", "mean_average_precision")
        return dict.fromkeys(of_labels, "no row that was drawn has a label")

    @property
    def label_texts(self) -> tuple[str, ...]:
        """The names of each row's labels in one text."""
        return tuple(
            ", ".join(self.label_names[label] for label in row) or NO_LABEL for row in self.labels
        )


@rowwise
@dataclass(frozen=True)
class LabelSetGroup(EncodedGroup):
    """Samples of one padded length, and from which probability on they get a label."""

    threshold: float = field(default=0.5, metadata=OF_ALL)


@rowwise
@dataclass(frozen=True, kw_only=True)
class LabelSetDataset(ClassDataset):
    """The encoded texts with their labels."""

    labels: NDArray[np.bool_] = field(metadata=PER_ROW)
    """Whether each of the checkpoint's outputs is a label of the row, (size, labels)."""
    threshold: float = field(metadata=OF_ALL)
    """Probability from which on a label is given, between 0 and 1."""


def encode_label_sets(
    task: MultiLabelClassification,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    inputs: ModelInputs,
) -> EncodedDataset:
    """Texts as tensors, with their labels where these are known.

    Raises:
        DataError: the texts cannot be encoded.
    """
    encoded = encode_texts(task, samples, tokenizer, inputs)
    if not isinstance(samples, LabelSetSamples):
        return encoded
    labels = np.zeros((len(samples.labels), len(samples.label_names)), dtype=np.bool_)
    for row, outputs in enumerate(samples.labels):
        labels[row, list(outputs)] = True
    groups = tuple(
        LabelSetGroup(group.inputs, group.rows, task.threshold) for group in encoded.groups
    )
    return LabelSetDataset(
        **{**fields_of(encoded), "groups": groups},
        labels=labels,
        label_names=samples.label_names,
        class_names=samples.class_names,
        threshold=task.threshold,
    )


def read_label_sets(task: MultiLabelClassification, reading: Reading) -> Samples:
    """Texts or pairs with their labels; without, where the checkpoint's labels are not known.

    Raises:
        DataError: with every problem of the data.
    """
    table = reading.table
    drawn = draw_texts(task, table, reading.seed)
    columns = task.label_columns or [task.label]
    written = [[table.rows[row].get(column) for column in columns] for row in drawn.kept]
    if not reading.label_names:
        return Samples(**drawn.fields(written))
    labels = written_labels(table, task, reading.label_names)
    reader, note = _reader(labels, reading, reading.label_names)
    outputs = _outputs(table, task, labels, reader)
    return LabelSetSamples(
        **drawn.fields(written),
        labels=tuple(outputs[row] for row in drawn.kept),
        label_names=reader.names,
        reader=reader,
        label_note=note,
    )


def _reader(
    labels: WrittenLabels, reading: Reading, label_names: Sequence[str]
) -> tuple[LabelReader, str]:
    """How the labels are read for a checkpoint, and what to know of it."""
    if reading.like is not None and labels.order is None:
        return reading.like, ""
    chosen = choose_reading(
        labels.every,
        reading.model,
        label_names,
        order=labels.order,
        declared=labels.are_places,
        teacher=reading.teacher,
    )
    if chosen.problem:
        refuse(
            reading.table.source,
            [chosen.problem],
            next_step=labels_advice(chosen.reader, reading.teacher),
        )
    return chosen.reader, chosen.note


def _outputs(
    table: DataTable, task: MultiLabelClassification, labels: WrittenLabels, reader: LabelReader
) -> list[tuple[int, ...]]:
    """Each row's labels as outputs of the checkpoint.

    Raises:
        DataError: a label is none of the checkpoint's; or an output has no column of its own.
    """
    distinct = distinct_labels(labels.every)
    known = {label_key(value): reader.read(value) for value in distinct}
    unknown = [
        row
        for row, values in enumerate(labels.rows)
        if any(known[label_key(value)] is None for value in values)
    ]
    if unknown:
        shown = json.dumps(list(labels.rows[unknown[0]]), default=str, ensure_ascii=False)
        why = (
            f"{len(unknown)} of {len(labels.rows)} rows have others, the first "
            f"{table.place(unknown[0])}: {shown}"
        )
        step = labels_advice(reader, None)
        if task.label_columns is None and any(isinstance(value, str) for value in distinct):
            step += f"; in a text the task's separator, {task.separator!r}, stands between labels"
        refuse(table.source, [mismatch(distinct, reader, why)], next_step=step)
    if task.label_columns is not None:
        _refuse_untold(table, task, labels, reader)
    places = [{known[label_key(value)] for value in values} for values in labels.rows]
    return [tuple(sorted(place for place in row if place is not None)) for row in places]


def _refuse_untold(
    table: DataTable, task: MultiLabelClassification, labels: WrittenLabels, reader: LabelReader
) -> None:
    """An output without a column: nobody says whether its label is right."""
    told = {reader.read(name) for name in labels.order or ()}
    untold = [name for place, name in enumerate(reader.names) if place not in told]
    refuse(
        table.source,
        [f"no column of label_columns says whether '{name}' is a label" for name in untold],
        next_step=f"it has {', '.join(task.label_columns or ())}: add the columns of the model's "
        "other classes, or take a model of these classes alone",
    )

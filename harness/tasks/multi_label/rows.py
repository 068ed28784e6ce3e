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
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.system.strict import PositiveInt
from harness.tasks.encoding import EncodedDataset, EncodedGroup, encode_texts, fields_of
from harness.tasks.label_values import form_of, index_of
from harness.tasks.labels import LabelReader, choose_reading, distinct_labels, mismatch
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts, slice_columns
from harness.tasks.section import Data, PaddedSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MultiLabelClassification(PaddedSection):
    """Any number of labels for a text or a pair of texts."""

    kind: Literal["multi-label-classification"]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field(
        "labels",
        description="Column of a row's labels: a list of names or of class indexes, a list of one "
        "0 or 1 for each class, or a text in which `separator` stands between the names.",
    )
    separator: Annotated[str, Field(min_length=1)] = Field(
        ",", description="Separator between the labels, if a row's labels are one string."
    )
    label_columns: list[str] | None = Field(
        None,
        description="Instead of `label`: one column per class, holding 0 or 1.",
    )
    labels: list[str] | None = Field(
        None,
        description="Class names in the data's order (of `label_columns`: in theirs); default: the "
        "checkpoint's id2label.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="A label is assigned from this probability on (the sigmoid of its logit)."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most this many, drawn with the seed.")

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        columns, names = self.label_columns, self.labels
        if columns is None:
            return self
        if not columns:
            raise ValueError("label_columns is empty: name the columns, or leave it out")
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise ValueError(f"label_columns names {', '.join(repeated)} twice")
        if names is not None and len(names) != len(columns):
            raise ValueError(
                f"labels names {len(names)} classes and label_columns has {len(columns)} columns: "
                "they go together one by one"
            )
        return self


_LABELS_ADVICE = (
    'a row\'s labels are a list of names or of class indexes ([] for none), a text such as "a, b", '
    "or a list of one 0 or 1 for each class"
)


@dataclass(frozen=True)
class WrittenLabels:
    """The labels of every row, still as the data writes each."""

    rows: tuple[tuple[object, ...], ...]
    order: tuple[str, ...] | None
    """Class names in the data's order, where the study or the data names them."""
    are_places: bool
    """Whether they are places among the classes by their form, and never names."""

    @property
    def every(self) -> list[object]:
        """All labels of all rows, one after the other."""
        return [label for row in self.rows for label in row]


def written_labels(
    table: DataTable, task: MultiLabelClassification, classes: Sequence[str]
) -> WrittenLabels:
    """Find the labels of each row.

    Args:
        table: the data.
        task: which columns hold the labels.
        classes: what the checkpoint calls its outputs.

    Raises:
        DataError: with every row whose labels cannot be read; or where no row has any.
    """
    declared = table.class_names.get(task.label)
    order = tuple(task.labels or task.label_columns or declared or ()) or None
    if task.label_columns is not None:
        named = tuple(task.labels or task.label_columns)
        rows = _of_columns(table, task.label_columns, named)
        found = WrittenLabels(rows, order, are_places=False)
    else:
        rows = _of_cells(table, task)
        zeros_and_ones = declared is None and _are_zeros_and_ones(
            table, task, rows, order or tuple(classes)
        )
        if zeros_and_ones:
            rows = tuple(tuple(place for place, one in enumerate(row) if one) for row in rows)
        _refuse_repeated(table, task, rows)
        found = WrittenLabels(rows, order, are_places=zeros_and_ones or declared is not None)
    if not any(found.rows):
        where = task.label if task.label_columns is None else ", ".join(task.label_columns)
        refuse(table.source, [f"no row has a label ('{where}')"])
    return found


def _of_columns(
    table: DataTable, columns: Sequence[str], names: Sequence[str]
) -> tuple[tuple[object, ...], ...]:
    """The names of the columns that hold a 1, a row each."""
    problems, rows = [], []
    for place, row in enumerate(table.rows):
        held = {column: _flag(row.get(column)) for column in columns}
        wrong = [column for column, flag in held.items() if flag is None]
        problems += [
            f"{table.place(place)}: '{column}' is {_shown(row.get(column))}" for column in wrong
        ]
        rows.append(
            tuple(name for name, column in zip(names, columns, strict=True) if held[column])
        )
    refuse(
        table.source,
        problems,
        next_step="each of label_columns holds 0 or 1; drop rows without a label (-1)",
    )
    return tuple(rows)


def _flag(value: object) -> bool | None:
    """0 or 1, however it is written; None for anything else."""
    kind, _ = form_of(value) or ("", None)
    index = index_of(value) if kind in {"number", "truth"} else None
    return bool(index) if index in {0, 1} else None


def _of_cells(table: DataTable, task: MultiLabelClassification) -> tuple[tuple[object, ...], ...]:
    problems, rows = [], []
    for place, row in enumerate(table.rows):
        value = row.get(task.label)
        labels = _labels_of(value, task.separator)
        if labels is None or any(form_of(one) is None for one in labels):
            problems.append(f"{table.place(place)}: '{task.label}' is {_shown(value)}")
        rows.append(tuple(labels or ()))
    refuse(table.source, problems, next_step=_LABELS_ADVICE)
    return tuple(rows)


def _labels_of(value: object, separator: str) -> Sequence[object] | None:
    """The labels in a cell, in any of its forms; None where it has none of them."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator)] if value.strip() else []
    if isinstance(value, Mapping) or value is None:
        return None
    if isinstance(value, Sequence):
        return list(value)
    return [value] if form_of(value) else None


def _are_zeros_and_ones(
    table: DataTable,
    task: MultiLabelClassification,
    rows: Sequence[Sequence[object]],
    classes: Sequence[str],
) -> bool:
    """Whether each row has one 0 or 1 for each class.

    Raises:
        DataError: it may be so, or the rows may name classes; or there are more or fewer than
            classes.
    """
    lengths = {len(row) for row in rows}
    numbers = all(
        not isinstance(one, str) and _flag(one) is not None for row in rows for one in row
    )
    if len(lengths) != 1 or not numbers or lengths == {0}:
        return False
    (length,) = lengths
    repeats = any(len({index_of(one) for one in row}) < length for row in rows)
    if not repeats and length != len(classes):
        return False
    if repeats and length == len(classes):
        return True
    what = f"every '{task.label}' has {length} numbers, all of them 0 or 1"
    if not repeats:
        problem = f"{what}: one for each of {length} classes, or the indexes of classes?"
        step = "write names, or give each class its own column (label_columns)"
    else:
        problem = f"{what}, but there are {len(classes)} classes: {', '.join(classes[:20])}"
        step = "name the classes of the data, in its order, in the task's 'labels'"
    refuse(table.source, [problem], next_step=step)
    return False


def _refuse_repeated(
    table: DataTable, task: MultiLabelClassification, rows: Sequence[Sequence[object]]
) -> None:
    problems = []
    for place, row in enumerate(rows):
        forms = [form_of(one) for one in row]
        twice = [one for one, form in zip(row, forms, strict=True) if forms.count(form) > 1]
        if twice:
            problems.append(f"{table.place(place)}: '{task.label}' has {_shown(twice[0])} twice")
    refuse(
        table.source,
        problems,
        next_step="a label is there or not; zeros and ones for each class are read from lists of "
        "equal length, or from label_columns",
    )


def _shown(value: object) -> str:
    return "missing" if value is None else json.dumps(value, default=str, ensure_ascii=False)[:60]


NO_LABEL = "(no label)"


@dataclass(frozen=True, kw_only=True)
class LabelSetSamples(Samples):
    """Texts or pairs with any number of labels each."""

    labels: tuple[tuple[int, ...], ...]
    """Indexes of the checkpoint's outputs, ascending; a row without a label has none."""
    label_names: tuple[str, ...]
    """What the checkpoint calls its outputs (else the data), in their order."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What each output stands for, in the words of the family's teacher."""
        return self.reader.class_names if self.reader else self.label_names

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
class LabelSetDataset(EncodedDataset):
    """The encoded texts with their labels."""

    labels: NDArray[np.bool_] = field(metadata=PER_ROW)
    """Whether each of the checkpoint's outputs is a label of the row, (size, labels)."""
    label_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What the checkpoint calls its outputs (else the data), in their order."""
    class_names: tuple[str, ...] = field(metadata=OF_ALL)
    """What each output stands for in the words of the family's teacher, by which models are
    compared."""
    threshold: float = field(metadata=OF_ALL)
    """From which probability on a label is given, between 0 and 1."""

    @property
    def width(self) -> int:
        """Number of labels."""
        return len(self.label_names)


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
    texts, *pairs = read_texts(
        table, (task.text, task.text_pair) if task.text_pair else (task.text,)
    )
    kept = draw(len(texts), task.samples, reading.seed)
    drawn = tuple(texts[row] for row in kept)
    drawn_pairs = tuple(pairs[0][row] for row in kept) if pairs else None
    columns = task.label_columns or [task.label]
    written = [[table.rows[row].get(column) for column in columns] for row in kept]
    common: dict[str, Any] = {
        "texts": drawn,
        "pairs": drawn_pairs,
        "digest": digest_of(drawn, drawn_pairs, written),
        "rows": tuple(kept),
        "seed": reading.seed,
        "columns": slice_columns(table, task, kept),
    }
    if not reading.label_names:
        return Samples(**common)
    labels = written_labels(table, task, reading.label_names)
    reader, note = _reader(labels, reading, reading.label_names)
    outputs = _outputs(table, task, labels, reader)
    return LabelSetSamples(
        **common,
        labels=tuple(outputs[row] for row in kept),
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
            next_step=_advice(chosen.reader, reading.teacher),
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
    known = {_key(value): reader.read(value) for value in distinct}
    unknown = [
        row
        for row, values in enumerate(labels.rows)
        if any(known[_key(value)] is None for value in values)
    ]
    if unknown:
        shown = json.dumps(list(labels.rows[unknown[0]]), default=str, ensure_ascii=False)
        why = (
            f"{len(unknown)} of {len(labels.rows)} rows have others, the first "
            f"{table.place(unknown[0])}: {shown}"
        )
        step = _advice(reader, None)
        if task.label_columns is None and any(isinstance(value, str) for value in distinct):
            step += f"; in a text the task's separator, {task.separator!r}, stands between labels"
        refuse(table.source, [mismatch(distinct, reader, why)], next_step=step)
    if task.label_columns is not None:
        _refuse_untold(table, task, labels, reader)
    places = [{known[_key(value)] for value in values} for values in labels.rows]
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


def _key(value: object) -> tuple[type, str]:
    return type(value), repr(value)


def _advice(reader: LabelReader, teacher: LabelReader | None) -> str:
    """What the task's `labels` would have to say."""
    named = teacher if teacher and teacher.is_named and not reader.is_named else reader
    return (
        "a label is a name of a class or an index; set the task's 'labels' to the names of the "
        f"classes, in the data's order: a permutation of [{', '.join(named.names)}]"
    )

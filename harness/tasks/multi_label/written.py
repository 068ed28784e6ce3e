"""The labels of every row as the data writes them: a list, a text, a column for each label."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.tasks.label_values import form_of, index_of
from harness.tasks.multi_label.section import MultiLabelClassification
from harness.tasks.rows import DataTable, refuse
from harness.tasks.spelt_lists import AS_JSON, spelt

_LABELS_ADVICE = (
    'a row\'s labels are a list of names or of class indexes ([] for none), a text such as "a, b", '
    f"or a list of one 0 or 1 for each class; {AS_JSON}"
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


def column_of_labels(
    table: DataTable, taken: Collection[str], classes: Sequence[str], separator: str
) -> str | None:
    """The one column in which every row has names of classes, or nothing; None if not just one."""
    known = set(classes)
    found = []
    for column in table.columns:
        rows = [_labels_of(row.get(column), separator) for row in table.rows]
        named = [row is not None and all(str(one) in known for one in row) for row in rows]
        if column not in taken and all(named) and any(rows):
            found.append(column)
    return found[0] if len(found) == 1 else None


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
            value = spelt(value)
        except ValueError:
            return None
        if isinstance(value, str):
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
    numbers = all(_flag(one) is not None for row in rows for one in row)
    if len(lengths) != 1 or not numbers or lengths == {0}:
        return False
    (length,) = lengths
    repeats = any(len({index_of(one) for one in row}) < length for row in rows)
    if not repeats and length != len(classes):
        return False
    if repeats and any(isinstance(one, str) for row in rows for one in row):
        return False  # in texts they are not read: a number that is there twice is refused
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

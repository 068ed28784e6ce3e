"""Which column of a data file is which key of a task's section: by its name, or what it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.tasks.family import AnyFamily
from harness.tasks.label_values import listed
from harness.tasks.labels import choose_reading
from harness.tasks.rows import DataTable

MEASURED_ROWS = 2000
"""How many of the data's first rows are looked at."""

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "review", "content", "body", "message", "document", "comment"),
    "label": ("label", "labels", "class", "category", "target", "sentiment", "topic", "kind"),
    "question": ("question", "query"),
    "context": ("context", "passage", "paragraph"),
    "answers": ("answers", "answer"),
    "prompt": ("article", "document", "dialogue", "source", "text", "question", "instruction"),
    "reference": ("summary", "highlights", "target", "answer", "response", "output"),
}
"""What columns are called elsewhere, by a section's key; the section's own default comes first."""
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"),
    ("question", "sentence"), ("question", "passage"), ("query", "passage"),
    ("query", "document"), ("text1", "text2"), ("text_a", "text_b"), ("text", "text_pair"),
    ("first", "second"), ("anchor", "positive"),
)  # fmt: skip
"""Columns that are the two texts of a pair where both are there."""


@dataclass(frozen=True)
class Labels:
    """Whose classes a column of labels is held against."""

    model: str
    """The teacher, for messages."""
    names: tuple[str, ...] | None
    """Names of the checkpoint's outputs; None where they have none."""
    order: tuple[str, ...] = ()
    """Names of the classes in the data's order, where a person says them."""


def find_columns(
    family: AnyFamily,
    keys: Mapping[str, str | None],
    table: DataTable,
    named: Mapping[str, str],
    labels: Labels,
) -> dict[str, Any]:
    """The column of each of a task's keys; of a column for each label, all of them.

    Args:
        family: of the task.
        keys: the section's, with the column that each names where nobody says otherwise.
        table: the data.
        named: columns that a person named, by key.
        labels: whose classes a column of labels holds.

    Raises:
        UsageError: a key or column that does not exist, or a key for which no column is found.
    """
    said = dict(named)
    unknown = [f"{key}={column}" for key, column in said.items() if key not in keys]
    absent = [f"{key}={one}" for key, one in said.items() if one not in table.columns]
    if unknown or absent:
        raise UsageError(
            f"--column {(unknown or absent)[0]}: "
            + ("the task has no such key" if unknown else "the data has no such column"),
            next_step=f"KEY is one of {', '.join(keys)}; COLUMN one of {', '.join(table.columns)}",
        )
    if "text_pair" in keys and not {"text", "text_pair"} & set(said):
        pair = next((pair for pair in PAIRS if set(pair) <= set(table.columns)), None)
        said |= dict(zip(("text", "text_pair"), pair, strict=True)) if pair else {}
    said |= family.recognise(table, said, labels.names)
    several = _label_columns(family, said, table, labels)
    for key, default in keys.items():
        if key in said or default is None or (several and key == "label"):
            continue
        taken = set(said.values()) | set(several)
        said[key] = _column(key, default, table, labels, taken)
    found: dict[str, Any] = {key: said[key] for key in keys if key in said}
    return found | ({"label_columns": several} if several else {})


def _label_columns(
    family: AnyFamily, said: Mapping[str, str], table: DataTable, labels: Labels
) -> list[str]:
    """One column for each of the labels of a task that may give several; none where they lack."""
    names = labels.names or ()
    several = "label_columns" in family.section.model_fields
    whole = bool(names) and set(names) <= set(table.columns)
    return list(names) if several and whole and "label" not in said else []


def _column(key: str, default: str, table: DataTable, labels: Labels, taken: set[str]) -> str:
    """Find a column by its name, else a label by the teacher's classes, a text by its length."""
    free = [one for one in table.columns if one not in taken]
    by_name = {one.casefold(): one for one in reversed(free)}
    for name in (default, *SYNONYMS.get(key, ())):
        if name in by_name:
            return by_name[name]
    nearest = ""
    if key == "label":
        fitting = [one for one in free if _fits(table, one, labels)]
        if len(fitting) == 1:
            _check_header(table, fitting[0])
            return fitting[0]
        numbers = [one for one in free if _is_numeric(table, one)]
        if labels.names is None and len(numbers) == 1:
            return numbers[0]
        nearest = _several(fitting, labels) or _nearest(table, free, labels)
    if key == "text":
        lengths = {one: _mean_length(table, one) for one in free}
        longest = max(lengths, key=lambda one: lengths[one], default="")
        if lengths.get(longest):
            return longest
    raise UsageError(
        f"{table.source}: it is not clear which column is the task's '{key}'; its columns are "
        f"{', '.join(table.columns)}{nearest}",
        next_step=f"name it: --column {key}=COLUMN",
    )


def _several(fitting: Sequence[str], labels: Labels) -> str:
    """The columns that hold nothing but the teacher's classes; empty where there is none."""
    return f". {listed(fitting)} hold classes of {labels.model} alike" if fitting else ""


def _nearest(table: DataTable, columns: Sequence[str], labels: Labels) -> str:
    """The column of which most rows hold the teacher's classes, and the first that does not."""
    if labels.names is None:
        return ""
    own = set(labels.names)
    others = {
        column: [row for row, values in enumerate(table.rows) if values.get(column) not in own]
        for column in columns
    }
    best = min(others, key=lambda column: len(others[column]), default="")
    if not best or not others[best] or 2 * len(others[best]) > len(table.rows):
        return ""
    first = others[best][0]
    return (
        f". '{best}' holds classes of {labels.model} but for {len(others[best])} of "
        f"{len(table.rows)} rows, the first {table.place(first)}: "
        f"{table.rows[first].get(best)!r}"
    )


def _fits(table: DataTable, column: str, labels: Labels) -> bool:
    """Whether a column holds nothing but the teacher's classes."""
    names = labels.names
    values = [row.get(column) for row in table.rows]
    if names is None or any(isinstance(value, list | dict) for value in values):
        return False
    reading = choose_reading(values, labels.model, names, order=labels.order or None)
    distinct = {(type(value), value): value for value in values}.values()
    return not reading.problem and all(reading.reader.read(one) is not None for one in distinct)


def _check_header(table: DataTable, column: str) -> None:
    """Raises UsageError where a column that was found by its values is called like one of them."""
    if any(row.get(column) == column for row in table.rows):
        raise UsageError(
            f"{table.source}: the first line should name the columns, and '{column}' there is "
            "also a value of its column: is the line missing?",
            next_step=f"put one above it, such as text,label; or say --column label={column}",
        )


def _is_numeric(table: DataTable, column: str) -> bool:
    """Whether a column holds nothing but numbers, not all of them whole: no ids."""
    try:
        values = [float(str(row.get(column))) for row in table.rows]
    except ValueError:
        return False
    return not all(value.is_integer() for value in values)


def _mean_length(table: DataTable, column: str) -> float:
    """Mean length in characters; 0 for a column that is not all text, or is all numbers."""
    values = [row.get(column) for row in table.rows[:MEASURED_ROWS]]
    if not all(isinstance(value, str) for value in values):
        return 0.0
    if not any(letter.isalpha() for value in values for letter in str(value)):
        return 0.0
    return float(np.mean([len(str(value)) for value in values]))

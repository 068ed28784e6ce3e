"""The samples of a task: texts, pairs and labels, read, checked and drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.study import (
    CausalLanguageModelling,
    QuestionAnswering,
    SequenceClassification,
    Task,
)
from harness.tasks.label_values import form_of
from harness.tasks.labels import LabelReader, choose_reading, distinct_labels, mismatch
from harness.tasks.question_answering import check_answers, read_answers
from harness.tasks.rows import Table, read_table, refuse


@dataclass(frozen=True)
class Samples:
    """What the model is asked, in the data's order."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    """Second texts, aligned with `texts`; None for single texts."""
    labels: tuple[int, ...] | None
    """Indexes into the checkpoint's outputs; None where the task has no labels."""
    label_names: tuple[str, ...] | None
    """Class names in the checkpoint's order; None when nobody names the classes."""
    digest: str
    """Of texts and labels as the data has them: the same whatever checkpoint they are read for."""
    rows: tuple[int, ...]
    """Position of each sample among all rows of the source, counted from 0."""
    seed: int
    """For draws that come after tokenising (windows of running text)."""
    answers: tuple[tuple[str, ...], ...] | None = None
    """Question answering, whose `texts` are the questions and `pairs` the contexts: the right
    answers."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of the columns that the task slices by, as text, aligned with `texts`."""
    reader: LabelReader | None = None
    """How `labels` were read; None where the task has none."""
    label_note: str = ""
    """What a person should know of that; empty for the plain case."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """What each output stands for, in the words of the family's teacher."""
        return self.reader.class_names if self.reader else self.label_names


def load_samples(  # noqa: PLR0913  (what is read, and for whom)
    task: Task,
    *,
    seed: int,
    label_names: Sequence[str] | None,
    data_file: Path | None = None,
    model: str = "the model",
    teacher: LabelReader | None = None,
    like: LabelReader | None = None,
    table: Table | None = None,
) -> Samples:
    """Read and check the samples of a task.

    Labels are mapped to the order of `label_names`, so load once per checkpoint: two checkpoints
    of one family may number their classes differently.

    Args:
        task: the study's section.
        seed: draws `task.samples` of the rows where there are more.
        label_names: the checkpoint's id2label, in order; names like LABEL_0 count as no names.
            None where they are not known: labels are then left out.
        data_file: where the rows of `source: reference` lie.
        model: whose classes they are, for messages.
        teacher: how the same labels were read for the family's teacher; None for the teacher's.
        like: read the labels as another column of the same data was, rather than by their own.
        table: the task's rows, where they have been read already.

    Raises:
        DataError: with every problem of the data: missing columns, wrong types, unknown labels.
    """
    table = read_table(task.data, data_file) if table is None else table
    _check_columns(table, task)
    if isinstance(task, QuestionAnswering):
        return _questions(table, task, seed)
    if not isinstance(task, SequenceClassification):
        return _documents(table, task, seed)
    texts, *pairs = _texts(table, (task.text, task.text_pair) if task.text_pair else (task.text,))
    found = _labels(table, task, label_names, model, teacher, like) if label_names else None
    kept = _draw(len(texts), task.samples, seed)
    written = [table.rows[row][task.label] for row in kept]
    drawn_pairs = [pairs[0][row] for row in kept] if pairs else None
    drawn = [texts[row] for row in kept]
    return Samples(
        texts=tuple(drawn),
        pairs=tuple(drawn_pairs) if drawn_pairs is not None else None,
        labels=tuple(found.outputs[row] for row in kept) if found else None,
        label_names=found.reader.names if found else None,
        digest=_digest(drawn, drawn_pairs, written),
        rows=tuple(kept),
        seed=seed,
        columns=_slice_columns(table, task, kept),
        reader=found.reader if found else None,
        label_note=found.note if found else "",
    )


def _documents(table: Table, task: CausalLanguageModelling, seed: int) -> Samples:
    """Every row: a language model's windows are drawn when they are cut."""
    texts = _texts(table, (task.text,))[0]
    return Samples(
        texts=tuple(texts),
        pairs=None,
        labels=None,
        label_names=None,
        digest=_digest(texts),
        rows=tuple(range(len(texts))),
        seed=seed,
        columns=_slice_columns(table, task, range(len(texts))),
    )


def _questions(table: Table, task: QuestionAnswering, seed: int) -> Samples:
    questions, contexts = _texts(table, (task.question, task.context))
    answers = read_answers(table, task)
    check_answers(table, contexts, answers)
    kept = _draw(len(questions), task.samples, seed)
    drawn = [questions[row] for row in kept]
    drawn_contexts = [contexts[row] for row in kept]
    drawn_answers = [answers[row] for row in kept]
    return Samples(
        texts=tuple(drawn),
        pairs=tuple(drawn_contexts),
        labels=None,
        label_names=None,
        digest=_digest(drawn, drawn_contexts, drawn_answers),
        rows=tuple(kept),
        seed=seed,
        answers=tuple(drawn_answers),
    )


def load_training_samples(
    task: Task,
    *,
    label_names: Sequence[str] | None,
    data_file: Path | None = None,
    like: LabelReader | None = None,
) -> Samples | None:
    """All rows that a task's models were trained on; None where the study does not name them.

    Args:
        task: the study's section.
        label_names: the checkpoint's id2label, in order.
        data_file: where the training rows of `source: reference` lie.
        like: how the labels of the task's own data were read for that checkpoint.

    Raises:
        DataError: as `load_samples`.
    """
    data = task.training_data or (task.data if data_file else None)
    if data is None:
        return None
    whole = task.model_copy(update={"data": data, "samples": None})
    return load_samples(whole, seed=0, label_names=label_names, data_file=data_file, like=like)


def _check_columns(table: Table, task: Task) -> None:
    keys: tuple[str, ...]
    if isinstance(task, QuestionAnswering):
        keys = ("question", "context", "answers")
    elif isinstance(task, SequenceClassification):
        keys = ("text", "text_pair", "label")
    else:
        keys = ("text",)
    named = [
        *((key, getattr(task, key)) for key in keys),
        *(("slices", one) for one in task.slices),
    ]
    missing = [
        f"no column '{column}' (the task's '{key}')"
        for key, column in named
        if column and column not in table.columns
    ]
    refuse(table.source, missing, next_step=f"its columns are: {', '.join(table.columns)}")


def _slice_columns(table: Table, task: Task, kept: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """A missing value reads as nothing."""
    return {
        column: tuple(
            "" if (value := table.rows[row].get(column)) is None else str(value) for row in kept
        )
        for column in task.slices
    }


def _texts(table: Table, columns: Sequence[str]) -> list[list[str]]:
    texts: list[list[str]] = []
    problems = []
    for column in columns:
        values = [row.get(column) for row in table.rows]
        problems += [
            f"{table.place(row)}: '{column}' {fault}"
            for row, value in enumerate(values)
            if (fault := _fault(value))
        ]
        texts.append([str(value) for value in values])
    refuse(table.source, problems)
    if not any(text.strip() for text in texts[0]):
        refuse(table.source, [f"every '{columns[0]}' is empty"])
    return texts


def _fault(value: object) -> str:
    """What is wrong with a text; empty when nothing is."""
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"is no text but {json.dumps(value, default=str)[:40]}"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no character"
    return ""


@dataclass(frozen=True)
class _Labels:
    outputs: Sequence[int]
    """Of the checkpoint, a row each."""
    reader: LabelReader
    note: str


def _labels(
    table: Table,
    task: SequenceClassification,
    label_names: Sequence[str],
    model: str,
    teacher: LabelReader | None,
    like: LabelReader | None,
) -> _Labels:
    """Every row's label as an output of the checkpoint; whatever is wrong is said once."""
    declared = table.class_names.get(task.label)
    values = [row.get(task.label) for row in table.rows]
    if like is None or declared:
        reading = choose_reading(
            values,
            model,
            label_names,
            order=task.labels or declared,
            declared=declared is not None,
            teacher=teacher,
        )
        reader, problem, note = reading.reader, reading.problem, reading.note
    else:
        reader, problem, note = like, "", ""
    known = {_key(value): reader.read(value) for value in distinct_labels(values)}
    found = [known[_key(value)] for value in values]
    unknown = [row for row, output in enumerate(found) if output is None]
    _refuse_unlabelled(table, values, unknown)
    if unknown and not problem:
        first = f"{table.place(unknown[0])}: {json.dumps(values[unknown[0]], default=str)}"
        why = f"{len(unknown)} of {len(values)} rows hold none of them, the first {first}"
        problem = mismatch(distinct_labels(values), reader, why)
    refuse(table.source, [problem] if problem else [], next_step=_label_advice(reader, teacher))
    return _Labels([output for output in found if output is not None], reader, note)


def _key(value: object) -> tuple[type, str]:
    return type(value), repr(value)


def _refuse_unlabelled(table: Table, values: Sequence[object], unknown: Sequence[int]) -> None:
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


def _label_advice(reader: LabelReader, teacher: LabelReader | None) -> str:
    """What the task's `labels` would have to say."""
    named = teacher if teacher and teacher.is_named and not reader.is_named else reader
    example = ", ".join(named.names)
    return (
        "a label is a name of a class or an index; set the task's 'labels' to the names of the "
        f"classes, in the data's order: a permutation of [{example}]"
    )


def _draw(available: int, wanted: int | None, seed: int) -> Sequence[int]:
    """Positions of at most `wanted` rows, drawn without replacement, in the data's order."""
    if wanted is None or wanted >= available:
        return range(available)
    drawn = np.random.default_rng(seed).choice(available, wanted, replace=False)
    return [int(row) for row in np.sort(drawn)]


def _digest(*columns: Sequence[object] | None) -> str:
    content = json.dumps(columns, default=str, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()

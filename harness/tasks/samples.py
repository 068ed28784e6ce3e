"""The samples of a task: texts, pairs and labels, read, checked and drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.study import QuestionAnswering, SequenceClassification, Task
from harness.tasks.labels import make_reader, mismatch
from harness.tasks.question_answering import check_answers, read_answers
from harness.tasks.tables import Table, read_table, refuse


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


def load_samples(
    task: Task,
    *,
    seed: int,
    label_names: Sequence[str] | None,
    data_file: Path | None = None,
) -> Samples:
    """Read and check the samples of a task.

    Labels are mapped to the order of `label_names`, so load once per checkpoint: two checkpoints
    of one family may number their classes differently.

    Args:
        task: the study's section.
        seed: draws `task.samples` of the rows where there are more.
        label_names: the checkpoint's id2label, in order; names like LABEL_0 count as no names.
        data_file: where the rows of `source: reference` lie.

    Raises:
        DataError: with every problem of the data: missing columns, wrong types, unknown labels.
    """
    table = read_table(task.data, data_file)
    _check_columns(table, task)
    if isinstance(task, QuestionAnswering):
        return _questions(table, task, seed)
    if not isinstance(task, SequenceClassification):
        texts = _texts(table, (task.text,))[0]
        return Samples(
            texts=tuple(texts),
            pairs=None,
            labels=None,
            label_names=None,
            digest=_digest(texts),
            rows=tuple(range(len(texts))),
            seed=seed,
        )
    texts, *pairs = _texts(table, (task.text, task.text_pair) if task.text_pair else (task.text,))
    labels, names = _labels(table, task, label_names)
    kept = _draw(len(texts), task.samples, seed)
    written = [table.rows[row][task.label] for row in kept]
    drawn_pairs = [pairs[0][row] for row in kept] if pairs else None
    drawn = [texts[row] for row in kept]
    return Samples(
        texts=tuple(drawn),
        pairs=tuple(drawn_pairs) if drawn_pairs is not None else None,
        labels=tuple(labels[row] for row in kept),
        label_names=names,
        digest=_digest(drawn, drawn_pairs, written),
        rows=tuple(kept),
        seed=seed,
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


def _check_columns(table: Table, task: Task) -> None:
    keys: tuple[str, ...]
    if isinstance(task, QuestionAnswering):
        keys = ("question", "context", "answers")
    elif isinstance(task, SequenceClassification):
        keys = ("text", "text_pair", "label")
    else:
        keys = ("text",)
    wanted = {key: getattr(task, key) for key in keys}
    missing = [
        f"no column '{column}' (the task's '{key}')"
        for key, column in wanted.items()
        if column and column not in table.columns
    ]
    refuse(table.source, missing, next_step=f"its columns are: {', '.join(table.columns)}")


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


def _labels(
    table: Table, task: SequenceClassification, label_names: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    written = task.labels or table.class_names.get(task.label)
    reader, problem = make_reader(written, label_names)
    refuse(
        table.source,
        [problem] if problem else [],
        next_step="set the task's 'labels' to the checkpoint's names, in the data's order",
    )
    values = [row.get(task.label) for row in table.rows]
    found = [reader.read(value) for value in values]
    unknown = [row for row, index in enumerate(found) if index is None]
    problems = [
        f"{table.place(row)}: unknown label {json.dumps(values[row], default=str)}"
        for row in unknown
    ]
    if unknown and reader.names:
        distinct = sorted({str(value) for value in values})
        problems.insert(0, mismatch(distinct[:20], reader.names))
    refuse(table.source, problems, next_step=_label_advice(values, unknown, reader.allowed))
    labels = [index for index in found if index is not None]
    return labels, reader.names or (tuple(label_names) if label_names else None)


def _label_advice(values: Sequence[object], unknown: Sequence[int], allowed: str) -> str:
    if unknown and all(values[row] in (-1, "-1") for row in unknown):
        return "label -1 marks an unlabelled split: take one with labels, such as validation"
    return f"a label may be: {allowed}; the task's 'labels' names classes in the data's order"


def _draw(available: int, wanted: int | None, seed: int) -> Sequence[int]:
    """Positions of at most `wanted` rows, drawn without replacement, in the data's order."""
    if wanted is None or wanted >= available:
        return range(available)
    drawn = np.random.default_rng(seed).choice(available, wanted, replace=False)
    return [int(row) for row in np.sort(drawn)]


def _digest(*columns: Sequence[object] | None) -> str:
    content = json.dumps(columns, default=str, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()

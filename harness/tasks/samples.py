"""The samples of a task: what a model is asked, as the data has it, checked and drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from harness.errors import DataError
from harness.tasks.labels import LabelReader
from harness.tasks.rows import DataTable, refuse


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the model is asked, in the data's order; a family adds what its rows have beside."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    """Second texts, aligned with `texts`; None for single texts."""
    digest: str
    """Digest of texts and labels as the data has them: the same whatever checkpoint they are read
    for."""
    rows: tuple[int, ...]
    """Position of each sample among all rows of the source, counted from 0."""
    seed: int
    """Seed of draws that come after tokenising (windows of running text)."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values of the columns that the task slices by, as text, aligned with `texts`."""
    reader: LabelReader | None = None
    """How labels were read, for those of other models to agree with; None without labels."""
    label_note: str = ""
    """What a person should know of that; empty for the plain case."""

    @property
    def undefined_metrics(self) -> Mapping[str, str]:
        """Metrics that no model can have on these samples, and why: a family's own."""
        return {}

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """Equal for samples that one tokenizer encodes to equal data sets.

        That is what the data has, and all that the family adds; not whose labels they are called
        by.
        """
        known = {one.name for one in fields(Samples)}
        own = tuple(getattr(self, one.name) for one in fields(self) if one.name not in known)
        names = self.reader.class_names if self.reader else ()
        return (self.digest, self.rows, self.seed, names, *own)


class TextsTask(Protocol):
    """A section of a study whose rows are texts or pairs of texts."""

    @property
    def text(self) -> str:
        """Column of the text; of a pair: the first."""

    @property
    def text_pair(self) -> str | None:
        """Column of the second text of a pair; None for single texts."""

    @property
    def samples(self) -> int | None:
        """The most rows that are drawn; None: all."""

    @property
    def slices(self) -> Sequence[str]:
        """Columns by whose values quality is divided."""


@dataclass(frozen=True)
class DrawnTexts:
    """The texts or pairs of a table, with the rows that were drawn."""

    kept: Sequence[int]
    """Positions of the rows that were drawn, ascending."""
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    seed: int
    columns: Mapping[str, tuple[str, ...]]
    """Values of the columns that the task slices by, aligned with `texts`."""

    def fields(self, written: Sequence[object]) -> dict[str, Any]:
        """The fields of `Samples`, but for those of labels.

        Args:
            written: the label of each drawn row as the data writes it, for the digest.
        """
        return {
            "texts": self.texts,
            "pairs": self.pairs,
            "digest": digest_of(self.texts, self.pairs, written),
            "rows": tuple(self.kept),
            "seed": self.seed,
            "columns": self.columns,
        }


def draw_texts(task: TextsTask, table: DataTable, seed: int) -> DrawnTexts:
    """Check the texts of all rows, and draw as many as the task wants.

    Raises:
        DataError: with every row that holds no text.
    """
    texts, *pairs = read_texts(
        table, (task.text, task.text_pair) if task.text_pair else (task.text,)
    )
    kept = draw(len(texts), task.samples, seed)
    return DrawnTexts(
        kept=kept,
        texts=tuple(texts[row] for row in kept),
        pairs=tuple(pairs[0][row] for row in kept) if pairs else None,
        seed=seed,
        columns=slice_columns(table, task.slices, kept),
    )


def slice_columns(
    table: DataTable, columns: Sequence[str], kept: Sequence[int]
) -> dict[str, tuple[str, ...]]:
    """Values of the columns that a task slices by, of the rows kept; a missing one is empty.

    Raises:
        DataError: with every value that no file can hold.
    """
    found = {
        column: tuple(
            "" if (value := table.rows[row].get(column)) is None else str(value) for row in kept
        )
        for column in columns
    }
    problems = [
        f"{table.place(row)}: '{column}' {_HALF_A_PAIR}"
        for column, values in found.items()
        for row, value in zip(kept, values, strict=True)
        if not is_whole(value)
    ]
    refuse(table.source, problems)
    return found


def read_texts(table: DataTable, columns: Sequence[str]) -> list[list[str]]:
    """All rows of columns of text, a list a column.

    Raises:
        DataError: with every row that holds no text, or where the first column is all empty.
    """
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
        return f"is not text but {json.dumps(value, default=str)[:40]}"
    return "" if is_whole(value) else _HALF_A_PAIR


_HALF_A_PAIR = "holds half a surrogate pair, which is not a character"


def is_whole(text: str) -> bool:
    """Whether a text is made of characters; JSON may hold half of one, as a cut emoji is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def draw(available: int, wanted: int | None, seed: int) -> Sequence[int]:
    """Positions of at most `wanted` rows, drawn without replacement, in the data's order."""
    if wanted is None or wanted >= available:
        return range(available)
    drawn = np.random.default_rng(seed).choice(available, wanted, replace=False)
    return [int(row) for row in np.sort(drawn)]


def digest_of(*columns: Sequence[object] | None) -> str:
    """SHA-256 of columns of samples, as the data has them.

    Raises:
        DataError: one holds half a character.
    """
    content = json.dumps(columns, default=str, ensure_ascii=False)
    try:
        return hashlib.sha256(content.encode()).hexdigest()
    except UnicodeEncodeError as error:
        around = content[max(0, error.start - 30) : error.start]
        raise DataError(f"the data {_HALF_A_PAIR}, behind {around!r}") from error

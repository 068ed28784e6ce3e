"""What a variant answered to each row of the test split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import RunFolderError
from harness.system.storage import whole_file
from harness.tasks.encoding import EncodedDataset
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise

NO_PREDICTION = -1
"""Stands where a class index would, for an unanswered row."""


@rowwise
@dataclass(frozen=True)
class Outcomes:
    """One entry a row of the test split, in the data set's order."""

    variant: str = field(metadata=OF_ALL)
    sha256: str = field(metadata=OF_ALL)
    """Of the artefact that answered; empty for a baseline that is not served."""
    predictions: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Class indices, `NO_PREDICTION` where unanswered; None for a language model."""
    correct: NDArray[np.bool_] | None = field(metadata=PER_ROW)
    """An unanswered row is not correct."""
    log_likelihood: NDArray[np.float64] | None = field(metadata=PER_ROW)
    """Natural logarithm, of a window's scored tokens; NaN where unanswered. None for a
    classifier, as are `tokens` and `bytes`."""
    tokens: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Scored tokens a window: all real ones but the first, which nothing precedes."""
    bytes: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """UTF-8 bytes that the scored tokens stand for."""
    unanswered: NDArray[np.bool_] = field(metadata=PER_ROW)
    """The request failed, or the answer held no numbers."""
    words: NDArray[np.int64] | None = field(default=None, metadata=PER_ROW)
    """Words that end in those bytes."""
    f1: NDArray[np.float64] | None = field(default=None, metadata=PER_ROW)
    """Question answering, one entry a question: overlap with the right answer, 0 to 1, beside
    `correct`, which is then an exact match."""
    answers: tuple[str, ...] | None = field(default=None, metadata=PER_ROW)
    """Question answering: the spans found, empty for none."""
    logits: NDArray[np.float32] | None = field(default=None, metadata=PER_ROW)
    """A classifier's, (rows, classes), in the order of `label_names`; NaN where unanswered."""
    label_names: tuple[str, ...] | None = field(default=None, metadata=OF_ALL)
    """What each of the checkpoint's outputs stands for, in the words of the family's teacher:
    equal for equal classes, whatever the checkpoints call them."""
    greedy: tuple[NDArray[np.int64], ...] | None = field(default=None, metadata=PER_ROW)
    """A language model's likeliest token in the place of each scored one, a row each; empty where
    unanswered."""
    groups: NDArray[np.int64] | None = field(default=None, metadata=PER_ROW)
    """Which rows belong together: a window's document, a question's context. None where each row
    stands alone, and in files from before it was told."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.unanswered)


def write_outcomes(
    path: Path,
    outcomes: Outcomes,
    dataset: EncodedDataset,
    beside_teacher: Mapping[str, NDArray[np.float64] | None] | None = None,
) -> None:
    """Write one line a row (or question) of the test split, as Parquet; an older file is replaced.

    Columns: row, label, prediction, correct, log_likelihood, tokens, bytes, words, f1, answer,
    unanswered, padded_length (of the request; the longest of a question's), logits and
    greedy_tokens (lists), group (rows of one document or context), and those of `beside_teacher`;
    one that the task does not have is all null. The variant's name, the artefact's digest and the
    class names are in the file's metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(outcomes.size)),
        "label": _column(dataset.labels, pa.int64(), outcomes.size),
        "prediction": _column(outcomes.predictions, pa.int64(), outcomes.size),
        "correct": _column(outcomes.correct, pa.bool_(), outcomes.size),
        "log_likelihood": _column(outcomes.log_likelihood, pa.float64(), outcomes.size),
        "tokens": _column(outcomes.tokens, pa.int64(), outcomes.size),
        "bytes": _column(outcomes.bytes, pa.int64(), outcomes.size),
        "words": _column(outcomes.words, pa.int64(), outcomes.size),
        "f1": _column(outcomes.f1, pa.float64(), outcomes.size),
        "answer": _column(outcomes.answers, pa.string(), outcomes.size),
        "unanswered": pa.array(outcomes.unanswered),
        "padded_length": pa.array(_padded_lengths(dataset)),
        "logits": _logits_column(outcomes),
        "group": _column(outcomes.groups, pa.int64(), outcomes.size),
        "greedy_tokens": _column(outcomes.greedy, pa.list_(pa.int64()), outcomes.size),
        **{
            name: _column(values, pa.float64(), outcomes.size)
            for name, values in (beside_teacher or {}).items()
        },
    }
    table = pa.table(columns).replace_schema_metadata(
        {
            "variant": outcomes.variant,
            "sha256": outcomes.sha256,
            "label_names": json.dumps(outcomes.label_names),
        }
    )
    with whole_file(path, parents=True) as unfinished:
        pq.write_table(table, unfinished)


def read_outcomes(path: Path) -> Outcomes:
    """Read what `write_outcomes` wrote, to the last digit.

    Raises:
        RunFolderError: the file is missing or is no such file.
    """
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        return Outcomes(
            variant=metadata[b"variant"].decode(),
            sha256=metadata[b"sha256"].decode(),
            predictions=_array(table, "prediction"),
            correct=_array(table, "correct"),
            log_likelihood=_array(table, "log_likelihood"),
            tokens=_array(table, "tokens"),
            bytes=_array(table, "bytes"),
            words=_array(table, "words"),
            f1=_array(table, "f1"),
            answers=_texts(table, "answer"),
            unanswered=table.column("unanswered").to_numpy(),
            logits=_stored_logits(table),
            label_names=_tuple(json.loads(metadata.get(b"label_names", b"null"))),
            greedy=_stored_greedy(table),
            groups=_array(table, "group") if "group" in table.column_names else None,
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} holds no outcomes: {error}",
            next_step="score the variant again, in a new run",
        ) from error


def _column(values: Any, kind: pa.DataType, size: int) -> pa.Array:
    return pa.nulls(size, kind) if values is None else pa.array(values, kind)


def _logits_column(outcomes: Outcomes) -> pa.Array:
    if outcomes.logits is None:
        return pa.nulls(outcomes.size, pa.list_(pa.float32()))
    flat = pa.array(outcomes.logits.ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, outcomes.logits.shape[1])


def _stored_logits(table: pa.Table) -> NDArray[np.float32] | None:
    """None where the task has none, and in files of runs that did not store them."""
    if "logits" not in table.column_names or table.column("logits").null_count:
        return None
    flat: NDArray[np.float32] = table.column("logits").combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def _stored_greedy(table: pa.Table) -> tuple[NDArray[np.int64], ...] | None:
    if "greedy_tokens" not in table.column_names or table.column("greedy_tokens").null_count:
        return None
    return tuple(np.array(row, dtype=np.int64) for row in table.column("greedy_tokens").to_pylist())


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _array(table: pa.Table, name: str) -> NDArray[Any] | None:
    column = table.column(name)
    return None if column.null_count else column.to_numpy()


def _texts(table: pa.Table, name: str) -> tuple[str, ...] | None:
    column = table.column(name)
    return None if column.null_count else tuple(column.to_pylist())


def _padded_lengths(dataset: EncodedDataset) -> NDArray[np.int64]:
    lengths = np.zeros(dataset.size, dtype=np.int64)
    for group in dataset.groups:
        lengths[group.rows] = group.inputs["attention_mask"].shape[1]
    if dataset.questions is None:
        return lengths
    longest = np.zeros(dataset.questions.size, dtype=np.int64)
    np.maximum.at(longest, dataset.questions.of_window, lengths)
    return longest

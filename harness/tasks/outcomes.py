"""Requests of a test split's rows, what came back, and the outcomes made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.system.storage import whole_file
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.types import TensorSpec

PLACES = (TensorSpec("OFFSETS", "INT64", (-1, 2)), TensorSpec("WORDS", "INT64", (-1,)))
"""Output of the part that tokenizes: where each token lies in its text (first character, end), and
whether it begins a word (1), goes on with one (0), or is none of the text's (-1)."""


@dataclass(frozen=True)
class TextAnswer:
    """What an ensemble answers to texts, and the part behind the model that makes it."""

    outputs: tuple[TensorSpec, ...]
    """Outputs of the ensemble."""
    part: str = ""
    """`label` or `spans`, which runs `ensemble_models/<part>_model.py`; empty where the model's own
    outputs are the answer."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters of that part's configuration."""
    takes_places: bool = False
    """Whether that part also takes `PLACES`."""


Tensors = Mapping[str, NDArray[Any]]
"""Arrays with a row per sample along the first axis, by name."""


@dataclass(frozen=True)
class Batch:
    """One request: rows of equal padded length."""

    group: EncodedGroup
    """The rows, with all that the family knows of their tokens."""
    inputs: Tensors
    """Arrays of shape (n, length), by the model's input names and in its datatypes."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Positions in the data set, (n,)."""
        return self.group.rows


class Answer(Protocol):
    """What a model said of a batch's rows, as its family reads it."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """False where a row's numbers are not numbers (NaN), (n,)."""
        ...


@dataclass(frozen=True)
class RowAnswer:
    """One row's answer without its padding, for comparing two answers to the same row."""

    prediction: NDArray[Any]
    """The answer: a class, a span, tokens; equal answers are equal arrays."""
    numbers: NDArray[np.float64]
    """The numbers it was chosen by: logits, log probabilities."""


Columns = dict[str, pa.Array]
"""Columns with an entry per row, by name."""


@rowwise
@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """One entry per row (or question) of the test split, in the data set's order."""

    kind: ClassVar[str]
    """The family's kind, as a study's `task` names it."""

    variant: str = field(metadata=OF_ALL)
    sha256: str = field(metadata=OF_ALL)
    """Digest of the artefact that answered; empty for a baseline that is not served."""
    unanswered: NDArray[np.bool_] = field(metadata=PER_ROW)
    """The request failed, or the answer held no numbers, (rows,)."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.unanswered)

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Which rows belong together (windows of one document), (rows,); None: each is alone."""
        return None

    def columns(self) -> Columns:
        """The family's own fields as columns."""
        raise NotImplementedError

    def file_metadata(self) -> Mapping[str, str]:
        """What the family keeps beside the columns, that is the same of all rows."""
        return {}


def write_outcomes(
    path: Path,
    outcomes: Outcomes,
    dataset: EncodedDataset,
    truth: Mapping[str, pa.Array],
    beside_teacher: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write one line per row (or question) of the test split as Parquet, replacing an older file.

    Columns of every family: row, unanswered, padded_length (of the request; the longest of a
    question's), group (rows of one document or context, null where each stands alone). Then the
    truth, the family's own, and those of `beside_teacher`. The family's kind, the variant's name
    and the artefact's digest are in the file's metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    size = outcomes.size
    groups = outcomes.groups
    columns: Columns = {
        "row": pa.array(np.arange(size)),
        **truth,
        **outcomes.columns(),
        "unanswered": pa.array(outcomes.unanswered),
        "padded_length": pa.array(_padded_lengths(dataset)),
        "group": pa.nulls(size, pa.int64()) if groups is None else pa.array(groups),
        **{name: pa.array(values, pa.float64()) for name, values in beside_teacher.items()},
    }
    table = pa.table(columns).replace_schema_metadata(
        {
            "kind": outcomes.kind,
            "variant": outcomes.variant,
            "sha256": outcomes.sha256,
            **outcomes.file_metadata(),
        }
    )
    with whole_file(path, parents=True) as unfinished:
        pq.write_table(table, unfinished)


class StoredOutcomes:
    """A file of outcomes while its family reads it.

    Args:
        path: as `write_outcomes` wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._table = pq.read_table(path)
        metadata = self._table.schema.metadata
        self.metadata = {key.decode(): value.decode() for key, value in metadata.items()}

    @property
    def kind(self) -> str:
        """The task kind; in files that do not name it, the family whose columns are filled."""
        if "kind" in self.metadata:
            return str(self.metadata["kind"])
        kinds = {
            "prediction": "sequence-classification",
            "f1": "question-answering",
            "log_likelihood": "causal-lm",
        }
        return next(kind for name, kind in kinds.items() if self.has(name))

    @property
    def common(self) -> dict[str, Any]:
        """The fields of `Outcomes`."""
        return {
            "variant": self.metadata["variant"],
            "sha256": self.metadata["sha256"],
            "unanswered": self.array("unanswered"),
        }

    @property
    def size(self) -> int:
        """Number of rows."""
        return int(self._table.num_rows)

    def has(self, name: str) -> bool:
        """Whether there is such a column, and every row has an entry in it."""
        return name in self._table.column_names and not self._table.column(name).null_count

    def array(self, name: str) -> NDArray[Any]:
        """A column of numbers, (rows,).

        Raises:
            KeyError: there is none.
        """
        return self._column(name).to_numpy()  # type: ignore[no-any-return]

    def matrix(self, name: str) -> NDArray[Any]:
        """A column of lists that are all as long, (rows, length).

        Raises:
            KeyError: there is none.
        """
        flat: NDArray[Any] = self._column(name).combine_chunks().flatten().to_numpy()
        return flat.reshape(self.size, -1)

    def rows(self, name: str) -> tuple[Any, ...]:
        """A column as Python has it: texts, or lists of different length.

        Raises:
            KeyError: there is none.
        """
        return tuple(self._column(name).to_pylist())

    def names(self, key: str) -> tuple[str, ...]:
        """Names kept as a JSON list in the metadata; none where there are none."""
        return tuple(json.loads(self.metadata.get(key, "null")) or ())

    def _column(self, name: str) -> Any:
        if not self.has(name):
            raise KeyError(f"no column {name}")
        return self._table.column(name)


def matrix_column(values: NDArray[Any]) -> pa.Array:
    """An array (rows, length) as a column of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _padded_lengths(dataset: EncodedDataset) -> NDArray[np.int64]:
    """The padded length of each row; for a row asked in several windows, the longest of them."""
    lengths = np.zeros(dataset.size, dtype=np.int64)
    for group in dataset.groups:
        lengths[group.rows] = group.length
    if dataset.samples == dataset.size:
        return lengths
    longest = np.zeros(dataset.samples, dtype=np.int64)
    np.maximum.at(longest, dataset.owners, lengths)
    return longest

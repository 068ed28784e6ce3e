"""Samples as the tensors that a client sends: tokenised once, padded to buckets, grouped by length.

Triton joins only requests of equal shape into one batch, so samples are padded to a few lengths
(the task's buckets) rather than each to its own; `padding_share` says what that costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.rowwise import OF_ALL, PER_ROW, cut_by, rowwise, take
from harness.tasks.samples import Samples
from harness.tasks.section import TaskSection
from harness.tasks.tokenizers import tokenize_rows

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Columns = Mapping[str, Sequence[Sequence[int]]]
"""By input name, a list of numbers per row, not yet padded."""


@rowwise
@dataclass(frozen=True)
class EncodedGroup:
    """Samples of one padded length; a family adds what else it knows of each token."""

    inputs: Mapping[str, NDArray[np.int64]] = field(metadata=PER_ROW)
    """Arrays of shape (n, length), by input name."""
    rows: NDArray[np.int64] = field(metadata=PER_ROW)
    """Position of each among the data set's samples (or windows), (n,)."""

    @property
    def length(self) -> int:
        """Number of tokens per sample, padding included."""
        return int(self.inputs["input_ids"].shape[1])


def _taken_groups(dataset: EncodedDataset, rows: NDArray[np.int64]) -> tuple[EncodedGroup, ...]:
    """The wanted rows of each group, renumbered; a group without any is left out."""
    place = np.full(dataset.size, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    kept = (take(group, place[group.rows] >= 0) for group in dataset.groups)
    return tuple(replace(group, rows=place[group.rows]) for group in kept if len(group.rows))


def _taken_digest(dataset: EncodedDataset, rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(dataset.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()


@rowwise
@dataclass(frozen=True, kw_only=True)
class EncodedDataset:
    """All samples of a task, as one checkpoint's tokenizer makes them.

    A family's own data set adds what its answers are compared with.
    """

    groups: tuple[EncodedGroup, ...] = field(metadata=cut_by(_taken_groups))
    """The groups, by ascending length."""
    size: int = field(metadata=cut_by(lambda _, rows: len(rows)))
    """Samples (or windows) over all groups."""
    truncated: int = field(metadata=OF_ALL)
    """Samples that were longer than the task's max_length, of all that were encoded."""
    padding_share: float = field(
        metadata=cut_by(lambda dataset, rows: _padding_share(_taken_groups(dataset, rows)))
    )
    """Padded positions over all positions, 0 to 1."""
    digest: str = field(metadata=cut_by(_taken_digest))
    """Digest of samples and tensors."""
    pad_token_id: int = field(metadata=OF_ALL)

    @property
    def samples(self) -> int:
        """What is scored: rows, or the questions of which one may have several windows."""
        return self.size

    @property
    def owners(self) -> NDArray[np.int64]:
        """Position of the sample that each row is or was cut from, (size,)."""
        return np.arange(self.size)

    @property
    def spans(self) -> tuple[tuple[int, int, int], ...] | None:
        """Where rows are stretches of text: sample, first and last character of each."""
        return None

    @property
    def width(self) -> int:
        """Last size of the model's first output, as far as the data tells: its classes; else 0."""
        return 0

    @property
    def windowed(self) -> int:
        """Samples that are asked in several windows, because they are longer than one."""
        return 0

    @property
    def cut_note(self) -> str:
        """A remark on samples that a model sees only in part; empty where there are none."""
        return f"{self.truncated} of {self.size} samples are truncated" if self.truncated else ""


AnyDataset = TypeVar("AnyDataset", bound=EncodedDataset)


def take_rows(dataset: AnyDataset, rows: NDArray[np.int64]) -> AnyDataset:
    """Some rows of a data set, renumbered in the order asked for; the same tensors otherwise.

    Of question answering the rows are windows: a question keeps those of its windows that are
    taken, and one without any is gone.

    Args:
        dataset: as `encode` made it.
        rows: positions, each at most once.

    Raises:
        ValueError: a row is asked for twice.
    """
    if len(np.unique(rows)) < len(rows):
        raise ValueError("a data set holds each of its rows once")
    if np.array_equal(rows, np.arange(dataset.size)):
        return dataset
    return take(dataset, rows)


def row_columns(dataset: EncodedDataset, samples: Samples) -> dict[str, tuple[str, ...]]:
    """The values of the columns that the task slices by, for each row."""
    owners = dataset.owners.tolist()
    return {
        name: tuple(values[owner] for owner in owners) for name, values in samples.columns.items()
    }


def tokenize_texts(
    task: TaskSection,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInputs,
    **settings: Any,
) -> BatchEncoding:
    """Texts (or pairs) as tokens, truncated to the task's max_length, not yet padded.

    Args:
        task: says the length.
        samples: the rows.
        tokenizer: of the checkpoint.
        model: the inputs that it takes.
        settings: of the tokenizer's call, beside ours.

    Raises:
        DataError: max_length has no room for them, or a text has no token at all.
        CheckpointError: the tokenizer makes token types that the model does not know.
    """
    special = tokenizer.num_special_tokens_to_add(pair=samples.pairs is not None)
    if task.max_length <= special:
        raise DataError(
            f"max_length {task.max_length} leaves no room beside the tokenizer's {special} "
            "special tokens",
            next_step="raise the task's max_length",
        )
    try:
        encoded = tokenize_rows(
            tokenizer,
            samples.texts,
            samples.pairs,
            truncation=True,
            max_length=task.max_length,
            return_attention_mask=True,
            return_token_type_ids=model.typed,
            **settings,
        )
    except ValueError as error:
        raise DataError(
            f"the samples cannot be encoded within max_length {task.max_length}: {error}",
            next_step="raise the task's max_length",
        ) from error
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    if not lengths.all():
        first = samples.rows[int(lengths.argmin())]
        raise DataError(
            f"the tokenizer makes no token at all of {int((lengths == 0).sum())} texts, the first "
            f"in row {first} of the data, counted from 0",
            next_step="drop empty texts from the data",
        )
    model.check(encoded)
    return encoded


def encode_texts(
    task: TaskSection,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInputs,
    buckets: Sequence[int] | None = None,
) -> EncodedDataset:
    """Texts (or pairs) truncated to the task's max_length and padded to its buckets, or to others.

    Raises:
        DataError: max_length has no room for them, or a text has no token at all.
        CheckpointError: the tokenizer makes token types that the model does not know.
    """
    encoded = tokenize_texts(task, samples, tokenizer, model)
    groups = bucketed(
        {name: encoded[name] for name in model.names}, buckets or task.buckets, tokenizer
    )
    truncated = sum(bool(one.overflowing) for one in encoded.encodings or ())
    return make_dataset(groups, samples, tokenizer, truncated=truncated)


def bucketed(
    columns: Columns, buckets: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[EncodedGroup]:
    """Each row padded to the next bucket, a group a bucket, ascending.

    A column that is not an input of the tokenizer's (say which tokens begin a word) is padded with
    0.
    """
    lengths = np.array([len(ids) for ids in columns["input_ids"]])
    edges = np.array(buckets)
    bucket_of = edges[np.searchsorted(edges, lengths)]
    pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    return [
        pad_rows(columns, np.flatnonzero(bucket_of == length), length, pads)
        for length in sorted(set(bucket_of.tolist()))
    ]


def pad_rows(
    encoded: Columns, rows: NDArray[np.int64], length: int, pads: Mapping[str, int]
) -> EncodedGroup:
    """Right-pad the named rows to one length; the mask's padding is 0."""
    inputs = {}
    for name, values in encoded.items():
        padded = np.full((len(rows), length), pads.get(name, 0), dtype=np.int64)
        for position, row in enumerate(rows):
            padded[position, : len(values[row])] = values[row]
        inputs[name] = padded
    return EncodedGroup(inputs, rows.astype(np.int64))


def make_dataset(
    groups: Sequence[EncodedGroup],
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    *,
    truncated: int = 0,
) -> EncodedDataset:
    """The data set of these groups, without what its answers are compared with."""
    return EncodedDataset(
        groups=tuple(groups),
        size=sum(len(group.rows) for group in groups),
        truncated=truncated,
        padding_share=_padding_share(groups),
        digest=_digest(samples, groups),
        pad_token_id=tokenizer.pad_token_id,
    )


def fields_of(dataset: EncodedDataset) -> dict[str, Any]:
    """A data set's fields by name, for a family's own data set to begin with."""
    return {one.name: getattr(dataset, one.name) for one in fields(dataset)}


def _padding_share(groups: Sequence[EncodedGroup]) -> float:
    positions = sum(group.inputs["attention_mask"].size for group in groups)
    real = sum(int(group.inputs["attention_mask"].sum()) for group in groups)
    return 1 - real / positions if positions else 0.0


def _digest(samples: Samples, groups: Sequence[EncodedGroup]) -> str:
    digest = hashlib.sha256(samples.digest.encode())
    for group in groups:
        for name, values in sorted(group.inputs.items()):
            digest.update(f"{name}{values.shape}".encode())
            digest.update(values.astype("<i8").tobytes())
        digest.update(group.rows.astype("<i8").tobytes())
    return digest.hexdigest()

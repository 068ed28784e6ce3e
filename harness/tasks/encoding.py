"""Samples as the tensors that a client sends: tokenised once, padded to buckets, grouped by length.

Triton joins only requests of equal shape into one batch, so samples are padded to a few lengths
(the task's buckets) rather than each to its own; `padding_share` says what that costs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, DataError
from harness.study import (
    CausalLanguageModelling,
    QuestionAnswering,
    SequenceClassification,
    Task,
)
from harness.tasks.model_inputs import ModelInputs, model_inputs
from harness.tasks.question_answering import Questions, cut_contexts
from harness.tasks.rowwise import OF_ALL, PER_ROW, cut_by, rowwise, take
from harness.tasks.samples import Samples
from harness.tasks.tokenizers import load_tokenizer, tokenize_rows
from harness.tasks.vocabulary import check_tokens
from harness.tasks.windows import cut_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_CONTEXT = "context"


@rowwise
@dataclass(frozen=True)
class ContextTokens:
    """Where an extractive answer may lie."""

    mask: NDArray[np.bool_] = field(metadata=PER_ROW)
    """The context's tokens, (n, length)."""
    longest_answer: int = field(metadata=OF_ALL)
    """Most tokens of an answer."""


@rowwise
@dataclass(frozen=True)
class EncodedGroup:
    """Samples of one padded length."""

    inputs: Mapping[str, NDArray[np.int64]] = field(metadata=PER_ROW)
    """By input name, (n, length)."""
    rows: NDArray[np.int64] = field(metadata=PER_ROW)
    """Position of each among the data set's samples (or windows), (n,)."""
    context: ContextTokens | None = field(default=None, metadata=PER_ROW)
    """Question answering only."""

    @property
    def length(self) -> int:
        """Padded tokens a sample."""
        return int(self.inputs["input_ids"].shape[1])


def _taken_groups(dataset: EncodedDataset, rows: NDArray[np.int64]) -> tuple[EncodedGroup, ...]:
    """Of each group the rows wanted, renumbered; a group without any is gone."""
    place = np.full(dataset.size, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    kept = (take(group, place[group.rows] >= 0) for group in dataset.groups)
    return tuple(replace(group, rows=place[group.rows]) for group in kept if len(group.rows))


def _taken_digest(dataset: EncodedDataset, rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(dataset.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()


@rowwise
@dataclass(frozen=True)
class EncodedDataset:
    """All samples of a task, as one checkpoint's tokenizer makes them."""

    groups: tuple[EncodedGroup, ...] = field(metadata=cut_by(_taken_groups))
    """By ascending length."""
    size: int = field(metadata=cut_by(lambda _, rows: len(rows)))
    """Samples (or windows) over all groups."""
    labels: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Indexes of the checkpoint's outputs, (size,)."""
    label_names: tuple[str, ...] | None = field(metadata=OF_ALL)
    """What the checkpoint calls its outputs (else the data), in their order."""
    byte_counts: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """Language models: UTF-8 bytes scored in each window, (size,)."""
    truncated: int = field(metadata=OF_ALL)
    """Samples that were longer than the task's max_length, of all that were encoded."""
    padding_share: float = field(
        metadata=cut_by(lambda dataset, rows: _padding_share(_taken_groups(dataset, rows)))
    )
    """Padded positions over all positions, 0 to 1."""
    digest: str = field(metadata=cut_by(_taken_digest))
    """Of samples and tensors."""
    pad_token_id: int = field(metadata=OF_ALL)
    word_counts: NDArray[np.int64] | None = field(default=None, metadata=PER_ROW)
    """Language models: words between white space that end in each window's bytes, (size,)."""
    windows: tuple[tuple[int, int, int], ...] | None = field(default=None, metadata=PER_ROW)
    """Language models: document, first and last character of each window's scored text."""
    questions: Questions | None = field(default=None, metadata=PER_ROW)
    """Question answering: what the windows were cut from."""
    class_names: tuple[str, ...] | None = field(default=None, metadata=OF_ALL)
    """What each output stands for in the words of the family's teacher, by which models are
    compared; None where that is `label_names`."""

    @property
    def samples(self) -> int:
        """What is scored: questions, of which one may have several windows, or rows."""
        return self.size if self.questions is None else self.questions.size


def encode(
    task: Task, samples: Samples, tokenizer_folder: Path, *, trust_remote_code: bool = False
) -> EncodedDataset:
    """Tokenise and pad a task's samples for one checkpoint.

    Args:
        task: the study's section: lengths, buckets, number of windows.
        samples: what `load_samples` read for this checkpoint.
        tokenizer_folder: the checkpoint, or the `tokenizer` folder of one of its variants.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: the folder's tokenizer is missing or unusable, or another model's.
        DataError: the texts are too short to score.
        MissingExtraError: transformers is not installed.
    """
    tokenizer = load_tokenizer(tokenizer_folder, trust_remote_code=trust_remote_code)
    inputs = model_inputs(
        tokenizer, tokenizer_folder, task.kind, trust_remote_code=trust_remote_code
    )
    try:
        dataset = _encode(task, samples, tokenizer, inputs)
    except Exception as error:
        if type(error) is not Exception:
            raise
        # What the tokenizers package raises, for a vocabulary without its unknown token say.
        raise CheckpointError(
            f"{tokenizer_folder}: its tokenizer cannot encode the data: {error}",
            next_step="save the model's own tokenizer beside it, with all its special tokens",
        ) from error
    largest = max(int(group.inputs["input_ids"].max()) for group in dataset.groups)
    check_tokens(tokenizer, largest, tokenizer_folder, trust_remote_code=trust_remote_code)
    return dataset


def _encode(
    task: Task, samples: Samples, tokenizer: PreTrainedTokenizerBase, inputs: ModelInputs
) -> EncodedDataset:
    if isinstance(task, SequenceClassification):
        return _encode_texts(task, samples, tokenizer, inputs)
    if isinstance(task, QuestionAnswering):
        return _encode_questions(task, samples, tokenizer, inputs)
    return _encode_windows(task, samples, tokenizer)


def take_rows(dataset: EncodedDataset, rows: NDArray[np.int64]) -> EncodedDataset:
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


def row_texts(dataset: EncodedDataset, samples: Samples) -> tuple[str, ...]:
    """The text of each row: a sample (a pair joined by a bar), or a window's scored part."""
    if dataset.windows is not None:
        return tuple(samples.texts[document][a:b] for document, a, b in dataset.windows)
    if samples.pairs is None:
        return samples.texts
    return tuple(f"{a} | {b}" for a, b in zip(samples.texts, samples.pairs, strict=True))


def row_columns(dataset: EncodedDataset, samples: Samples) -> dict[str, tuple[str, ...]]:
    """The values of the columns that the task slices by, for each row."""
    if dataset.windows is None:
        return dict(samples.columns)
    documents = [document for document, _, _ in dataset.windows]
    return {
        name: tuple(values[document] for document in documents)
        for name, values in samples.columns.items()
    }


def _encode_texts(
    task: SequenceClassification,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInputs,
) -> EncodedDataset:
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
    return _dataset(
        _bucketed({name: encoded[name] for name in model.names}, task.buckets, tokenizer),
        samples,
        tokenizer,
        labels=np.array(samples.labels, dtype=np.int64) if samples.labels is not None else None,
        truncated=sum(bool(one.overflowing) for one in encoded.encodings or ()),
    )


def _encode_questions(
    task: QuestionAnswering,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelInputs,
) -> EncodedDataset:
    windows = cut_contexts(
        task,
        samples.texts,
        samples.pairs or (),
        samples.answers or (),
        tokenizer,
        model.names,
    )
    model.check(windows.encoded)
    columns = {**windows.encoded, _CONTEXT: windows.context}
    groups = [
        EncodedGroup(
            {name: group.inputs[name] for name in model.names},
            group.rows,
            ContextTokens(group.inputs[_CONTEXT] == 1, task.max_answer_length),
        )
        for group in _bucketed(columns, task.buckets, tokenizer)
    ]
    return replace(_dataset(groups, samples, tokenizer), questions=windows.questions)


def _bucketed(
    columns: Mapping[str, Sequence[Sequence[int]]],
    buckets: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
) -> list[EncodedGroup]:
    """Each row padded to the next bucket, a group a bucket, ascending."""
    lengths = np.array([len(ids) for ids in columns["input_ids"]])
    edges = np.array(buckets)
    bucket_of = edges[np.searchsorted(edges, lengths)]
    pads = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    return [
        _pad(columns, np.flatnonzero(bucket_of == length), length, pads)
        for length in sorted(set(bucket_of.tolist()))
    ]


def _encode_windows(
    task: CausalLanguageModelling, samples: Samples, tokenizer: PreTrainedTokenizerBase
) -> EncodedDataset:
    windows = cut_windows(samples.texts, tokenizer, task.max_length)
    if not windows:
        raise DataError("no text of the data has two tokens: nothing can be scored")
    if task.samples is not None and task.samples < len(windows):
        generator = np.random.default_rng(samples.seed)
        drawn = np.sort(generator.choice(len(windows), task.samples, replace=False))
        windows = [windows[position] for position in drawn]
    ids = [window.token_ids for window in windows]
    masks = [[1] * len(one) for one in ids]
    encoded: Mapping[str, Sequence[Sequence[int]]] = {"input_ids": ids, "attention_mask": masks}
    pads = {"input_ids": tokenizer.pad_token_id}
    group = _pad(encoded, np.arange(len(windows)), task.max_length, pads)
    return replace(
        _dataset([group], samples, tokenizer),
        byte_counts=np.array([window.scored_bytes for window in windows], dtype=np.int64),
        word_counts=np.array([window.scored_words for window in windows], dtype=np.int64),
        windows=tuple((window.document, *window.span) for window in windows),
    )


def _pad(
    encoded: Mapping[str, Sequence[Sequence[int]]],
    rows: NDArray[np.int64],
    length: int,
    pads: Mapping[str, int],
) -> EncodedGroup:
    """Right-pad the named rows to one length; the mask's padding is 0."""
    inputs = {}
    for name, values in encoded.items():
        padded = np.full((len(rows), length), pads.get(name, 0), dtype=np.int64)
        for position, row in enumerate(rows):
            padded[position, : len(values[row])] = values[row]
        inputs[name] = padded
    return EncodedGroup(inputs, rows.astype(np.int64))


def _dataset(
    groups: Sequence[EncodedGroup],
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    *,
    labels: NDArray[np.int64] | None = None,
    truncated: int = 0,
    windows: tuple[tuple[int, int, int], ...] | None = None,
) -> EncodedDataset:
    return EncodedDataset(
        groups=tuple(groups),
        size=sum(len(group.rows) for group in groups),
        labels=labels,
        label_names=samples.label_names,
        class_names=samples.class_names,
        byte_counts=None,
        truncated=truncated,
        padding_share=_padding_share(groups),
        digest=_digest(samples, groups),
        pad_token_id=tokenizer.pad_token_id,
        windows=windows,
    )


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

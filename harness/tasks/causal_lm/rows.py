"""The rows of a language model: windows of running text, read and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.tasks.causal_lm.section import CausalLanguageModelling
from harness.tasks.causal_lm.windows import cut_windows
from harness.tasks.encoding import EncodedDataset, fields_of, make_dataset, pad_rows
from harness.tasks.family import Reading
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, read_texts, slice_columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@rowwise
@dataclass(frozen=True, kw_only=True)
class WindowDataset(EncodedDataset):
    """Windows of text, and what each window's score covers."""

    byte_counts: NDArray[np.int64] = field(metadata=PER_ROW)
    """UTF-8 bytes scored in each window, (size,)."""
    word_counts: NDArray[np.int64] = field(metadata=PER_ROW)
    """Words between white space that end in each window's bytes, (size,)."""
    windows: tuple[tuple[int, int, int], ...] = field(metadata=PER_ROW)
    """Document, first and last character of each window's scored text."""

    @property
    def owners(self) -> NDArray[np.int64]:
        """Position of each window's document, (size,)."""
        return np.array([document for document, _, _ in self.windows], dtype=np.int64)

    @property
    def spans(self) -> tuple[tuple[int, int, int], ...] | None:
        """See `windows`."""
        return self.windows


def read_documents(task: CausalLanguageModelling, reading: Reading) -> Samples:
    """Every row: a language model's windows are drawn when they are cut.

    Raises:
        DataError: with every row that is not text.
    """
    (texts,) = read_texts(reading.table, (task.text,))
    rows = range(len(texts))
    return Samples(
        texts=tuple(texts),
        pairs=None,
        digest=digest_of(texts),
        rows=tuple(rows),
        seed=reading.seed,
        columns=slice_columns(reading.table, task, rows),
    )


def encode_windows(
    task: CausalLanguageModelling, samples: Samples, tokenizer: PreTrainedTokenizerBase
) -> WindowDataset:
    """Documents cut into windows; where the task wants fewer, those drawn with the seed.

    Raises:
        DataError: no text has two tokens.
    """
    windows = cut_windows(samples.texts, tokenizer, task.max_length)
    if not windows:
        raise DataError("no text of the data has two tokens: nothing can be scored")
    if task.samples is not None and task.samples < len(windows):
        generator = np.random.default_rng(samples.seed)
        drawn = np.sort(generator.choice(len(windows), task.samples, replace=False))
        windows = [windows[position] for position in drawn]
    ids = [window.token_ids for window in windows]
    masks = [[1] * len(one) for one in ids]
    group = pad_rows(
        {"input_ids": ids, "attention_mask": masks},
        np.arange(len(windows)),
        task.max_length,
        {"input_ids": tokenizer.pad_token_id},
    )
    return WindowDataset(
        **fields_of(make_dataset([group], samples, tokenizer)),
        byte_counts=np.array([window.scored_bytes for window in windows], dtype=np.int64),
        word_counts=np.array([window.scored_words for window in windows], dtype=np.int64),
        windows=tuple((window.document, *window.span) for window in windows),
    )

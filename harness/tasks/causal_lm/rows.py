"""The rows of a language model: its section of the study, text cut into windows and encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.errors import DataError
from harness.system.strict import PositiveInt
from harness.tasks.encoding import (
    EncodedDataset,
    EncodedGroup,
    fields_of,
    make_dataset,
    pad_rows,
)
from harness.tasks.roles.reading import Reading
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, read_texts, slice_columns
from harness.tasks.section import Data, TaskSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CausalLanguageModelling(TaskSection):
    """Scores of running text: perplexity and bits per byte over fixed windows."""

    kind: Literal["causal-lm"]
    data: Data
    text: str = Field("text", description="Column of the text.")
    max_length: Annotated[int, Field(ge=2)] = Field(
        64, description="Tokens per window; a document longer than this is cut into windows."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many windows, drawn with the seed."
    )


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document, at most `max_length` of them."""

    token_ids: tuple[int, ...]
    scored_bytes: int
    """UTF-8 bytes of text that the scored tokens stand for: all but the first, and none of the
    special tokens in front."""
    scored_words: int
    """Words between white space whose last character is among those."""
    document: int = 0
    """Position of the text it was cut from."""
    span: tuple[int, int] = (0, 0)
    """Where the scored text begins and ends in the document, in characters."""


def cut_windows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Window]:
    """Cut every document into windows of `max_length` tokens; the last may be shorter.

    Documents are not joined: a window never crosses from one to the next. Special tokens that the
    tokenizer puts in front of a text (Llama's begin-of-text) start every window; then all of the
    window's text is scored. Otherwise its first token only serves as context.

    A remainder in which nothing could be scored (fewer than two tokens) is dropped.

    Raises:
        DataError: special tokens alone fill a window.
    """
    lead = _leading_special_tokens(tokenizer)
    step = max_length - len(lead)
    if step < 1:
        raise DataError(
            f"max_length {max_length} leaves no room beside the tokenizer's "
            f"{len(lead)} special tokens",
            next_step="raise the task's max_length",
        )
    # verbose=False: a document longer than the model's window is what is being cut here.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    windows: list[Window] = []
    for document, (text, ids, offsets) in enumerate(
        zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ):
        cut = _windows_of(text, ids, offsets, lead=lead, step=step)
        windows += (replace(window, document=document) for window in cut)
    return windows


def _windows_of(
    text: str,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    *,
    lead: tuple[int, ...],
    step: int,
) -> Iterator[Window]:
    # Bytes are counted from the end of the last unscored token to the end of the window's last:
    # so white space that a tokenizer drops belongs to the token after it, and no character is
    # counted twice when a byte-level tokenizer splits it over two tokens.
    reached = 0
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        ends = [end for _, end in offsets[start : start + step]]
        begin = reached if lead else max(reached, ends[0])
        reached = max(reached, *ends)
        if len(lead) + len(part) >= 2:  # noqa: PLR2004  (one for context, one to score)
            scored = text[begin:reached]
            yield Window(
                (*lead, *part),
                len(scored.encode()),
                _word_ends(scored, text[reached:]),
                span=(begin, reached),
            )


def _word_ends(scored: str, rest: str) -> int:
    """Words that end in a stretch of text; one that goes on in the rest does not end there."""
    goes_on = scored[-1:].strip() and rest[:1].strip()
    return len(scored.split()) - bool(goes_on)


def _leading_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    return tuple(full[: full.index(plain[0])]) if plain and plain[0] in full else ()


@rowwise
@dataclass(frozen=True)
class WindowGroup(EncodedGroup):
    """Windows of one padded length, and where their text begins to be scored."""

    first_scored: int = field(metadata=OF_ALL)
    """Position of the first token that is scored: behind all special tokens of the tokenizer's
    (GLM's are two), which stand for no text, and behind at least one token of context."""


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
        """The token spans that `windows` describes."""
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
        columns=slice_columns(reading.table, task.slices, rows),
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
    padded = pad_rows(
        {"input_ids": ids, "attention_mask": masks},
        np.arange(len(windows)),
        task.max_length,
        {"input_ids": tokenizer.pad_token_id},
    )
    first_scored = max(1, len(_leading_special_tokens(tokenizer)))
    group = WindowGroup(padded.inputs, padded.rows, first_scored)
    return WindowDataset(
        **fields_of(make_dataset([group], samples, tokenizer)),
        byte_counts=np.array([window.scored_bytes for window in windows], dtype=np.int64),
        word_counts=np.array([window.scored_words for window in windows], dtype=np.int64),
        windows=tuple((window.document, *window.span) for window in windows),
    )

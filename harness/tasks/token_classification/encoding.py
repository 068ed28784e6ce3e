"""Tagged sentences as tensors: words cut into pieces, of which the first stands for the word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.tasks.encoding import EncodedDataset, bucketed, fields_of, make_dataset
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples
from harness.tasks.token_classification.rows import TaggedSamples, TokenClassification
from harness.tasks.token_classification.tags import Entity, TagNames

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

_OF_ANY_MODEL = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
"""Classes of tokenizers that have no habit of their own with words."""
MISSED = -1
"""Stands where a word's first token would, of a word that lies beyond max_length."""
DROPPED = -2
"""Marks a word that the tokenizer makes no token of (a control character)."""


@rowwise
@dataclass(frozen=True, kw_only=True)
class TaggedDataset(EncodedDataset):
    """The encoded sentences with their right tags."""

    pieces: tuple[NDArray[np.int64], ...] = field(metadata=PER_ROW)
    """First token of each word, else `MISSED` or `DROPPED`, (words,) each."""
    entities: tuple[frozenset[Entity], ...] = field(metadata=PER_ROW)
    """The right ones of each sentence, from the first to the last of their words that the
    tokenizer makes tokens of."""
    tags: tuple[tuple[str, ...], ...] = field(metadata=PER_ROW)
    """The right ones of each sentence's words, in the checkpoint's names."""
    words: tuple[tuple[str, ...], ...] = field(metadata=PER_ROW)
    """The words of each sentence."""
    model_tags: TagNames = field(metadata=OF_ALL)
    """The checkpoint's, in the order of its outputs."""
    strict: bool = field(metadata=OF_ALL)

    @property
    def width(self) -> int:
        """Number of different tags."""
        return len(self.model_tags.names)

    @property
    def cut_note(self) -> str:
        """How many words lie beyond the tokens that are sent, or have no token."""
        words = sum(len(one) for one in self.pieces)
        notes = []
        for kind, what in (
            (MISSED, "lie beyond max_length and count as missed"),
            (DROPPED, "have no token, as the tokenizer drops their characters, and do not count"),
        ):
            absent = [int((one == kind).sum()) for one in self.pieces]
            if any(absent):
                where = f"in {sum(map(bool, absent))} of {self.size} sentences"
                notes.append(f"{sum(absent)} of {words} words, {where}, {what}")
        return "; ".join(notes)


def encode_sentences(
    task: TokenClassification,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    inputs: ModelInputs,
) -> EncodedDataset:
    """Sentences as tensors, with their right tags where the checkpoint's are known.

    The words of plain samples are what white space parts.

    Raises:
        DataError: max_length has no room for a word.
        CheckpointError: the tokenizer makes token types that the model does not know.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if task.max_length <= special:
        raise DataError(
            f"max_length {task.max_length} leaves no room beside the tokenizer's {special} "
            "special tokens",
            next_step="raise the task's max_length",
        )
    sentences: Sequence[Sequence[str]] = [text.split() for text in samples.texts]
    if isinstance(samples, TaggedSamples):
        sentences = samples.words
    encoded = tokenizer(
        [spaced(words, tokenizer) for words in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=task.max_length,
        return_attention_mask=True,
        return_token_type_ids=inputs.typed,
    )
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    if not lengths.all():
        row = samples.rows[int(lengths.argmin())]
        raise DataError(
            f"the tokenizer makes no token at all of row {row} of the data, counted from 0",
            next_step="drop empty sentences from the data",
        )
    inputs.check(encoded)
    groups = bucketed({name: encoded[name] for name in inputs.names}, task.buckets, tokenizer)
    truncated = sum(bool(one.overflowing) for one in encoded.encodings or ())
    plain = make_dataset(groups, samples, tokenizer, truncated=truncated)
    if not isinstance(samples, TaggedSamples) or samples.truth is None:
        return plain
    side = tokenizer.truncation_side
    pieces = tuple(
        _first_pieces(encoded.word_ids(row), len(words), side if one.overflowing else None)
        for row, (words, one) in enumerate(zip(samples.words, encoded.encodings, strict=True))
    )
    return TaggedDataset(
        **fields_of(plain),
        pieces=pieces,
        entities=tuple(map(_without_dropped, samples.truth.entities, pieces)),
        tags=samples.truth.tags,
        words=samples.words,
        model_tags=samples.truth.model,
        strict=samples.truth.strict,
    )


def spaced(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Words as a tokenizer is to be given them, so that each is cut as in running text.

    RoBERTa's and GPT-2's tokenizers take the space before a word for a part of it, and glue words
    together that come without. transformers' run_ner opens them with add_prefix_space=True, which
    puts it there.
    """
    if not wants_spaces(tokenizer):
        return list(words)
    # The library puts none before a special token either, nor does another space count as one.
    without = (" ", *tokenizer.get_added_vocab())
    return [word if word.startswith(without) else f" {word}" for word in words]


def library_tokens(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], **settings: Any
) -> BatchEncoding:
    """What transformers' run_ner makes of one sentence, with a tokenizer as it opens it."""
    if wants_spaces(tokenizer):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer.name_or_path, local_files_only=True, add_prefix_space=True
        )
    encoded: BatchEncoding = tokenizer(list(words), is_split_into_words=True, **settings)
    return encoded


def wants_spaces(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has to be told of the space before each word."""
    if type(tokenizer).__name__ in _OF_ANY_MODEL:
        return False
    return _byte_level(tokenizer) and getattr(tokenizer, "add_prefix_space", True) is False


def glues_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the library itself gives the model words without the space before them."""
    plain = type(tokenizer).__name__ in _OF_ANY_MODEL
    return plain and _byte_level(tokenizer) and not _prefixes(tokenizer)


def _byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "ByteLevel" in repr(tokenizer.backend_tokenizer.pre_tokenizer)


def _prefixes(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "add_prefix_space=True" in repr(tokenizer.backend_tokenizer.pre_tokenizer)


def _first_pieces(
    words_of_tokens: Sequence[int | None], words: int, cut: str | None
) -> NDArray[np.int64]:
    """The first token of each word, (words,).

    Args:
        words_of_tokens: the word of each token; None of a special token.
        words: in the sentence.
        cut: the side on which tokens are left out, `left` or `right`; None where none are.
    """
    pieces = np.full(words, DROPPED, dtype=np.int64)
    for token, word in enumerate(words_of_tokens):
        if word is not None and pieces[word] == DROPPED:
            pieces[word] = token
    there = np.flatnonzero(pieces >= 0)
    if cut == "left":
        pieces[: int(there.min(initial=words))] = MISSED
    elif cut is not None:
        pieces[int(there.max(initial=-1)) + 1 :] = MISSED
    return pieces


def _without_dropped(entities: frozenset[Entity], pieces: NDArray[np.int64]) -> frozenset[Entity]:
    """Entities from their first to their last word that has a token; one without stays as it is.

    transformers' run_ner takes words without a token out of the sentence, and seqeval never sees
    them.
    """
    found = []
    for kind, first, last in entities:
        there = np.flatnonzero(pieces[first : last + 1] != DROPPED) + first
        found.append((kind, int(there[0]), int(there[-1])) if len(there) else (kind, first, last))
    return frozenset(found)

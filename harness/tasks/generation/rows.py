"""The rows of a generation task: prompts, with the texts that would have been right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.errors import DataError
from harness.system.strict import PositiveInt
from harness.tasks.encoding import EncodedDataset, bucketed, fields_of, make_dataset
from harness.tasks.generation.chat import Message, templated
from harness.tasks.generation.conversations import in_one_text, read_conversations
from harness.tasks.generation.overlap import ROUGE, rouge_reads
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.samples import Samples, digest_of, draw, read_texts, slice_columns
from harness.tasks.section import Data, TaskSection
from harness.words.numbers import things

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextGeneration(TaskSection):
    """Text that a model writes: prompts are continued greedily and compared with references."""

    kind: Literal["generation"]
    data: Data
    prompt: str = Field(
        "prompt",
        description="Column of what is continued; with chat_template a text (one message of the "
        "user) or a list of messages.",
    )
    reference: str | None = Field(
        "reference",
        description="Column of a text that would be right; null: there is none, and models are "
        "compared with the teacher alone.",
    )
    document: str | None = Field(
        None,
        description="Column that says which prompts are of one document: these count as one unit "
        "in confidence intervals.",
    )
    max_length: Annotated[int, Field(ge=2)] = Field(
        512,
        description="Tokens of a prompt together with its answer (or reference) at most; of models "
        "with an encoder, of each of the two.",
    )
    max_new_tokens: PositiveInt = Field(64, description="Longest answer, in tokens.")
    stop: list[str] = Field(
        [],
        description="An answer ends before the first of these texts, beside the model's own end.",
    )
    num_beams: Literal[1] | None = Field(
        None,
        description="Answers are greedy. A checkpoint whose generation_config searches with "
        "several beams is refused, unless this is 1: then it is compared by what "
        "generate(num_beams=1) writes.",
    )
    chat_template: bool = Field(
        False, description="Put prompts into the chat template of each model's own tokenizer."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many prompts, drawn with the seed."
    )
    chain_samples: Literal[0] = Field(
        0, description="A text's loss is not split into the steps of its model's making."
    )

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        if self.max_new_tokens >= self.max_length:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens} and max_length {self.max_length}: there "
                "is no room for a prompt; raise max_length or lower max_new_tokens"
            )
        if not all(self.stop):
            raise ValueError("stop holds an empty text, which would end every answer at once")
        return self


@dataclass(frozen=True, kw_only=True)
class PromptSamples(Samples):
    """Prompts (`texts`) with what belongs to each."""

    references: tuple[str, ...] | None
    """The references; None where the task has none."""
    conversations: tuple[tuple[Message, ...], ...] | None
    """The prompts as messages, where they go into a chat template."""
    documents: tuple[str, ...] | None
    """The document of each prompt; None where each stands alone."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """Digest of the prompts by their texts; the text of messages holds all of them."""
        return (self.digest, self.rows, self.seed, self.conversations is None)

    @property
    def undefined_metrics(self) -> Mapping[str, str]:
        """ROUGE, where it cannot read every reference."""
        if not self._unread:
            return {}
        of = f"{len(self._unread)} of {things(len(self.rows), 'reference')}"
        why = (
            f"ROUGE reads the letters a to z and digits alone, of which {of} hold too few, the "
            f"first in row {self._unread[0]} of the data, counted from 0"
        )
        return dict.fromkeys(ROUGE.values(), why)

    @cached_property
    def _unread(self) -> tuple[int, ...]:
        """Rows of the data whose references ROUGE cannot read."""
        pairs = zip(self.rows, self.references or (), strict=False)
        return tuple(row for row, text in pairs if not rouge_reads(text))


@rowwise
@dataclass(frozen=True, kw_only=True)
class PromptDataset(EncodedDataset):
    """Prompts and references in one tokenizer's tokens, not padded."""

    prompts: tuple[tuple[int, ...], ...] = field(metadata=PER_ROW)
    """Tokens that are sent, special ones included."""
    references: tuple[str, ...] | None = field(metadata=PER_ROW)
    reference_ids: tuple[tuple[int, ...], ...] | None = field(metadata=PER_ROW)
    """Tokens of each reference as it goes on behind its prompt; with an encoder as the decoder
    writes it, special tokens included (the library's `labels`)."""
    documents: NDArray[np.int64] | None = field(metadata=PER_ROW)
    """(size,) the document that each prompt is of; None where each stands alone."""
    vocabulary: str = field(metadata=OF_ALL)
    """Digest of the tokenizer's tokens: models with the same compare token by token."""
    max_new_tokens: int = field(metadata=OF_ALL)
    stop: tuple[str, ...] = field(metadata=OF_ALL)
    """Texts that end an answer."""
    has_encoder: bool = field(metadata=OF_ALL, default=False)
    """Whether an encoder reads the prompts, and the answers stand by themselves."""


def read_prompts(task: TextGeneration, reading: Reading) -> PromptSamples:
    """Prompts and references, at most this many drawn with the seed.

    Raises:
        DataError: with every row whose prompt or reference is no text.
    """
    table = reading.table
    kept = draw(len(table.rows), task.samples, reading.seed)
    conversations = read_conversations(table, task.prompt) if task.chat_template else None
    if conversations is None:
        texts = _written(table, task.prompt)
    else:
        texts = [in_one_text(one) for one in conversations]
    references = None if task.reference is None else _written(table, task.reference)
    documents = None if task.document is None else _documents(table, task.document)
    drawn = tuple(texts[row] for row in kept)
    right = None if references is None else tuple(references[row] for row in kept)
    return PromptSamples(
        texts=drawn,
        pairs=None,
        digest=digest_of(drawn, right),
        rows=tuple(kept),
        seed=reading.seed,
        columns=slice_columns(table, task.slices, kept),
        references=right,
        conversations=None if conversations is None else tuple(conversations[row] for row in kept),
        documents=None if documents is None else tuple(documents[row] for row in kept),
    )


def _documents(table: DataTable, column: str) -> list[str]:
    """The document of each row.

    Raises:
        DataError: with every row that names none: such rows would count as one document.
    """
    values = [row.get(column) for row in table.rows]
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    refuse(
        table.source,
        [f"{table.place(row)}: '{column}' is missing" for row in missing],
        next_step="name the document of every prompt; one that stands alone is its own document",
    )
    return [str(value) for value in values]


def _is_missing(value: object) -> bool:
    """Whether a value is none: absent, empty, or NaN, which data frames write in its place."""
    return value is None or not str(value).strip() or (isinstance(value, float) and isnan(value))


def _written(table: DataTable, column: str) -> list[str]:
    """The texts of a column.

    Raises:
        DataError: with every row that has none, or white space alone.
    """
    (texts,) = read_texts(table, (column,))
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    refuse(
        table.source,
        [f"{table.place(row)}: '{column}' is empty" for row in empty],
        next_step="drop these rows: there is nothing to continue, or nothing to compare with",
    )
    return texts


def encode_prompts(
    task: TextGeneration,
    samples: PromptSamples,
    tokenizer: PreTrainedTokenizerBase,
    *,
    has_encoder: bool = False,
) -> PromptDataset:
    """Prompts and references as one tokenizer makes them, for a model with an encoder or without.

    Raises:
        DataError: a prompt leaves no room for its answer or reference, a text has no token, or the
            tokenizer has no chat template.
    """
    prompts = _prompt_ids(samples, tokenizer)
    references = None
    if samples.references is not None and has_encoder:
        references = _label_ids(tokenizer, samples.references)
    elif samples.references is not None:
        plain = samples.texts if samples.conversations is None else None
        references = _reference_ids(tokenizer, plain, prompts, samples.references)
    _check_lengths(task, samples, prompts, references, has_encoder=has_encoder)
    ids: dict[str, Sequence[Sequence[int]]] = {
        "input_ids": prompts,
        "attention_mask": [[1] * len(one) for one in prompts],
    }
    lengths = sorted({len(one) for one in prompts})
    return PromptDataset(
        **fields_of(make_dataset(bucketed(ids, lengths, tokenizer), samples, tokenizer)),
        prompts=tuple(prompts),
        references=samples.references,
        reference_ids=references,
        documents=_numbered(samples.documents),
        vocabulary=_vocabulary(tokenizer),
        max_new_tokens=task.max_new_tokens,
        stop=tuple(task.stop),
        has_encoder=has_encoder,
    )


def _prompt_ids(
    samples: PromptSamples, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, ...]]:
    if samples.conversations is None:
        encoded = tokenizer(list(samples.texts), truncation=False, verbose=False)
        return [tuple(one) for one in encoded["input_ids"]]
    return templated(tokenizer, samples.conversations, samples.rows)


def _reference_ids(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str] | None,
    prompts: Sequence[tuple[int, ...]],
    references: Sequence[str],
) -> tuple[tuple[int, ...], ...]:
    """What each reference is behind its prompt.

    Tokenised in one piece, as a model would have read them; apart where a token would go across
    the seam, and behind a chat template, which ends with a token of its own.

    Args:
        tokenizer: of the checkpoint.
        texts: the prompts; None behind a chat template.
        prompts: their tokens.
        references: the texts that would have been right.
    """
    settings: dict[str, Any] = {"truncation": False, "verbose": False}
    apart: list[list[int]] = tokenizer(list(references), add_special_tokens=False, **settings)[
        "input_ids"
    ]
    if texts is None:
        return tuple(map(tuple, apart))
    whole = [f"{text}{reference}" for text, reference in zip(texts, references, strict=True)]
    joined: list[list[int]] = tokenizer(whole, **settings)["input_ids"]
    return tuple(
        tuple(one[len(prompt) :]) if tuple(one[: len(prompt)]) == prompt else tuple(alone)
        for one, prompt, alone in zip(joined, prompts, apart, strict=True)
    )


def _label_ids(
    tokenizer: PreTrainedTokenizerBase, references: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """References as the library makes the labels that such a model is trained with."""
    encoded = tokenizer(text_target=list(references), truncation=False, verbose=False)
    return tuple(tuple(one) for one in encoded["input_ids"])


def _check_lengths(
    task: TextGeneration,
    samples: PromptSamples,
    prompts: Sequence[tuple[int, ...]],
    references: Sequence[tuple[int, ...]] | None,
    *,
    has_encoder: bool,
) -> None:
    """Refuse what cannot be asked: nothing is cut in silence.

    Raises:
        DataError: with how many rows, and the longest.
    """
    empty = [
        row
        for row, prompt in enumerate(prompts)
        if not prompt or (references is not None and not references[row])
    ]
    if empty:
        raise DataError(
            f"the tokenizer makes no token at all of the prompt or reference of {len(empty)} rows, "
            f"the first in row {samples.rows[empty[0]]} of the data, counted from 0",
            next_step="drop empty texts from the data",
        )
    behind = [
        max(task.max_new_tokens, 0 if references is None else len(references[row]))
        for row in range(len(prompts))
    ]
    if has_encoder:
        _check_sides(task, samples, prompts, behind)
        return
    lengths = [len(prompt) + more for prompt, more in zip(prompts, behind, strict=True)]
    longer = [row for row, length in enumerate(lengths) if length > task.max_length]
    if longer:
        longest = max(longer, key=lengths.__getitem__)
        raise DataError(
            f"{len(longer)} of {len(prompts)} prompts leave no room within max_length "
            f"{task.max_length} for {task.max_new_tokens} new tokens or for their reference; the "
            f"longest, row {samples.rows[longest]} of the data counted from 0, takes "
            f"{len(prompts[longest])} + {behind[longest]} tokens",
            next_step="raise the task's max_length (as far as the models have positions), lower "
            "max_new_tokens, or drop these rows",
        )


def _check_sides(
    task: TextGeneration,
    samples: PromptSamples,
    prompts: Sequence[tuple[int, ...]],
    behind: Sequence[int],
) -> None:
    """Refuse prompts that the encoder cannot hold, and references that the decoder cannot.

    Raises:
        DataError: with how many rows, and the longest.
    """
    # The decoder reads a start token before its answer.
    sides = (
        ("prompts", [len(one) for one in prompts]),
        ("answers or references", [1 + one for one in behind]),
    )
    for what, lengths in sides:
        longer = [row for row, length in enumerate(lengths) if length > task.max_length]
        if longer:
            longest = max(longer, key=lengths.__getitem__)
            raise DataError(
                f"{len(longer)} of {len(prompts)} {what} are longer than max_length "
                f"{task.max_length}; the longest, row {samples.rows[longest]} of the data counted "
                f"from 0, takes {lengths[longest]} tokens",
                next_step="raise the task's max_length (as far as the models have positions), "
                "lower max_new_tokens, or shorten these rows: nothing is cut in silence",
            )


def _numbered(names: Sequence[str] | None) -> NDArray[np.int64] | None:
    if names is None:
        return None
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    content = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()

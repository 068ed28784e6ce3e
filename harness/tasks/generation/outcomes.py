"""What a model wrote behind each prompt, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.tasks.generation.overlap import ROUGE, rouge_scores
from harness.tasks.generation.rows import PromptDataset
from harness.tasks.outcomes import Batch, Columns, Outcomes, StoredOutcomes, Tensors
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.types import ModelVariant, TensorSpec
from harness.types import generation as names

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
_VOCABULARY = "vocabulary"
REFERENCE_LOGPROBS = "reference_logprobs"
"""Output beside a stream's: log probabilities of each reference's tokens, where the server was
asked for them."""
STREAM_OUTPUTS = (
    TensorSpec(names.TEXT_OUTPUT, "BYTES", (-1,)),
    TensorSpec(names.FINISH_REASON, "BYTES", (1,)),
    TensorSpec(names.NUM_INPUT_TOKENS, "UINT32", (1,)),
    TensorSpec(names.NUM_OUTPUT_TOKENS, "UINT32", (1,)),
    TensorSpec(names.TOKEN_IDS, "INT32", (-1,)),
)
"""Outputs of each response of a stream."""


@dataclass(frozen=True)
class WrittenText:
    """A model's answer to one prompt."""

    text: str
    tokens: tuple[int, ...]
    """The new tokens; the one that ended the text is the last."""
    ended: bool
    """Whether the model (or a stop string) ended it; not: it reached the limit of its length."""
    reference_logprobs: Floats | None = None
    """Natural logarithm of the probability of each token of the reference behind the prompt,
    (tokens,); None where the server does not tell."""


@dataclass(frozen=True)
class WrittenAnswer:
    """The answers to the prompts of one request."""

    texts: tuple[WrittenText, ...]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """False where the likelihood of a reference is not a number, (n,)."""
        return np.array(
            [
                one.reference_logprobs is None or bool(np.isfinite(one.reference_logprobs).all())
                for one in self.texts
            ],
            dtype=np.bool_,
        )


def read_written(outputs: Tensors) -> WrittenAnswer:
    """The texts of streams that have ended, a row each.

    Args:
        outputs: `text_output`, `finish_reason` (texts, a row each), `token_ids` and, where it was
            asked for, `reference_logprobs` (an array a row each).
    """
    logprobs = outputs.get(REFERENCE_LOGPROBS, [None] * len(outputs[names.TEXT_OUTPUT]))
    rows = zip(
        outputs[names.TEXT_OUTPUT],
        outputs[names.TOKEN_IDS],
        outputs[names.FINISH_REASON],
        logprobs,
        strict=True,
    )
    return WrittenAnswer(
        tuple(
            WrittenText(
                str(text),
                tuple(map(int, tokens)),
                ended=reason == names.FinishReason.STOP.value,
                reference_logprobs=None if values is None else np.asarray(values, np.float64),
            )
            for text, tokens, reason, values in rows
        )
    )


@rowwise
@dataclass(frozen=True, kw_only=True)
class WrittenOutcomes(Outcomes):
    """A text for each prompt, and how probable the reference was."""

    kind = "generation"

    texts: tuple[str, ...] = field(metadata=PER_ROW)
    """The texts that were written; empty where unanswered."""
    tokens: tuple[Integers, ...] = field(metadata=PER_ROW)
    """Tokens of each text; the one that ended it is the last."""
    ended: NDArray[np.bool_] = field(metadata=PER_ROW)
    """Whether a text ended by itself, and not at the limit of its length, (rows,)."""
    log_likelihood: Floats = field(metadata=PER_ROW)
    """Natural logarithm, of a reference's tokens behind its prompt; NaN where it is not known,
    (rows,)."""
    reference_tokens: Integers = field(metadata=PER_ROW)
    """Tokens of each reference, (rows,); 0 without references."""
    reference_bytes: Integers = field(metadata=PER_ROW)
    """UTF-8 bytes of each reference, (rows,); 0 without references."""
    rouge: Mapping[str, Floats] = field(metadata=PER_ROW)
    """By metric, each text's score against its reference; empty where ROUGE is not told."""
    documents: Integers | None = field(metadata=PER_ROW)
    """(rows,) the document that each prompt is of; None where each stands alone."""
    vocabulary: str = field(metadata=OF_ALL)
    """Digest of the tokenizer's tokens; empty where the server tells texts and no tokens."""

    @property
    def groups(self) -> Integers | None:
        """Prompts of one document belong together."""
        return self.documents

    def columns(self) -> Columns:
        """`text`, `tokens`, `ended`, `log_likelihood`, `reference_tokens`, ..., `rouge_l`."""
        return {
            "text": pa.array(self.texts, pa.string()),
            "new_tokens": pa.array(self.tokens, pa.list_(pa.int64())),
            "ended": pa.array(self.ended),
            "log_likelihood": pa.array(self.log_likelihood),
            "reference_tokens": pa.array(self.reference_tokens),
            "reference_bytes": pa.array(self.reference_bytes),
            **{name: pa.array(values) for name, values in self.rouge.items()},
        }

    def file_metadata(self) -> Mapping[str, str]:
        """The digest of the vocabulary."""
        return {_VOCABULARY: self.vocabulary}


def written_outcomes(
    variant: ModelVariant,
    dataset: PromptDataset,
    replies: Iterable[tuple[Batch, WrittenAnswer | None]],
) -> WrittenOutcomes:
    """Every prompt's text; one whose reference has no likelihood, where others have, is unanswered.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    answers: list[WrittenText | None] = [None] * dataset.size
    for batch, answer in replies:
        if answer is not None:
            for row, text, usable in zip(
                batch.rows.tolist(), answer.texts, answer.usable, strict=True
            ):
                answers[row] = text if usable else None
    nothing = WrittenText("", (), ended=False)
    texts = [one or nothing for one in answers]
    references = dataset.references
    return WrittenOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=np.array([one is None for one in answers], dtype=np.bool_),
        texts=tuple(one.text for one in texts),
        tokens=tuple(np.array(one.tokens, dtype=np.int64) for one in texts),
        ended=np.array([one.ended for one in texts], dtype=np.bool_),
        log_likelihood=np.array([_total(one.reference_logprobs) for one in texts]),
        reference_tokens=_lengths(dataset.reference_ids, dataset.size),
        reference_bytes=_lengths(
            None if references is None else [one.encode() for one in references], dataset.size
        ),
        rouge={} if references is None else rouge_scores(references, [one.text for one in texts]),
        documents=dataset.documents,
        vocabulary=dataset.vocabulary if all(one.tokens or not one.text for one in texts) else "",
    )


def same_tokens(one: WrittenOutcomes, other: WrittenOutcomes) -> bool:
    """Whether texts compare token by token: both models have the same tokens, and both are told."""
    return bool(one.vocabulary) and one.vocabulary == other.vocabulary


def _total(logprobs: Floats | None) -> float:
    return np.nan if logprobs is None else float(logprobs.sum(dtype=np.float64))


def _lengths(values: Iterable[tuple[int, ...] | bytes] | None, size: int) -> Integers:
    if values is None:
        return np.zeros(size, dtype=np.int64)
    return np.array([len(one) for one in values], dtype=np.int64)


def restore_written(stored: StoredOutcomes) -> WrittenOutcomes:
    """Read outcomes back from their file.

    Raises:
        KeyError: a column is missing.
    """
    return WrittenOutcomes(
        **stored.common,
        texts=stored.rows("text"),
        tokens=tuple(np.array(row, dtype=np.int64) for row in stored.rows("new_tokens")),
        ended=stored.array("ended"),
        log_likelihood=stored.array("log_likelihood"),
        reference_tokens=stored.array("reference_tokens"),
        reference_bytes=stored.array("reference_bytes"),
        rouge={name: stored.array(name) for name in ROUGE.values() if stored.has(name)},
        documents=stored.array("group") if stored.has("group") else None,
        vocabulary=stored.metadata[_VOCABULARY],
    )

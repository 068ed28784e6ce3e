"""What a language model answered to each window, and how that is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.tasks.causal_lm.rows import WindowDataset, WindowGroup
from harness.tasks.encoding import EncodedGroup
from harness.tasks.outcomes import Batch, Columns, Outcomes, RowAnswer, StoredOutcomes, Tensors
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.types import ModelVariant

Integers = NDArray[np.int64]


@rowwise
@dataclass(frozen=True, kw_only=True)
class WindowOutcomes(Outcomes):
    """A likelihood a window, and what it is the likelihood of."""

    kind = "causal-lm"

    log_likelihood: NDArray[np.float64] = field(metadata=PER_ROW)
    """Natural logarithm, of a window's scored tokens; NaN where unanswered, (rows,)."""
    tokens: Integers = field(metadata=PER_ROW)
    """Scored tokens per window, (rows,); see `scored_tokens`."""
    bytes: Integers = field(metadata=PER_ROW)
    """UTF-8 bytes that the scored tokens stand for, (rows,)."""
    words: Integers = field(metadata=PER_ROW)
    """Words that end in those bytes, (rows,)."""
    greedy: tuple[Integers, ...] = field(metadata=PER_ROW)
    """The model's likeliest token in the place of each scored one, a row each; empty where
    unanswered."""
    documents: Integers = field(metadata=PER_ROW)
    """The document that each window is of, (rows,); below 0 where that is not known."""

    @property
    def groups(self) -> Integers | None:
        """Windows of one document belong together, where documents are known."""
        return None if (self.documents < 0).any() else self.documents

    def columns(self) -> Columns:
        """`log_likelihood`, `tokens`, `bytes`, `words`, and `greedy_tokens`, a list a row."""
        return {
            "log_likelihood": pa.array(self.log_likelihood),
            "tokens": pa.array(self.tokens),
            "bytes": pa.array(self.bytes),
            "words": pa.array(self.words),
            "greedy_tokens": pa.array(self.greedy, pa.list_(pa.int64())),
        }


@dataclass(frozen=True)
class TokenAnswer:
    """A batch's likelihoods and likeliest tokens."""

    log_likelihood: NDArray[np.float64]
    """Natural logarithm, summed over a row's scored tokens, (n,)."""
    greedy: tuple[Integers, ...]
    """For each row, the likeliest token in the place of each scored one."""
    usable: NDArray[np.bool_]
    """False where the likelihood is not a number, (n,)."""


def scored_tokens(group: EncodedGroup) -> NDArray[np.bool_]:
    """The tokens that a language model is scored on, (n, length).

    All real ones but the first, which nothing precedes, and the special ones in front of a text.
    """
    mask = group.inputs["attention_mask"] == 1
    first = group.first_scored if isinstance(group, WindowGroup) else 1
    return np.asarray(mask & (np.arange(group.length) >= first))


def read_tokens(batch: Batch, outputs: Tensors) -> TokenAnswer:
    """The answer in `token_logprobs` and `greedy_token_ids`, (n, length) each.

    At each position `token_logprobs` holds the log probability of that token given those before
    it, and `greedy_token_ids` the likeliest token to come next.
    """
    scored = scored_tokens(batch.group)
    logprobs = outputs["token_logprobs"].astype(np.float64)
    log_likelihood = np.where(scored, logprobs, 0.0).sum(axis=1)
    said = outputs["greedy_token_ids"].astype(np.int64)
    return TokenAnswer(
        log_likelihood,
        tuple(row[:-1][mask[1:]] for row, mask in zip(said, scored, strict=True)),
        np.isfinite(log_likelihood),
    )


def compared_tokens(batch: Batch, outputs: Tensors) -> list[RowAnswer]:
    """The next tokens, and the log probabilities of those that are scored."""
    columns = scored_tokens(batch.group), outputs["greedy_token_ids"], outputs["token_logprobs"]
    return [
        RowAnswer(said[mask].astype(np.int64), logprobs[mask].astype(np.float64))
        for mask, said, logprobs in zip(*columns, strict=True)
    ]


def window_outcomes(
    variant: ModelVariant,
    dataset: WindowDataset,
    replies: Iterable[tuple[Batch, TokenAnswer | None]],
) -> WindowOutcomes:
    """Every window's likelihood; NaN without a usable answer."""
    log_likelihood = np.full(dataset.size, np.nan)
    tokens = np.zeros(dataset.size, dtype=np.int64)
    greedy = [np.empty(0, dtype=np.int64)] * dataset.size
    for batch, answer in replies:
        tokens[batch.rows] = scored_tokens(batch.group).sum(axis=1)
        if answer is None:
            continue
        log_likelihood[batch.rows] = np.where(answer.usable, answer.log_likelihood, np.nan)
        for place in np.flatnonzero(answer.usable).tolist():
            greedy[int(batch.rows[place])] = answer.greedy[place]
    return WindowOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=np.isnan(log_likelihood),
        log_likelihood=log_likelihood,
        tokens=tokens,
        bytes=dataset.byte_counts,
        words=dataset.word_counts,
        greedy=tuple(greedy),
        documents=dataset.owners,
    )


def restore_windows(stored: StoredOutcomes) -> WindowOutcomes:
    """Read outcomes back; older files tell no words, tokens or documents."""
    size = stored.size
    nothing = np.zeros(size, dtype=np.int64)
    greedy = stored.rows("greedy_tokens") if stored.has("greedy_tokens") else ((),) * size
    return WindowOutcomes(
        **stored.common,
        log_likelihood=stored.array("log_likelihood"),
        tokens=stored.array("tokens"),
        bytes=stored.array("bytes"),
        words=stored.array("words") if stored.has("words") else nothing,
        greedy=tuple(np.array(row, dtype=np.int64) for row in greedy),
        documents=stored.array("group") if stored.has("group") else -1 - np.arange(size),
    )

"""Texts as tensors, each behind its prompt, cut where the checkpoint's own library cuts them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError
from harness.tasks.encoding import EncodedDataset, encode_texts, fields_of
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.rowwise import OF_ALL, cut_by, rowwise
from harness.tasks.samples import Samples
from harness.tasks.sentence_embedding.modules import (
    EmbeddingModules,
    Similarity,
    read_modules,
)
from harness.tasks.sentence_embedding.rows import (
    EmbeddingSamples,
    Retrieval,
    ScoredPairs,
    with_prompts,
)
from harness.tasks.sentence_embedding.section import SentenceEmbedding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _places(rows: NDArray[np.int64]) -> dict[int, int]:
    return {old: new for new, old in enumerate(rows.tolist())}


def _scored_among(dataset: EmbeddingDataset, rows: NDArray[np.int64]) -> ScoredPairs | None:
    """The pairs of which both texts are taken; None where there are none."""
    if dataset.scored is None:
        return None
    place = _places(rows)
    pairs = zip(dataset.scored.first, dataset.scored.second, dataset.scored.scores, strict=True)
    kept = [(place[a], place[b], score) for a, b, score in pairs if a in place and b in place]
    if not kept:
        return None
    first, second, scores = zip(*kept, strict=True)
    return ScoredPairs(first, second, scores)


def _retrieval_among(dataset: EmbeddingDataset, rows: NDArray[np.int64]) -> Retrieval | None:
    """The whole retrieval set; None where a query or document is not taken."""
    one, place = dataset.retrieval, _places(rows)
    if one is None or not all(text in place for text in (*one.queries, *one.documents)):
        return None
    return replace(
        one,
        queries=tuple(place[text] for text in one.queries),
        documents=tuple(place[text] for text in one.documents),
    )


@rowwise
@dataclass(frozen=True, kw_only=True)
class EmbeddingDataset(EncodedDataset):
    """The encoded texts, and what their vectors are judged by."""

    scored: ScoredPairs | None = field(metadata=cut_by(_scored_among))
    retrieval: Retrieval | None = field(metadata=cut_by(_retrieval_among))
    similarity: Similarity = field(metadata=OF_ALL)
    """The similarity that ranks documents."""


def modules_of(task: SentenceEmbedding, folder: Path) -> EmbeddingModules:
    """A checkpoint's way from token vectors to the text's.

    Raises:
        CheckpointError: a module that is not known here, or no word on the pooling.
    """
    return read_modules(folder, pooling=task.pooling, normalised=task.normalised)


def encode_embeddings(
    task: SentenceEmbedding,
    samples: Samples,
    tokenizer: PreTrainedTokenizerBase,
    inputs: ModelInputs,
) -> EmbeddingDataset:
    """Texts as tensors.

    Raises:
        DataError: they cannot be encoded.
        CheckpointError: the checkpoint's modules are not known here.
    """
    modules = modules_of(task, Path(tokenizer.name_or_path))
    _check_case(modules, tokenizer)
    shorter = task.model_copy(update={"max_length": longest(task, modules)})
    own = samples if isinstance(samples, EmbeddingSamples) else None
    asked = replace(own, texts=with_prompts(own, prompts(modules))) if own else samples
    encoded = encode_texts(shorter, asked, tokenizer, inputs, buckets=task.buckets)
    return EmbeddingDataset(
        **fields_of(encoded),
        scored=own.scored if own else None,
        retrieval=own.retrieval if own else None,
        similarity=modules.similarity,
    )


def longest(task: SentenceEmbedding, modules: EmbeddingModules) -> int:
    """Tokens of a text: the task's max_length, or the checkpoint's own where that is less."""
    return min(task.max_length, modules.max_length or task.max_length)


def prompts(modules: EmbeddingModules) -> dict[str, str]:
    """What stands before a text of each role."""
    return {
        "text": modules.prompt,
        "query": modules.query_prompt,
        "document": modules.document_prompt,
    }


def _check_case(modules: EmbeddingModules, tokenizer: PreTrainedTokenizerBase) -> None:
    if modules.lower_case and tokenizer("A")["input_ids"] != tokenizer("a")["input_ids"]:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: sentence_bert_config.json says do_lower_case, and its "
            "tokenizer tells A from a",
            next_step="save it with a tokenizer that lowers texts itself",
        )

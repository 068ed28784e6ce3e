"""The vectors that a model answered, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.tasks.outcomes import (
    Batch,
    Columns,
    Outcomes,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    matrix_column,
)
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.sentence_embedding.encoding import EmbeddingDataset
from harness.types import ModelVariant


@rowwise
@dataclass(frozen=True, kw_only=True)
class EmbeddingOutcomes(Outcomes):
    """A vector a text."""

    kind = "sentence-embedding"

    vectors: NDArray[np.float32] = field(metadata=PER_ROW)
    """(rows, dimensions); NaN where unanswered."""

    def columns(self) -> Columns:
        """`embedding`, a list a row."""
        return {"embedding": matrix_column(self.vectors)}


@dataclass(frozen=True)
class VectorAnswer:
    """A batch's vectors."""

    vectors: NDArray[np.float32]
    """(n, dimensions)."""
    usable: NDArray[np.bool_]
    """False where some number is none, (n,)."""


def read_vectors(outputs: Tensors) -> VectorAnswer:
    """The answer in the output `sentence_embedding`, (n, dimensions)."""
    vectors = outputs["sentence_embedding"].astype(np.float32)
    return VectorAnswer(vectors, np.asarray(np.isfinite(vectors).all(axis=1)))


def compared_vectors(outputs: Tensors) -> list[RowAnswer]:
    """The numbers of each row; there is no choice among them that could change."""
    return [
        RowAnswer(np.zeros(1, dtype=np.int64), row.astype(np.float64))
        for row in outputs["sentence_embedding"]
    ]


def vector_outcomes(
    variant: ModelVariant,
    dataset: EmbeddingDataset,
    replies: Iterable[tuple[Batch, VectorAnswer | None]],
) -> EmbeddingOutcomes:
    """Every text's vector."""
    vectors = np.full((dataset.size, variant.outputs[0].shape[-1]), np.nan, dtype=np.float32)
    for batch, answer in replies:
        if answer is not None:
            vectors[batch.rows[answer.usable]] = answer.vectors[answer.usable]
    return _made(variant, vectors)


def _made(variant: ModelVariant, vectors: NDArray[np.float32]) -> EmbeddingOutcomes:
    return EmbeddingOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=np.asarray(np.isnan(vectors).all(axis=1)),
        vectors=vectors,
    )


def text_vector_outcomes(
    variant: ModelVariant,
    dataset: EmbeddingDataset,
    replies: Iterable[tuple[NDArray[np.int64], Tensors | None]],
) -> EmbeddingOutcomes:
    """Every text's vector, of an ensemble that was sent the texts."""
    vectors = np.full((dataset.size, variant.outputs[0].shape[-1]), np.nan, dtype=np.float32)
    for rows, outputs in replies:
        if outputs is not None:
            answer = read_vectors(outputs)
            vectors[rows[answer.usable]] = answer.vectors[answer.usable]
    return _made(variant, vectors)


def restore_vectors(stored: StoredOutcomes) -> EmbeddingOutcomes:
    """Read outcomes back."""
    return EmbeddingOutcomes(**stored.common, vectors=stored.matrix("embedding"))

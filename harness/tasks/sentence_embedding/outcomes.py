"""The vectors that a model answered, how they are kept, and how good they are.

Retrieval is exact: every query against every document, ranked by the checkpoint's similarity, equal
ones in the corpus' order. Of a query, nDCG@10 is trec_eval's (gain: the relevance as it is;
discount: log2 of rank + 1), and recall@k the share of its relevant documents among the first k. A
document is not found by the query of the same id, as BEIR counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.statistics.metrics import Statistic, correlates, share_statistic, spearman_sums
from harness.tasks.outcomes import (
    Batch,
    Columns,
    Outcomes,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    matrix_column,
)
from harness.tasks.rowwise import OF_ALL, PER_ROW, rowwise
from harness.tasks.sentence_embedding.rows import EmbeddingDataset, ScoredPairs
from harness.types import ModelVariant


@rowwise
@dataclass(frozen=True, kw_only=True)
class EmbeddingOutcomes(Outcomes):
    """Outcome rows with one vector per text."""

    kind = "sentence-embedding"

    vectors: NDArray[np.float32] = field(metadata=PER_ROW)
    """(rows, dimensions); NaN where unanswered."""
    similarity: str = field(metadata=OF_ALL, default="")
    """The checkpoint's own, by which its vectors rank documents, whatever another model's is; empty
    in files that do not tell it: that of the data set they are scored on."""

    def columns(self) -> Columns:
        """`embedding`, a list a row."""
        return {"embedding": matrix_column(self.vectors)}

    def file_metadata(self) -> Mapping[str, str]:
        """The similarity."""
        return {_SIMILARITY: self.similarity}


_SIMILARITY = "similarity"


@dataclass(frozen=True)
class VectorAnswer:
    """The vectors that a batch was answered with."""

    vectors: NDArray[np.float32]
    """(n, dimensions) vectors."""
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
    """The vector of every text, as outcome rows."""
    vectors = np.full((dataset.size, variant.outputs[0].shape[-1]), np.nan, dtype=np.float32)
    for batch, answer in replies:
        if answer is not None:
            vectors[batch.rows[answer.usable]] = answer.vectors[answer.usable]
    return _made(variant, vectors, dataset)


def _made(
    variant: ModelVariant, vectors: NDArray[np.float32], dataset: EmbeddingDataset
) -> EmbeddingOutcomes:
    return EmbeddingOutcomes(
        variant=variant.name,
        sha256=variant.sha256,
        unanswered=np.asarray(np.isnan(vectors).all(axis=1)),
        vectors=vectors,
        similarity=dataset.similarity,
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
    return _made(variant, vectors, dataset)


def restore_vectors(stored: StoredOutcomes) -> EmbeddingOutcomes:
    """Read outcomes back; older files tell no similarity."""
    return EmbeddingOutcomes(
        **stored.common,
        vectors=stored.matrix("embedding"),
        similarity=stored.metadata.get(_SIMILARITY, ""),
    )


Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Integers = NDArray[np.int64]
NDCG_AT = 10
RECALL_AT = (10, 100)
MAX_UNANSWERED_SHARE = 0.01
"""Largest share of pairs without both vectors. Such a pair has no cosine and cannot be counted as
wrong; beyond this the rest is no longer the same test, and no correlation is told."""
_BLOCK = 256
"""Queries ranked at once: bounds the memory."""


@dataclass(frozen=True)
class Ranked:
    """How each query did, (queries,) each."""

    ndcg: Floats
    """nDCG at 10 of each query, 0 to 1."""
    recall: Mapping[int, Floats]
    """Recall of each query, by k, 0 to 1."""


def cosines(first: Vectors, second: Vectors) -> Floats:
    """Cosine of each pair of rows, (rows,); NaN where a vector has no length."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    undefined = np.full(len(a), np.nan)
    found: Floats = np.divide((a * b).sum(axis=1), lengths, out=undefined, where=lengths > 0)
    return found


def rank(
    queries: Vectors,
    documents: Vectors,
    relevance: Sequence[Mapping[int, float]],
    *,
    left_out: Sequence[int | None],
    dot: bool = False,
) -> Ranked:
    """Rank every document for every query.

    Args:
        queries: (queries, dimensions); a row of NaN finds nothing.
        documents: (documents, dimensions); a row of NaN is never found.
        relevance: of each query, relevance above 0 by position of the document; never empty.
        left_out: the document that each query is, or None.
        dot: rank by the dot product rather than the cosine.
    """
    q, d = _lengthened(queries, dot=dot), _lengthened(documents, dot=dot)
    known = np.isfinite(d).all(axis=1)
    ndcg = np.zeros(len(q))
    recall = {k: np.zeros(len(q)) for k in RECALL_AT}
    most = min(max(RECALL_AT), len(d))
    for start in range(0, len(q), _BLOCK):
        block = q[start : start + _BLOCK]
        scores = np.where(known, np.nan_to_num(block) @ np.nan_to_num(d).T, -np.inf)
        for place, row in enumerate(scores):
            query = start + place
            own = left_out[query]
            if own is not None:
                row[own] = -np.inf
            if not np.isfinite(block[place]).all():
                continue
            found = _first(row, most)
            ndcg[query] = _ndcg(found, relevance[query])
            for k, values in recall.items():
                hits = sum(int(one) in relevance[query] for one in found[:k])
                values[query] = hits / len(relevance[query])
    return Ranked(ndcg, recall)


def _lengthened(vectors: Vectors, *, dot: bool) -> Floats:
    """The vectors as they are for dot products, scaled to length 1 for cosines."""
    values = vectors.astype(np.float64)
    if dot:
        return values
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    undefined = np.full_like(values, np.nan)
    found: Floats = np.divide(values, lengths, out=undefined, where=lengths > 0)
    return found


def _first(scores: Floats, most: int) -> Integers:
    """Positions of the highest scores, highest first; equal ones by position; none of -inf."""
    order = np.argsort(-scores, kind="stable")[:most]
    return order[np.isfinite(scores[order])]


def _ndcg(found: Integers, relevance: Mapping[int, float]) -> float:
    discounts = np.log2(np.arange(2, NDCG_AT + 2))
    gains = np.array([relevance.get(int(one), 0.0) for one in found[:NDCG_AT]])
    ideal = np.array(sorted(relevance.values(), reverse=True)[:NDCG_AT])
    best = float((ideal / discounts[: len(ideal)]).sum())
    return float((gains / discounts[: len(gains)]).sum()) / best


def embedding_statistics(
    vectors: Vectors, dataset: EmbeddingDataset, kept: NDArray[np.bool_], similarity: str = ""
) -> tuple[Statistic, ...]:
    """Spearman's correlation of cosines with the scores of pairs, nDCG and recall.

    Args:
        vectors: of every text, (rows, dimensions). Where unanswered NaN: such a query finds
            nothing, and such a document is never found.
        dataset: what they are judged by.
        kept: texts whose pairs count, (rows,): a pair with another is left out.
        similarity: that ranks documents for these vectors; empty: the data set's.
    """
    found: list[Statistic] = []
    if dataset.scored is not None:
        first, second = np.array(dataset.scored.first), np.array(dataset.scored.second)
        inside = kept[first] & kept[second]
        pairs = pairs_statistic(vectors, dataset.scored, inside)
        if pairs is not None and (~inside).mean() <= MAX_UNANSWERED_SHARE:
            found.append(pairs)
    if dataset.retrieval is not None:
        ranked = rank_queries(vectors, dataset, similarity)
        found.append(share_statistic(f"ndcg_at_{NDCG_AT}", ranked.ndcg))
        found += [share_statistic(f"recall_at_{k}", ranked.recall[k]) for k in RECALL_AT]
    return tuple(found)


def pairs_statistic(
    vectors: Vectors, scored: ScoredPairs, inside: NDArray[np.bool_]
) -> Statistic | None:
    """Spearman's correlation of cosines with scores over some pairs.

    Args:
        vectors: of every text, (rows, dimensions).
        scored: the pairs.
        inside: those that count, (pairs,); both texts of each are answered.

    Returns:
        None where it is not defined: of fewer than three pairs, where all are alike, or where a
        vector has no length.
    """
    first, second = np.array(scored.first)[inside], np.array(scored.second)[inside]
    near = cosines(vectors[first], vectors[second])
    scores = np.array(scored.scores)[inside]
    if not np.isfinite(near).all() or not correlates(near, scores):
        return None
    value = float(scipy.stats.spearmanr(near, scores).statistic)
    return Statistic("sts_spearman", value, spearman_sums(near, scores))


def retrieval_statistic(
    vectors: Vectors, dataset: EmbeddingDataset, inside: NDArray[np.bool_], similarity: str
) -> Statistic | None:
    """nDCG@10 over some queries, (queries,), against all documents; None where there are none."""
    if not inside.any():
        return None
    ranked = rank_queries(vectors, dataset, similarity)
    return share_statistic(f"ndcg_at_{NDCG_AT}", ranked.ndcg[inside])


def rank_queries(vectors: Vectors, dataset: EmbeddingDataset, similarity: str) -> Ranked:
    """How each query of a data set's retrieval set does.

    Args:
        vectors: of every text, (rows, dimensions); a row of NaN finds nothing and is not found.
        dataset: which has a retrieval set.
        similarity: of the model whose vectors they are; empty: the data set's.
    """
    one = dataset.retrieval
    assert one is not None  # noqa: S101  (the caller's promise; tells the type checker)
    return rank(
        vectors[list(one.queries)],
        vectors[list(one.documents)],
        one.relevance,
        left_out=one.left_out,
        dot=(similarity or dataset.similarity) == "dot",
    )

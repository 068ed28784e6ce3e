"""Where a sentence encoder lost quality: from step to step, by length of text, by example.

It is told in the Spearman correlation of the pairs where they have a score, else in nDCG@10 of the
retrieval set. What is counted are pairs, or queries: neither metric has a value for a single text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.statistics.intervals import bounds, side_by_side
from harness.statistics.metrics import Statistic
from harness.tasks.losses import MOST_EXAMPLES, Division, LossDetails, Step, shortened
from harness.tasks.sentence_embedding.outcomes import (
    EmbeddingOutcomes,
    cosines,
    pairs_statistic,
    rank_queries,
    retrieval_statistic,
)
from harness.tasks.sentence_embedding.rows import EmbeddingDataset
from harness.types.losses import ChainLink, Estimate, LossChain, SliceLoss, WorstExample
from harness.words.numbers import cosine, number

OF_PAIRS, OF_QUERIES = "sts_spearman", "ndcg_at_10"
FEWEST = 30
"""Pairs or queries from which on a slice has an interval."""
ALIKE = 0.999
"""Cosine from which on a text's vector counts as unchanged by a step."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """What losses are counted in: the pairs with a score, or the queries."""

    metric: str
    units: int
    answered: Callable[[Mask], Mask]
    """(units,) which of them count, where these texts were answered."""
    statistic: Callable[[Vectors, Mask, str], Statistic | None]
    """The metric of all texts' vectors over some of them, by their model's similarity; None where
    it is not defined."""


def judged(dataset: EmbeddingDataset) -> Judged | None:
    """How a data set judges vectors; None where it has neither scores nor a retrieval set."""
    scored, retrieval = dataset.scored, dataset.retrieval
    if scored is not None:
        first, second = np.array(scored.first), np.array(scored.second)
        return Judged(
            OF_PAIRS,
            len(first),
            lambda kept: np.asarray(kept[first] & kept[second]),
            lambda vectors, inside, _: pairs_statistic(vectors, scored, inside),
        )
    if retrieval is not None:
        queries = np.array(retrieval.queries)
        return Judged(
            OF_QUERIES,
            len(queries),
            lambda kept: np.asarray(kept[queries]),
            lambda vectors, inside, by: retrieval_statistic(vectors, dataset, inside, by),
        )
    return None


def unit_texts(dataset: EmbeddingDataset, texts: Sequence[str]) -> tuple[str, ...]:
    """The text of each pair, joined by a bar, or of each query; else the texts themselves."""
    if dataset.scored is not None:
        pairs = zip(dataset.scored.first, dataset.scored.second, strict=True)
        return tuple(f"{texts[first]} | {texts[second]}" for first, second in pairs)
    if dataset.retrieval is not None:
        return tuple(texts[place] for place in dataset.retrieval.queries)
    return tuple(texts)


def vector_chain(steps: Sequence[Step[EmbeddingOutcomes]], *, seed: int) -> LossChain | None:
    """The loss from step to step, over the pairs or queries that every step answered."""
    dataset = steps[0].dataset
    how = judged(dataset) if isinstance(dataset, EmbeddingDataset) else None
    if how is None:
        return None
    kept = np.logical_and.reduce([~step.outcomes.unanswered for step in steps])
    inside = how.answered(kept)
    found = [
        how.statistic(_known(one.vectors, kept), inside, one.similarity)
        for one in (step.outcomes for step in steps)
    ]
    if not inside.any() or any(one is None for one in found):
        return None
    values = [one for one in found if one is not None]
    links = [ChainLink(steps[0].name, values[0].value, Estimate(0.0), 0)]
    for place, step in enumerate(steps[1:], 1):
        near = _beside(steps[place - 1].outcomes, step.outcomes, kept)
        links.append(
            ChainLink(
                step.name,
                values[place].value,
                lost(values[place - 1], values[place], seed=seed),
                int(kept.sum()) if near is None else int((near < ALIKE).sum()),
                None if near is None else float(near.mean()),
            )
        )
    total = lost(values[0], values[-1], seed=seed)
    left_out = how.units - int(inside.sum())
    return LossChain(how.metric, int(inside.sum()), left_out, tuple(links), total)


def lost(before: Statistic, after: Statistic, *, seed: int) -> Estimate:
    """The metric before less the metric after, on the same pairs or queries."""
    found = bounds(side_by_side(before.sums, after.sums, difference=True), seed=seed)
    return Estimate(before.value - after.value, found.low, found.high)


def slices_of_vectors(
    outcomes: EmbeddingOutcomes,
    teacher: EmbeddingOutcomes,
    divisions: Sequence[Division],
    dataset: EmbeddingDataset,
    *,
    seed: int,
) -> tuple[SliceLoss, ...]:
    """Losses by length of a pair's texts, or of a query; too small slices last."""
    how = judged(dataset)
    if how is None:
        return ()
    kept = ~(outcomes.unanswered | teacher.unanswered)
    usable = how.answered(kept)
    own, theirs = _known(outcomes.vectors, kept), _known(teacher.vectors, kept)
    found = []
    for division in divisions:
        for place, name in enumerate(division.slices):
            inside = usable & (division.member == place)
            if not inside.any():
                continue
            before = how.statistic(theirs, inside, teacher.similarity)
            after = how.statistic(own, inside, outcomes.similarity)
            if before is not None and after is not None:
                found.append(
                    _slice(division.name, name, int(inside.sum()), before, after, seed=seed)
                )
    return tuple(sorted(found, key=lambda one: (one.loss.low is None, -one.loss.value)))


def _slice(
    slicing: str, name: str, size: int, before: Statistic, after: Statistic, *, seed: int
) -> SliceLoss:
    enough = size >= FEWEST
    loss = lost(before, after, seed=seed) if enough else Estimate(before.value - after.value)
    return SliceLoss(
        slicing=slicing,
        name=name,
        samples=size,
        teacher=before.value,
        variant=after.value,
        loss=loss,
        excess=None,
        p_value=None,
        training_samples=None,
    )


def vector_details(
    outcomes: EmbeddingOutcomes,
    teacher: EmbeddingOutcomes,
    dataset: EmbeddingDataset,
    texts: Sequence[str],
) -> LossDetails:
    """The pairs that moved farthest from where people rank them, or the queries that lost most.

    Args:
        outcomes: the variant's.
        teacher: the teacher's.
        dataset: what both are judged by.
        texts: of each pair or query.
    """
    kept = ~(outcomes.unanswered | teacher.unanswered)
    if dataset.scored is not None:
        return _worst_pairs(outcomes, teacher, dataset, texts, kept)
    if dataset.retrieval is None:
        return LossDetails()
    both = kept[np.array(dataset.retrieval.queries)]
    own, theirs = (
        rank_queries(_known(one.vectors, kept), dataset, one.similarity).ndcg
        for one in (outcomes, teacher)
    )
    relevant = [len(one) for one in dataset.retrieval.relevance]
    labels = [f"{count} relevant" for count in relevant]
    examples = _worst(np.where(both, theirs - own, 0.0), texts, labels, theirs, own)
    return LossDetails(examples=examples, examples_in="loss in nDCG@10")


def _worst_pairs(
    outcomes: EmbeddingOutcomes,
    teacher: EmbeddingOutcomes,
    dataset: EmbeddingDataset,
    texts: Sequence[str],
    kept: Mask,
) -> LossDetails:
    scored = dataset.scored
    assert scored is not None  # noqa: S101  (asked before; tells the type checker)
    first, second = np.array(scored.first), np.array(scored.second)
    both = kept[first] & kept[second]
    true = _ranks(np.array(scored.scores), both)
    own, theirs = (cosines(one.vectors[first], one.vectors[second]) for one in (outcomes, teacher))
    off = [np.abs(_ranks(one, both) - true) for one in (own, theirs)]
    labels = [number(score) for score in scored.scores]
    examples = _worst(np.where(both, off[0] - off[1], 0.0), texts, labels, theirs, own)
    return LossDetails(examples=examples, examples_in="distance from the right rank, 0 to 1")


def _ranks(values: Floats, inside: Mask) -> Floats:
    """Mean ranks of some values as a share of them, 0 to 1; NaN of the others."""
    found = np.full(len(values), np.nan)
    found[inside] = (scipy.stats.rankdata(values[inside]) - 0.5) / max(1, int(inside.sum()))
    return found


def _worst(
    loss: Floats, texts: Sequence[str], labels: Sequence[str], theirs: Floats, own: Floats
) -> tuple[WorstExample, ...]:
    order = np.argsort(-np.nan_to_num(loss), kind="stable")[:MOST_EXAMPLES].tolist()
    return tuple(
        WorstExample(
            row=row,
            text=shortened(texts[row]),
            label=labels[row],
            teacher_says=cosine(theirs[row]),
            variant_says=cosine(own[row]),
            loss=float(loss[row]),
        )
        for row in order
        if loss[row] > 0
    )


def _known(vectors: Vectors, kept: Mask) -> Vectors:
    return np.where(kept[:, None], vectors, np.nan).astype(np.float32)


def _beside(before: EmbeddingOutcomes, after: EmbeddingOutcomes, kept: Mask) -> Floats | None:
    """Cosine of each text's vector with the step before's; None where dimensions differ."""
    if before.vectors.shape != after.vectors.shape:
        return None
    return np.nan_to_num(cosines(before.vectors[kept], after.vectors[kept]))

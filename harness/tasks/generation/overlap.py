"""How much of a reference a written text shares: chrF and ROUGE, prompt by prompt.

sacrebleu counts chrF's character n-grams and rouge-score computes ROUGE. chrF is a function of sums
of counts over all prompts (sacrebleu's `corpus_score`), ROUGE a mean over prompts of each one's F1
(Hugging Face's `evaluate`). Both are from 0 to 1 here; sacrebleu prints chrF times 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.intervals import RowSums
from harness.statistics.metrics import columns
from harness.system.libraries import require_extra

Floats = NDArray[np.float64]

CHARACTER_ORDER = 6
"""Longest n-grams of chrF, as Popović (2015) and sacrebleu have it."""
RECALL_WEIGHT = 2
"""How much more chrF minds what is missing than what is too much (its beta)."""
ROUGE = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}
"""rouge-score's name of each metric, and ours."""
_COUNTS = 3
"""For each order: n-grams of the text, of the reference, and those that both have."""


def chrf_sums(references: Sequence[str], texts: Sequence[str]) -> RowSums:
    """The chrF (order 6, beta 2, white space left out) of texts beside their references.

    Args:
        references: a text that would have been right for each prompt.
        texts: what was written, aligned with `references`; an empty one shares nothing.

    Returns:
        The metric, 0 to 1, of columns that hold for each order the n-grams of the text, those of
        the reference and those in both.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    require_extra("sacrebleu", extra="quality", needed_by="chrF")
    counts = np.array(
        [_shared_counts(one, other) for one, other in zip(texts, references, strict=True)],
        dtype=np.float64,
    )
    table = columns(counts, np.ones(len(counts)))
    mean = counts.mean(axis=0)
    return RowSums(table, _chrf, possible=_extreme_rows(mean), limits=(0.0, 1.0))


def _shared_counts(text: str, reference: str) -> list[int]:
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    counts: list[int] = []
    own, theirs = (extract_all_char_ngrams(one, CHARACTER_ORDER) for one in (text, reference))
    for mine, wanted in zip(own, theirs, strict=True):
        # As sacrebleu: n-grams of an order that the reference is too short for count for nothing.
        counts += [_size(mine) if wanted else 0, _size(wanted), _size(mine & wanted)]
    return counts


def _size(ngrams: Counter[str]) -> int:
    return sum(ngrams.values())


def _extreme_rows(mean: Floats) -> Floats:
    """A prompt of mean length of which nothing is right, and one of which all is."""
    wrong, right = mean.reshape(-1, _COUNTS).copy(), mean.reshape(-1, _COUNTS).copy()
    wrong[:, 2] = 0
    right[:, 0] = right[:, 2] = right[:, 1]
    return columns(np.vstack([wrong.ravel(), right.ravel()]), np.ones(2))


def _chrf(sums: Floats) -> Floats:
    """F of the mean precision and the mean recall over the orders that both sides reach."""
    made, wanted, shared = np.moveaxis(sums[..., :-1].reshape(*sums.shape[:-1], -1, _COUNTS), -1, 0)
    reached = (made > 0) & (wanted > 0)
    orders = np.maximum(reached.sum(axis=-1), 1)
    precision = np.divide(shared, made, out=np.zeros_like(shared), where=reached).sum(-1) / orders
    recall = np.divide(shared, wanted, out=np.zeros_like(shared), where=reached).sum(-1) / orders
    weight = RECALL_WEIGHT**2
    both = np.asarray(weight * precision + recall)
    score: Floats = np.divide(
        (1 + weight) * precision * recall, both, out=np.zeros_like(both), where=both > 0
    )
    return score


def rouge_scores(references: Sequence[str], texts: Sequence[str]) -> Mapping[str, Floats]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (F1, no stemming) of each text beside its reference.

    Args:
        references: a text that would have been right for each prompt.
        texts: what was written, aligned with `references`.

    Returns:
        By metric (`rouge_1`, `rouge_2`, `rouge_l`), a score from 0 to 1 for each prompt. Empty
        where ROUGE cannot be told: see `rouge_reads`.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    if not all(map(rouge_reads, references)):
        return {}
    require_extra("rouge_score", extra="quality", needed_by="ROUGE")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), use_stemmer=False)
    scored = [scorer.score(one, other) for one, other in zip(references, texts, strict=True)]
    return {
        ours: np.array([row[theirs].fmeasure for row in scored]) for theirs, ours in ROUGE.items()
    }


def rouge_reads(text: str) -> bool:
    """Whether most letters and digits of a text are of those that ROUGE reads: a to z, 0 to 9.

    It drops all others: of a text in Greek or Chinese nothing would be left, and every model would
    score 0 on it.
    """
    letters = [letter for letter in text.lower() if letter.isalnum()]
    return 2 * sum(letter.isascii() for letter in letters) > len(letters)

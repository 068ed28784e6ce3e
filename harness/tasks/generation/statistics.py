"""How good written texts are, beside their references and beside the teacher's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.statistics.metrics import (
    Statistic,
    bit_sums,
    perplexity_sums,
    share_statistic,
    sums_statistic,
)
from harness.statistics.paired import Mask, Measure, PairedRows, mean_and_tail, paired_scores
from harness.tasks.generation.agreement import Agreement, agreement, characters
from harness.tasks.generation.outcomes import WrittenOutcomes, same_tokens
from harness.tasks.generation.overlap import chrf_sums
from harness.tasks.losses import MOST_EXAMPLES, shortened
from harness.types.losses import WorstExample

Floats = NDArray[np.float64]

LOSS_METRIC = "rouge_l"
"""Metric that losses are told in where there are references."""
TEACHERS_METRIC = "prefix_agreement"
"""Metric that losses are told in where there are no references."""


def reference_statistics(
    outcomes: WrittenOutcomes, references: Sequence[str] | None, kept: Mask
) -> tuple[Statistic, ...]:
    """Texts beside their references, and how probable these are to the model.

    Args:
        outcomes: of all prompts.
        references: of all prompts; None where there are none, and then nothing is told.
        kept: prompts that count.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    if references is None or not kept.any():
        return ()
    rows = np.flatnonzero(kept).tolist()
    wanted, written = [references[row] for row in rows], [outcomes.texts[row] for row in rows]
    found = [sums_statistic("chrf", chrf_sums(wanted, written))]
    found += [share_statistic(name, scores[kept]) for name, scores in outcomes.rouge.items()]
    likelihood = outcomes.log_likelihood[kept]
    if np.isfinite(likelihood).all():
        tokens, size = outcomes.reference_tokens[kept], outcomes.reference_bytes[kept]
        found += [
            sums_statistic("perplexity", perplexity_sums(likelihood, tokens)),
            sums_statistic("bits_per_byte", bit_sums(likelihood, size)),
        ]
    return tuple(found)


def teacher_statistics(
    outcomes: WrittenOutcomes, teacher: WrittenOutcomes, kept: Mask
) -> tuple[Statistic, ...]:
    """Texts beside the teacher's, over the prompts that count."""
    if not kept.any():
        return ()
    found = compared(outcomes, teacher)
    return (
        share_statistic("agreement", found.same[kept]),
        share_statistic(TEACHERS_METRIC, found.share[kept]),
    )


def compared(outcomes: WrittenOutcomes, teacher: WrittenOutcomes) -> Agreement:
    """Each text beside the teacher's: by token, or by character where tokens do not compare."""
    if same_tokens(outcomes, teacher):
        return agreement(
            [one.tolist() for one in outcomes.tokens], [one.tolist() for one in teacher.tokens]
        )
    return agreement(_characters(outcomes), _characters(teacher))


def _characters(outcomes: WrittenOutcomes) -> list[tuple[int, ...]]:
    return [
        characters(text, by_itself=bool(ended))
        for text, ended in zip(outcomes.texts, outcomes.ended, strict=True)
    ]


def answered_by_both(outcomes: WrittenOutcomes, teacher: WrittenOutcomes) -> Mask:
    """Prompts that both models answered, (rows,)."""
    return ~(outcomes.unanswered | teacher.unanswered)


def paired_measures(
    outcomes: WrittenOutcomes, teacher: WrittenOutcomes, seed: int
) -> list[Measure]:
    """The common beginning with the teacher's text, and the change of the references' likelihood.

    The beginning is in tokens, and left out where tokens do not compare.
    """
    both, measures = answered_by_both(outcomes, teacher), list[Measure]()
    if same_tokens(outcomes, teacher):
        prefix = np.where(both, compared(outcomes, teacher).prefix, np.nan)
        names = ("common_prefix_tokens", "common_prefix_p5_tokens")
        measures += mean_and_tail(prefix, names, 0.05, seed, groups=outcomes.groups, floor=0.0)
    change = np.where(both, outcomes.log_likelihood - teacher.log_likelihood, np.nan)
    names = ("reference_change_nats", "reference_change_p5_nats")
    return [*measures, *mean_and_tail(change, names, 0.05, seed, groups=outcomes.groups)]


def paired_texts(outcomes: WrittenOutcomes, teacher: WrittenOutcomes, seed: int) -> PairedRows:
    """Each text's quality beside the teacher's, in the metric that losses are told in."""
    own, theirs = row_scores(outcomes, teacher)
    return paired_scores(
        theirs,
        own,
        seed=seed,
        groups=outcomes.groups,
        answered=answered_by_both(outcomes, teacher),
    )


def row_scores(outcomes: WrittenOutcomes, teacher: WrittenOutcomes) -> tuple[Floats, Floats]:
    """ROUGE-L of both models' texts; without references how much is the teacher's, of itself 1."""
    if LOSS_METRIC in outcomes.rouge and LOSS_METRIC in teacher.rouge:
        return outcomes.rouge[LOSS_METRIC], teacher.rouge[LOSS_METRIC]
    return compared(outcomes, teacher).share, np.ones(outcomes.size)


def worst_texts(
    outcomes: WrittenOutcomes,
    teacher: WrittenOutcomes,
    references: Sequence[str] | None,
    prompts: Sequence[str],
) -> tuple[WorstExample, ...]:
    """The prompts on which the variant falls furthest behind its teacher."""
    own, theirs = row_scores(outcomes, teacher)
    lost = np.where(answered_by_both(outcomes, teacher), theirs - own, -np.inf)
    order = [row for row in np.argsort(-lost, kind="stable")[:MOST_EXAMPLES] if lost[row] > 0]
    return tuple(
        WorstExample(
            int(row),
            shortened(prompts[row]),
            "" if references is None else shortened(references[row]),
            shortened(teacher.texts[row]),
            shortened(outcomes.texts[row]),
            float(lost[row]),
        )
        for row in order
    )

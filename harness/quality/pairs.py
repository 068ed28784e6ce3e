"""A variant beside its teacher, sample by sample: flips, agreement, divergence.

| measure                    | of                                  | interval            | n |
|----------------------------|-------------------------------------|---------------------|---|
| right_to_wrong             | teacher right, variant wrong        | Clopper and Pearson | a |
| wrong_to_right             | teacher wrong, variant right        | Clopper and Pearson | a |
| agreement                  | same class, right or wrong          | Clopper and Pearson | b |
| cohen_kappa                | agreement beyond chance             | bootstrap           | b |
| kl_mean_nats               | KL(teacher || variant), mean        | bootstrap           | b |
| kl_p95_nats                | the same, 95th percentile           | order statistics    | b |
| log_likelihood_change_nats | variant less teacher, mean a window | bootstrap           | b |
| log_likelihood_change_p5_nats | the same, the worst twentieth    | order statistics    | b |
| greedy_agreement           | same likeliest token                | bootstrap, windows  | b |

n: a counts unanswered samples as wrong, b leaves out what either did not answer. The agreement of
greedy tokens is resampled by window, because tokens of one window are not independent.

Clopper, Pearson (1934) for shares; Cohen (1960) for kappa; the percentile bootstrap resamples both
models on the same rows; percentiles by order statistics (scipy's `quantile_test`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from harness.losses import PairedMeasure
from harness.quality.outcomes import NO_PREDICTION, Outcomes
from harness.quality.statistics import CONFIDENCE, percentile_interval, resampled_sums

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_FEWEST_FOR_A_PERCENTILE = 2


def compare_with_teacher(
    outcomes: Outcomes, teacher: Outcomes, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """All measures that the two allow; none of the teacher beside itself.

    Args:
        outcomes: the variant's.
        teacher: the teacher's, on the same rows.
        family: they belong to.
        seed: of the bootstrap.
    """
    if outcomes.variant == teacher.variant or outcomes.size != teacher.size:
        return ()
    measures = _classifiers(outcomes, teacher, seed) or _language_models(outcomes, teacher, seed)
    return tuple(
        PairedMeasure(outcomes.variant, family, name, value, low, high, samples)
        for name, value, low, high, samples in measures
    )


def predictions_in_order_of(teacher: Outcomes, outcomes: Outcomes) -> NDArray[np.int64] | None:
    """A classifier's predictions in the teacher's numbering of the classes, (rows,).

    Two checkpoints may number the same classes differently; names decide where both have them. A
    class that the teacher does not know becomes a number of its own, beyond the teacher's.
    """
    if outcomes.predictions is None:
        return None
    own, theirs = outcomes.label_names, teacher.label_names
    if own is None or theirs is None or own == theirs:
        return outcomes.predictions
    known = {name: index for index, name in enumerate(theirs)}
    order = np.array([known.get(name, len(theirs) + i) for i, name in enumerate(own)])
    answered = outcomes.predictions != NO_PREDICTION
    return np.where(answered, order[outcomes.predictions], NO_PREDICTION).astype(np.int64)


def log_probabilities(outcomes: Outcomes, order: tuple[str, ...] | None = None) -> Floats | None:
    """Natural logarithm of a classifier's distribution, (rows, classes); NaN where unanswered.

    Args:
        outcomes: of a classifier.
        order: class names in the order wanted; None takes the classifier's own.

    Returns:
        None where there are no logits, or not of these classes.
    """
    if outcomes.logits is None:
        return None
    logits = outcomes.logits.astype(np.float64)
    own = outcomes.label_names
    if order is not None and own is not None and own != order:
        if sorted(own) != sorted(order):
            return None
        logits = logits[:, [own.index(name) for name in order]]
    usable = np.isfinite(logits).all(axis=1)
    found = np.full_like(logits, np.nan)
    found[usable] = special.log_softmax(logits[usable], axis=1)
    return found


def kl_to_teacher_nats(outcomes: Outcomes, teacher: Outcomes) -> Floats | None:
    """KL(teacher || variant) of each row's class distribution, (rows,); NaN where unanswered.

    None where either has no logits, or they know different classes.
    """
    theirs = log_probabilities(teacher)
    own = log_probabilities(outcomes, teacher.label_names)
    if theirs is None or own is None or own.shape != theirs.shape:
        return None
    # A class of probability zero to the teacher adds nothing, whatever the variant says of it.
    return np.asarray(special.rel_entr(np.exp(theirs), np.exp(own)).sum(axis=1))


def log_likelihood_change_nats(outcomes: Outcomes, teacher: Outcomes) -> Floats | None:
    """A language model's log likelihood less its teacher's, (windows,); NaN where unanswered.

    None where the windows hold different text, so that nothing pairs.
    """
    own, theirs = outcomes.log_likelihood, teacher.log_likelihood
    if own is None or theirs is None or outcomes.bytes is None or teacher.bytes is None:
        return None
    if not np.array_equal(outcomes.bytes, teacher.bytes):
        return None
    return own - theirs


def beside_teacher(outcomes: Outcomes, teacher: Outcomes) -> dict[str, Floats | None]:
    """What is kept of every row beside the teacher: divergence, or change of likelihood."""
    return {
        "kl_to_teacher_nats": kl_to_teacher_nats(outcomes, teacher),
        "log_likelihood_change_nats": log_likelihood_change_nats(outcomes, teacher),
    }


_Measure = tuple[str, float, float | None, float | None, int]


def _classifiers(outcomes: Outcomes, teacher: Outcomes, seed: int) -> list[_Measure]:
    own = predictions_in_order_of(teacher, outcomes)
    theirs = teacher.predictions
    if own is None or theirs is None or outcomes.correct is None or teacher.correct is None:
        return []
    both = ~outcomes.unanswered & ~teacher.unanswered
    measures = [
        _share("right_to_wrong", teacher.correct & ~outcomes.correct),
        _share("wrong_to_right", outcomes.correct & ~teacher.correct),
    ]
    if both.any():
        measures.append(_share("agreement", (own == theirs)[both]))
        measures.append(_kappa(own[both], theirs[both], seed))
    divergence = kl_to_teacher_nats(outcomes, teacher)
    if divergence is not None:
        measures += _mean_and_tail(divergence, "kl_mean_nats", ("kl_p95_nats", 0.95), seed)
    return measures


def _language_models(outcomes: Outcomes, teacher: Outcomes, seed: int) -> list[_Measure]:
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None:
        return []
    name = "log_likelihood_change"
    measures = list(_mean_and_tail(change, f"{name}_nats", (f"{name}_p5_nats", 0.05), seed))
    return [*measures, *_greedy(outcomes, teacher, seed)]


def _greedy(outcomes: Outcomes, teacher: Outcomes, seed: int) -> Iterator[_Measure]:
    """The share of scored tokens for which both would have said the same."""
    own, theirs = outcomes.greedy, teacher.greedy
    if own is None or theirs is None or outcomes.tokens is None or teacher.tokens is None:
        return
    if not np.array_equal(outcomes.tokens, teacher.tokens):
        return
    rows = np.flatnonzero(~outcomes.unanswered & ~teacher.unanswered)
    if not len(rows):
        return
    same = np.array([float((own[row] == theirs[row]).sum()) for row in rows])
    table = np.column_stack([same, [float(len(own[row])) for row in rows]])
    total = table.sum(axis=0)
    if total[1] == 0:
        return
    sums = resampled_sums(table, seed=seed)
    low, high = percentile_interval(sums[:, 0] / np.maximum(sums[:, 1], 1))
    yield "greedy_agreement", float(total[0] / total[1]), low, high, len(rows)


def _share(name: str, hits: Mask) -> _Measure:
    total = len(hits)
    interval = stats.binomtest(int(hits.sum()), total).proportion_ci(CONFIDENCE, method="exact")
    return name, float(hits.mean()), float(interval.low), float(interval.high), total


def _kappa(own: NDArray[np.int64], theirs: NDArray[np.int64], seed: int) -> _Measure:
    """Cohen's kappa: (observed - expected) / (1 - expected) agreement."""
    classes = np.union1d(own, theirs)
    table = np.column_stack(
        [own == theirs, own[:, None] == classes, theirs[:, None] == classes]
    ).astype(np.float64)
    value = float(_kappa_of_shares(table.mean(axis=0)))
    low, high = value, value  # all answers alike in one class: there is no chance to go beyond
    if np.isfinite(value):
        shares = resampled_sums(table, seed=seed) / len(own)
        low, high = percentile_interval(_kappa_of_shares(shares))
    return "cohen_kappa", value if np.isfinite(value) else 1.0, *_finite(low, high), len(own)


def _kappa_of_shares(shares: Floats) -> Floats:
    observed = shares[..., 0]
    own, theirs = np.split(shares[..., 1:], 2, axis=-1)
    expected = (own * theirs).sum(axis=-1)
    undefined = np.full_like(observed, np.nan)
    beyond = np.divide(observed - expected, 1 - expected, out=undefined, where=expected < 1)
    return np.asarray(beyond)


def _finite(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)


def _mean_and_tail(
    values: Floats, mean: str, tail: tuple[str, float], seed: int
) -> Iterator[_Measure]:
    known = values[np.isfinite(values)]
    if len(known) < _FEWEST_FOR_A_PERCENTILE:
        return
    sums = resampled_sums(known[:, None], seed=seed)[:, 0] / len(known)
    yield mean, float(known.mean()), *percentile_interval(sums), len(known)
    name, share = tail
    value = float(np.quantile(known, share))
    interval = stats.quantile_test(known, q=value, p=share).confidence_interval(CONFIDENCE)
    # Beyond the largest value order statistics have no bound to give.
    yield name, value, *_finite(float(interval.low), float(interval.high)), len(known)

"""Paired tests and differences of two classifiers, and the correction for many of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.stats import binomtest

from harness.quality.intervals import CONFIDENCE, Bounds, RowSums, bounds, share_bounds
from harness.quality.metrics import mean_sums
from harness.quality.outcomes import NO_PREDICTION, Outcomes
from harness.types.losses import PairedMeasure


def mcnemar_p_value(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """McNemar's exact test that two classifiers err equally often, two-sided.

    Only rows on which exactly one of them is right bear on the question; if they err equally
    often, each such row is a fair coin's toss (McNemar 1947; the exact form by the binomial).

    Args:
        first: whether the first model is right, (rows,).
        second: the second model, on the same rows.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def paired_loss(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    *,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Bounds:
    """The 95% interval of the difference of two accuracies on the same rows.

    Like a bootstrap's it is paired, so what both find hard cancels; unlike one it has a width where
    no row is discordant. With few rows Bonett and Price's interval (2012) covers as little as 92.8%
    (one model right on all of 20 rows, the other on 80% of them); this one never less than it says.

    Args:
        before: whether the first model is right, (rows,).
        after: the second model, on the same rows.
        seed: of the weights.
        groups: which rows belong together, (rows,).

    Returns:
        Of the first's accuracy less the second's.
    """
    change = before.astype(np.float64) - after
    return bounds(
        RowSums(
            np.column_stack([change, np.ones(len(change))]),
            lambda sums: sums[..., 0] / sums[..., 1],
            possible=np.array([[-1.0, 1.0], [1.0, 1.0]]),
            limits=(-1.0, 1.0),
        ),
        seed=seed,
        groups=groups,
    )


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected for their number (Holm 1979): the chance of a single false alarm.

    It holds whatever the dependence between the tests, which matters where slices overlap.
    """
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MOST_CLASSES = 30
_FEWEST_FOR_A_PERCENTILE = 2


def compare_with_teacher(
    outcomes: Outcomes, teacher: Outcomes, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """All measures that the two allow; none of the teacher beside itself.

    Args:
        outcomes: the variant's.
        teacher: the teacher's, on the same rows.
        family: they belong to.
        seed: of the intervals.
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
    # By logarithms: what a variant is next to certain of leaves the others a probability that is 0
    # in float64, and their divergence is large, not unknown. A class of probability zero to the
    # teacher adds nothing, as the logarithm of a finite logit is finite.
    divergence: Floats = np.maximum((np.exp(theirs) * (theirs - own)).sum(axis=1), 0.0)
    return divergence


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
        names = ("kl_mean_nats", "kl_p95_nats")
        measures += _mean_and_tail(divergence, names, 0.95, seed, floor=0.0)
    return measures


def _language_models(outcomes: Outcomes, teacher: Outcomes, seed: int) -> list[_Measure]:
    change = log_likelihood_change_nats(outcomes, teacher)
    if change is None:
        return []
    names = ("log_likelihood_change_nats", "log_likelihood_change_p5_nats")
    measures = list(_mean_and_tail(change, names, 0.05, seed, groups=outcomes.groups))
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
    tokens = total[1] / len(rows)
    found = bounds(
        RowSums(
            table,
            lambda sums: sums[..., 0] / np.maximum(sums[..., 1], np.finfo(float).tiny),
            possible=np.array([[0.0, tokens], [tokens, tokens]]),
            limits=(0.0, 1.0),
        ),
        seed=seed,
        groups=rows if outcomes.groups is None else outcomes.groups[rows],
    )
    yield "greedy_agreement", float(total[0] / total[1]), found.low, found.high, len(rows)


def _share(name: str, hits: Mask) -> _Measure:
    found = share_bounds(int(hits.sum()), len(hits))
    return name, float(hits.mean()), found.low, found.high, len(hits)


def _kappa(own: NDArray[np.int64], theirs: NDArray[np.int64], seed: int) -> _Measure:
    """Cohen's kappa: (observed - expected) / (1 - expected) agreement."""
    classes = np.union1d(own, theirs)
    table = _kappa_rows(own, theirs, classes)
    value = float(_kappa_of_sums(table.sum(axis=0)))
    found = Bounds(None, None, None, len(own))  # all alike in one class: there is no chance to beat
    if np.isfinite(value):
        few = classes[:_MOST_CLASSES]
        possible = _kappa_rows(np.repeat(few, len(few)), np.tile(few, len(few)), classes)
        kappa = RowSums(table, _kappa_of_sums, possible, limits=(-1.0, 1.0))
        found = bounds(kappa, seed=seed)
    shown = value if np.isfinite(value) else 1.0
    return "cohen_kappa", shown, found.low, found.high, len(own)


def _kappa_rows(
    own: NDArray[np.int64], theirs: NDArray[np.int64], classes: NDArray[np.int64]
) -> Floats:
    """Alike or not, the class of each, and 1; (rows, 2 classes + 2)."""
    columns = [own == theirs, own[:, None] == classes, theirs[:, None] == classes]
    return np.column_stack([*columns, np.ones(len(own))]).astype(np.float64)


def _kappa_of_sums(sums: Floats) -> Floats:
    shares = sums[..., :-1] / sums[..., -1:]
    observed = shares[..., 0]
    own, theirs = np.split(shares[..., 1:], 2, axis=-1)
    expected = (own * theirs).sum(axis=-1)
    undefined = np.full_like(observed, np.nan)
    beyond = np.divide(observed - expected, 1 - expected, out=undefined, where=expected < 1)
    return np.asarray(beyond)


def _finite(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if np.isfinite(low) and np.isfinite(high) else (None, None)


def _mean_and_tail(
    values: Floats,
    names: tuple[str, str],
    share: float,
    seed: int,
    *,
    groups: NDArray[np.int64] | None = None,
    floor: float = -np.inf,
) -> Iterator[_Measure]:
    """The mean over rows and a quantile of them, each with its interval.

    Args:
        values: (rows,); NaN where one of the two did not answer.
        names: of the two.
        share: of the rows that lie below the quantile.
        seed: of the weights.
        groups: which rows belong together.
        floor: the least that a row can hold.
    """
    usable = np.isfinite(values)
    known = values[usable]
    if len(known) < _FEWEST_FOR_A_PERCENTILE:
        return
    together = None if groups is None else groups[usable]
    found = bounds(mean_sums(known), seed=seed, groups=together)
    low = found.low if found.low is None else max(found.low, floor)
    yield names[0], float(known.mean()), low, found.high, len(known)
    value = float(np.quantile(known, share))
    if together is not None and len(np.unique(together)) < len(together):
        yield names[1], value, None, None, len(known)
        return
    interval = stats.quantile_test(known, q=value, p=share).confidence_interval(CONFIDENCE)
    # Beyond the largest value order statistics have no bound to give.
    yield names[1], value, *_finite(float(interval.low), float(interval.high)), len(known)

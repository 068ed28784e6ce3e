"""Which candidates are worth choosing at all: the Pareto front, with its uncertainty.

A candidate is dominated where another is at least as good in every metric and better in one. By
values alone a hair's breadth decides that, so beside it stand two things that hold the intervals:
*surely* dominated (the other's unfavourable bounds are no worse than this one's favourable ones),
and the probability of lying on the front, over draws of all figures from their intervals.

A figure without an interval (a size, a cold start that was measured once) is drawn as its value.
Where the outcomes of every candidate on the same rows are at hand, qualities are drawn together,
by one weighting of the rows for all (Rubin's Bayesian bootstrap 1981): what two models find hard
alike cancels. Otherwise each figure is drawn by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.metrics import metric_named
from harness.types.losses import Estimate
from harness.types.metrics import MetricKind
from harness.types.review import DecisionCandidate, FrontPlace

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
DRAWS = 4000
_Z = 1.959963984540054
"""A two-sided 95% interval of a normal distribution reaches so many standard deviations."""

SharedDraws = Mapping[str, Mapping[str, Floats]]
"""By metric and candidate: draws that were made together, (DRAWS,)."""


def draw(estimate: Estimate, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Draws whose central 95% is the interval, (draws,): two halves of normal distributions.

    A side without a bound takes the other's; an estimate without either is drawn as its value.
    """
    down = None if estimate.low is None else max(0.0, estimate.value - estimate.low) / _Z
    up = None if estimate.high is None else max(0.0, estimate.high - estimate.value) / _Z
    below, above = (up if down is None else down) or 0.0, (down if up is None else up) or 0.0
    noise = rng.standard_normal(draws)
    return estimate.value + np.where(noise < 0, noise * below, noise * above)


def draws_of(
    candidates: Sequence[DecisionCandidate],
    metrics: Sequence[str],
    *,
    seed: int,
    shared: SharedDraws | None = None,
) -> Floats:
    """Draws of every figure, higher is better, (draws, candidates, metrics); NaN where unknown."""
    rng = np.random.default_rng(seed)
    table = np.full((DRAWS, len(candidates), len(metrics)), np.nan)
    for row, candidate in enumerate(candidates):
        for column, metric in enumerate(metrics):
            figure = candidate.figure(metric)
            if figure is not None:
                together = (shared or {}).get(metric, {}).get(candidate.name)
                drawn = draw(figure.estimate, rng) if together is None else together
                table[:, row, column] = direction(metric) * drawn
    return table


def values_of(candidates: Sequence[DecisionCandidate], metrics: Sequence[str]) -> Floats:
    """The figures' values, higher is better, (candidates, metrics); NaN where unknown."""
    table = np.full((len(candidates), len(metrics)), np.nan)
    for row, candidate in enumerate(candidates):
        for column, metric in enumerate(metrics):
            if (figure := candidate.figure(metric)) is not None:
                table[row, column] = direction(metric) * figure.estimate.value
    return table


def direction(metric: str) -> float:
    """1 where more of a metric is better, else -1."""
    return -1.0 if metric_named(metric).lower_is_better else 1.0


def on_front(table: Floats) -> Mask:
    """Which candidates no other dominates.

    Two candidates are compared in the metrics that are known of both: what is known of one alone
    counts for neither.

    Args:
        table: (..., candidates, metrics), higher is better, NaN where unknown.

    Returns:
        (..., candidates).
    """
    size = table.shape[-2]
    dominated = np.zeros(table.shape[:-1], dtype=np.bool_)
    for one in range(size):
        for other in range(size):
            if one != other:
                gap = table[..., other, :] - table[..., one, :]
                known = np.isfinite(gap)
                no_worse = (gap >= 0) | ~known
                better = known & (gap > 0)
                dominated[..., one] |= no_worse.all(axis=-1) & better.any(axis=-1)
    return ~dominated


def surely_dominates(
    one: DecisionCandidate, other: DecisionCandidate, metrics: Sequence[str]
) -> bool:
    """Whether a candidate is no worse in any metric and better in one, whatever is true of both.

    Both have to be known in every metric that either is known in: what is not known of one may be
    its one advantage.
    """
    better = False
    for metric in metrics:
        mine, theirs = one.figure(metric), other.figure(metric)
        if mine is None and theirs is None:
            continue
        if mine is None or theirs is None:
            return False
        worst, best = _worst(metric, mine.estimate), _best(metric, theirs.estimate)
        if worst is None or best is None or worst < best:
            return False
        better |= worst > best
    return better


def _worst(metric: str, estimate: Estimate) -> float | None:
    """The unfavourable bound, higher is better; None where there is none."""
    if estimate.low is None and estimate.high is None and _once(metric):
        return direction(metric) * estimate.value
    bound = estimate.high if direction(metric) < 0 else estimate.low
    return None if bound is None else direction(metric) * bound


def _once(metric: str) -> bool:
    """Whether a value without an interval is its own bound: of what is measured once."""
    return metric_named(metric).kind is MetricKind.ARTEFACT


def _best(metric: str, estimate: Estimate) -> float | None:
    if estimate.low is None and estimate.high is None and _once(metric):
        return direction(metric) * estimate.value
    bound = estimate.low if direction(metric) < 0 else estimate.high
    return None if bound is None else direction(metric) * bound


def places(
    candidates: Sequence[DecisionCandidate], metrics: Sequence[str], drawn: Floats
) -> tuple[FrontPlace, ...]:
    """Where each candidate stands among all of them.

    Hard limits play no part: the front is that of what can be had, and a limit that rules out a
    part of it is seen to do so. A candidate of which less than half of the metrics are known (one
    that was never load-tested) has no place, and takes none from others.

    Args:
        candidates: all of them.
        metrics: that decide dominance.
        drawn: as `draws_of` gives them.
    """
    values = values_of(candidates, metrics)
    used = np.isfinite(values).any(axis=0)
    missing = ~np.isfinite(values) & used
    placed = np.flatnonzero(2 * missing.sum(axis=1) <= used.sum())
    by_value = dict(zip(placed.tolist(), on_front(values[placed]), strict=True))
    shares = dict(zip(placed.tolist(), on_front(drawn[:, placed]).mean(axis=0), strict=True))
    return tuple(
        FrontPlace(
            one.name,
            bool(by_value.get(row, False)),
            float(shares[row]) if row in shares else None,
            tuple(
                candidates[other].name
                for other in placed.tolist()
                if other != row and surely_dominates(candidates[other], one, metrics)
            ),
            tuple(name for name, gone in zip(metrics, missing[row], strict=True) if gone),
        )
        for row, one in enumerate(candidates)
    )


def shared_share_draws(
    right: Mapping[str, Mask], reference: Mask, *, seed: int, draws: int = DRAWS
) -> dict[str, Floats]:
    """Shares of right rows over a reference's, drawn with one weighting of the rows for all.

    Args:
        right: by candidate, whether each row is right, (rows,).
        reference: the teacher's, on the same rows.
        seed: of the weights.
        draws: how many.

    Returns:
        By candidate, (draws,).
    """
    names = list(right)
    table = np.column_stack([reference, *(right[name] for name in names)]).astype(np.float64)
    rng = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(table))
    parts = [
        rng.standard_exponential((min(block, draws - start), len(table))) @ table
        for start in range(0, draws, block)
    ]
    sums = np.concatenate(parts)
    return {name: sums[:, place] / sums[:, 0] for place, name in enumerate(names, start=1)}

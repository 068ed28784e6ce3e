"""Evidence that may be looked at at any time: e-processes of counts, and bounds from them.

A rollout is watched all the time, so a test for one look would err far more often than it says. An
*e-process* is a number that starts at 1 and whose mean, while the hypothesis is true, never exceeds
1 at whatever moment one chooses to stop (Ramdas, Gruenwald, Vovk & Shafer 2023). By Ville's
inequality (1939) it then reaches 1/a at *any* time with a probability of at most a. So it may be
looked at after every request, and the hypothesis is rejected as soon as it reaches 1/a.

All three here are mixtures over alternatives, the mixture SPRT of Robbins (1970) that Johari,
Koomen, Pekelis & Walsh (2022) use for A/B tests, exact for counts:

One share and a limit, p >= c: the likelihood ratio of q to c, mixed over a Beta(1/2, 1/2)
distribution of q that is cut off at c.

Two shares of different requests, s >= f t + m: the likelihoods of both arms, each mixed over a
Beta(1/2, 1/2), over the greatest that the hypothesis allows (universal inference: Wasserman, Ramdas
& Balakrishnan 2020).

Two models on the same requests, the mean of w >= m: the wealth of bets on w < m, mixed over the
size of the bet (Waudby-Smith & Ramdas 2024).

They depend on the counts alone, not on the order in which they came, so a look needs no more than
counters. Every function takes arrays of equal shape (or scalars) and is vectorised over them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_PRIOR = 0.5
"""Both parameters of the Beta distribution over alternatives: Jeffreys's prior."""
_HALVINGS = 44
"""Halvings of an interval within [0, 1]: to 13 digits."""
_BETS = np.geomspace(1e-3, 0.99, 64)
"""Sizes of the bets as shares of the largest that cannot lose everything, all equally likely. A
finite mixture is itself an e-process: the grid costs power, never validity."""
_GRID = 201
_ROUNDS = 4
"""Grids laid one within the other when a bound is looked for: to 200^-4 of the range."""


def log_e_share(bad: ArrayLike, total: ArrayLike, limit: ArrayLike, *, above: bool) -> Floats:
    """Evidence against a share of bad requests on one side of a limit.

    Args:
        bad: number of bad requests.
        total: number of requests, at least `bad`.
        limit: strictly between 0 and 1.
        above: the hypothesis that is tested: the share is at least the limit; if false, at most.

    Returns:
        Logarithm of the e-process.
    """
    hits, size, at = (np.asarray(one, dtype=np.float64) for one in (bad, total, limit))
    if not above:
        return log_e_share(size - hits, size, 1 - at, above=True)
    one, other = _PRIOR + hits, _PRIOR + size - hits
    with np.errstate(divide="ignore"):
        cut = np.log(scipy.special.betainc(one, other, at))
        cut -= np.log(scipy.special.betainc(_PRIOR, _PRIOR, at))
    mixed = scipy.special.betaln(one, other) - scipy.special.betaln(_PRIOR, _PRIOR) + cut
    return np.asarray(mixed - _log_likelihood(hits, size, at))


def log_e_two_shares(
    student_bad: ArrayLike,
    student_total: ArrayLike,
    teacher_bad: ArrayLike,
    teacher_total: ArrayLike,
    *,
    factor: float = 1.0,
    margin: ArrayLike = 0.0,
    above: bool,
) -> Floats:
    """Evidence on the shares of bad requests of two models that served different requests.

    Args:
        student_bad: number of the student's requests that were bad.
        student_total: number of the student's requests.
        teacher_bad: number of the teacher's requests that were bad.
        teacher_total: number of the teacher's requests.
        factor: of the teacher's share, greater than 0.
        margin: that is added to it.
        above: the hypothesis that is tested: student's >= factor x teacher's + margin; if false,
            <=.

    Returns:
        Logarithm of the e-process; infinite where the hypothesis cannot be true of any shares.
    """
    arrays = np.broadcast_arrays(student_bad, student_total, teacher_bad, teacher_total, margin)
    s_bad, s_total, t_bad, t_total, added = (np.asarray(one, dtype=np.float64) for one in arrays)
    mixed = _log_mixture(s_bad, s_total) + _log_mixture(t_bad, t_total)
    s_share, t_share = _share(s_bad, s_total), _share(t_bad, t_total)
    free = _log_likelihood(s_bad, s_total, s_share) + _log_likelihood(t_bad, t_total, t_share)
    beyond = s_share - factor * t_share - added
    allowed = beyond >= 0 if above else beyond <= 0
    # On the line student = factor x teacher + margin, by the teacher's share.
    low = np.maximum(0.0, -added / factor)
    high = np.minimum(1.0, (1 - added) / factor)
    best = _greatest(
        low,
        high,
        lambda x: factor * _slope(s_bad, s_total, factor * x + added) + _slope(t_bad, t_total, x),
    )
    on_line = _log_likelihood(s_bad, s_total, factor * best + added)
    on_line = on_line + _log_likelihood(t_bad, t_total, best)
    possible = np.where(low <= high, on_line, -np.inf)
    return np.asarray(mixed - np.where(allowed, free, possible))


def log_e_mean(counts: ArrayLike, values: ArrayLike, limit: ArrayLike, *, above: bool) -> Floats:
    """Evidence on the mean of what each request adds, where only a few values are possible.

    Args:
        counts: of requests by value, (..., values).
        values: that a request may have, (values,).
        limit: strictly between the least and the greatest value, (...).
        above: the hypothesis that is tested: the mean is at least the limit; if false, at most.

    Returns:
        Logarithm of the e-process, (...).
    """
    numbers, worth = np.asarray(counts, np.float64), np.asarray(values, np.float64)
    at = np.asarray(limit, np.float64)
    if above:
        return log_e_mean(numbers, -worth, -at, above=False)
    gain = worth - at[..., None]  # (..., values): what a bet of 1 on 'greater than the limit' wins
    largest = 1 / -gain.min(axis=-1)
    wealth = np.zeros((*np.broadcast_shapes(numbers.shape[:-1], at.shape), len(_BETS)))
    for place in range(len(worth)):
        won = np.log1p(_BETS * (largest * gain[..., place])[..., None])
        wealth += numbers[..., place, None] * won
    return np.asarray(scipy.special.logsumexp(wealth, axis=-1) - np.log(len(_BETS)))


def bound(
    evidence: Callable[[Floats], Floats],
    limits: tuple[float, float],
    *,
    error: float,
    upper: bool,
) -> float:
    """A confidence bound that holds at all times at once: where the evidence begins to suffice.

    Args:
        evidence: the logarithm of the e-process against 'at least x' (for an upper bound) or 'at
            most x' (for a lower one), for an array of x.
        limits: the least and the greatest x that there may be.
        error: probability that the bound is ever wrong.
        upper: which bound.

    Returns:
        The least x that is rejected, or the greatest; the limit where none is.
    """
    low, high = limits
    for _ in range(_ROUNDS):
        places = np.linspace(low, high, _GRID)
        inner = places[1:-1]
        rejected = np.asarray(evidence(inner)) >= -np.log(error)
        kept = np.flatnonzero(~rejected)
        if upper:  # it lies between the greatest x that is not rejected and the next
            first = int(kept[-1]) + 1 if len(kept) else 0
        else:
            first = int(kept[0]) if len(kept) else _GRID - 2
        low, high = float(places[first]), float(places[first + 1])
    return high if upper else low


def _log_mixture(bad: Floats, total: Floats) -> Floats:
    """Likelihood of counts averaged over the prior."""
    whole = scipy.special.betaln(_PRIOR + bad, _PRIOR + total - bad)
    return np.asarray(whole - scipy.special.betaln(_PRIOR, _PRIOR))


def _log_likelihood(bad: Floats, total: Floats, share: Floats) -> Floats:
    return np.asarray(scipy.special.xlogy(bad, share) + scipy.special.xlog1py(total - bad, -share))


def _share(bad: Floats, total: Floats) -> Floats:
    """The likeliest share; of no requests any is, and a half is taken."""
    return np.divide(bad, total, out=np.full_like(bad, 0.5), where=total > 0)


def _slope(bad: Floats, total: Floats, share: Floats) -> Floats:
    """Derivative of the log likelihood."""
    inside = np.clip(share, 1e-300, 1 - 1e-16)
    return np.asarray(bad / inside - (total - bad) / (1 - inside))


def _greatest(low: Floats, high: Floats, slope: Callable[[Floats], Floats]) -> Floats:
    """Where a concave function of a share is greatest, by halving on its derivative."""
    left, right = low.copy(), np.maximum(high, low)
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        rises = slope(middle) > 0
        left, right = np.where(rises, middle, left), np.where(rises, right, middle)
    return np.asarray((left + right) / 2)

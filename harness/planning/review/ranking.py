"""Candidates by weights that somebody named, and how far the order depends on them.

The score is the weighted geometric mean of each candidate's advantages over a reference (its
throughput over the reference's, the reference's cost over its own): the weighted product model
(Bridgman 1922; Triantaphyllou 2000). It needs no scaling of metrics to a common range, which would
make the order depend on who else is listed, and the reference does not change the order. Weights
have a plain meaning: with `accuracy=2, cost=1` one percent of accuracy is worth two percent of
cost.

Sensitivity is told in two ways: how far each weight may move, the others held, before another
candidate ranks first (exact, because the logarithm of the score is linear in the weights); and the
share of all weightings by which each candidate ranks first (SMAA: Lahdelma and Salminen 2001,
Operations Research 49, 444-454).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.study.weights import weights_problem
from harness.types.review import DecisionCandidate, RankedCandidate, Ranking, WeightRange
from harness.words.numbers import metric_title

Floats = NDArray[np.float64]


def parse_weights(text: str) -> dict[str, float]:
    """Read `accuracy=2,cost=1`.

    Raises:
        UsageError: with the first problem: the form, an unknown metric, a metric twice, a weight
            that is negative or no number, or weights that sum to nothing.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, joined, amount = (one.strip() for one in part.partition("="))
        if not joined or not name:
            raise UsageError(
                f"--weights {text}: '{part.strip()}' is not METRIC=WEIGHT",
                next_step="write for example --weights accuracy=2,throughput=1",
            )
        if name in weights:
            raise UsageError(f"--weights {text}: {name} is weighted twice")
        try:
            weights[name] = float(amount)
        except ValueError:
            raise UsageError(
                f"--weights {text}: '{amount}' is not a number",
                next_step="write for example --weights accuracy=2,throughput=1",
            ) from None
    return checked_weights(weights, f"--weights {text}")


def checked_weights(weights: Mapping[str, float], source: str) -> dict[str, float]:
    """Weights that mean something.

    Args:
        weights: by metric.
        source: where they were written, for messages.

    Raises:
        UsageError: an unknown metric, a weight that is negative or no number, or all of them zero.
    """
    if problem := weights_problem(weights):
        raise UsageError(f"{source}: {problem}")
    return dict(weights)


def check_weighed(candidates: Iterable[DecisionCandidate], weights: Mapping[str, float]) -> None:
    """Make sure that something is known of each metric that has a weight.

    Raises:
        UsageError: of a weighted metric no candidate has a figure.
    """
    known = {figure.metric for one in candidates for figure in one.figures}
    for name, weight in weights.items():
        if weight > 0 and name not in known:
            raise UsageError(
                f"{name} has a weight, but nothing is known of it for any candidate",
                next_step=f"weigh some of: {', '.join(sorted(known))}",
            )


def rank(
    candidates: Sequence[DecisionCandidate],
    weights: Mapping[str, float],
    drawn: Mapping[str, Floats],
    *,
    reference: str,
    seed: int,
) -> Ranking:
    """Rank the candidates by weights.

    Args:
        candidates: those that may be ranked, the reference among them.
        weights: by metric, as `checked_weights` gives them.
        drawn: by metric, draws of the candidates' figures in their own unit,
            (draws, candidates).
        reference: name of the candidate whose score is 1.
        seed: of the weightings.
    """
    used = {name: weight for name, weight in weights.items() if weight > 0}
    reasons = {one.name: _unranked(one, used) for one in candidates}
    places = [place for place, one in enumerate(candidates) if not reasons[one.name]]
    names = [candidates[place].name for place in places]
    left_out = tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    if not names:
        return Ranking(dict(weights), reference, (), (), left_out)
    if reference not in names:
        reference = names[0]
    gains = _gains(
        np.array([[_value(candidates[place], metric) for metric in used] for place in places]), used
    )
    spread = _gains(np.stack([drawn[metric][:, places] for metric in used], axis=-1), used)
    vector = np.array(list(used.values()))
    scores = gains @ vector / vector.sum()
    scores = scores - scores[names.index(reference)]
    sampled = np.nan_to_num(spread @ vector, nan=-np.inf)
    first = _shares_first(sampled)
    every = np.random.default_rng(seed).dirichlet(np.ones(len(used)), size=len(spread))
    by_weighting = _shares_first(every @ gains.T)
    order = np.argsort(-scores, kind="stable")
    ranked = tuple(
        RankedCandidate(
            names[place],
            float(np.exp(scores[place])),
            float(first[place]),
            float(by_weighting[place]),
        )
        for place in order.tolist()
    )
    ranges = tuple(_ranges(names, gains, used, int(order[0])))
    return Ranking(dict(weights), reference, ranked, ranges, left_out)


def _unranked(candidate: DecisionCandidate, used: Mapping[str, float]) -> str:
    """Why a candidate has no score; empty where it has one."""
    missing = [metric_title(name) for name in used if candidate.figure(name) is None]
    if missing:
        return f"{', '.join(missing)} not known"
    bad = [metric_title(name) for name in used if _value(candidate, name) <= 0]
    if bad:
        return f"{', '.join(bad)} not above 0, so no ratio can be taken of it"
    return ""


def _value(candidate: DecisionCandidate, metric: str) -> float:
    figure = candidate.figure(metric)
    return math.nan if figure is None else figure.estimate.value


def _gains(values: Floats, used: Iterable[str]) -> Floats:
    """Logarithms, higher is better; a draw at or below 0 counts as next to nothing.

    That is the worst of a throughput, and the best of a cost.
    """
    signs = np.array([-1.0 if metric_named(name).lower_is_better else 1.0 for name in used])
    tiny = np.finfo(np.float64).tiny
    return np.asarray(signs * np.log(np.maximum(values, tiny)))


def _shares_first(scores: Floats) -> Floats:
    """How often each column is the highest of its row, (columns,); ties are split."""
    best = scores == scores.max(axis=1, keepdims=True)
    return np.asarray((best / best.sum(axis=1, keepdims=True)).mean(axis=0))


def _ranges(
    names: Sequence[str], gains: Floats, used: Mapping[str, float], first: int
) -> Iterable[WeightRange]:
    """How far each weight may move before another candidate takes the first place."""
    vector = np.array(list(used.values()))
    behind = gains[first] @ vector - gains @ vector  # >= 0
    for place, (metric, weight) in enumerate(used.items()):
        low, high = 0.0, math.inf
        below = above = ""
        for other, name in enumerate(names):
            slope = gains[first, place] - gains[other, place]
            if other == first or slope == 0:
                continue
            # The lead is behind + slope * (w - weight); it is gone at:
            edge = weight - behind[other] / slope
            if slope > 0 and edge > low:
                low, below = float(edge), name
            if slope < 0 and edge < high:
                high, above = float(edge), name
        yield WeightRange(metric, weight, low, high if math.isfinite(high) else None, below, above)

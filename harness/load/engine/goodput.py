"""Which requests of a batch meet every clause of an objective on latencies: goodput's numerator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.types import RequestBound

Integers = NDArray[np.int64]


def meets_all(
    bounds: Sequence[RequestBound],
    requests: int,
    moments_ns: Mapping[str, Integers],
    spans: Mapping[str, tuple[Integers, Integers]],
) -> NDArray[np.bool_]:
    """(requests,) whether each request meets every bound.

    A request that lacks a span (one token has no next) does not miss a bound on it.

    Args:
        bounds: the clauses.
        requests: how many there are.
        moments_ns: (requests,) values of each span that every request has.
        spans: of each other span, the request of every value (ascending), and the values, (k,).
    """
    met = np.ones(requests, dtype=np.bool_)
    for bound in bounds:
        if (values := moments_ns.get(bound.span)) is not None:
            met &= _within(values, bound)
        elif (found := spans.get(bound.span)) is not None:
            request, of_request = own_statistic(*found, bound.quantile)
            met[request] &= _within(of_request, bound)
    return met


def own_statistic(
    request: Integers, values_ns: Integers, quantile: float | None
) -> tuple[Integers, Integers]:
    """The requests that have values, ascending, and the statistic of each one's own values.

    A quantile is the smallest value that at least that share of the values does not exceed: of
    fewer than 100 gaps p99 is the largest.

    Args:
        request: (k,) the request of each value.
        values_ns: (k,)
        quantile: 0 to 1; None takes the mean, rounded to nanoseconds.
    """
    having, first, counts = np.unique(request, return_index=True, return_counts=True)
    if quantile is None:
        sums = np.add.reduceat(values_ns, first) if len(having) else values_ns
        return having, np.rint(sums / np.maximum(counts, 1)).astype(np.int64)
    ascending = values_ns[np.lexsort((values_ns, request))]
    # What floats multiply must not ask for one value more: 0.95 * 20 is a hair above 19.
    rank = np.maximum(np.ceil(quantile * counts * (1 - 1e-12)).astype(np.int64), 1)
    return having, ascending[first + rank - 1]


def _within(values_ns: Integers, bound: RequestBound) -> NDArray[np.bool_]:
    return values_ns <= bound.bound_ns if bound.inclusive else values_ns < bound.bound_ns

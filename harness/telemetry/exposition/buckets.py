"""From HDR histograms to the fixed buckets of a Prometheus histogram, without a loss in the count.

A sample of ours is never observed one by one: a whole sparse histogram is folded at a time. The
edges are round numbers of a preferred series (ISO 3), so that `le="0.05"` is an edge and quantiles
of different runs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.utils import floatToGoString

from harness import hdr
from harness.metrics import metric_named
from harness.types import SPANS, Constraint, LatencySpan, ServiceLevelObjective, SparseHistogram
from harness.types.metrics import MetricKind

R20 = (
    "1.00", "1.12", "1.25", "1.40", "1.60", "1.80", "2.00", "2.24", "2.50", "2.80",
    "3.15", "3.55", "4.00", "4.50", "5.00", "5.60", "6.30", "7.10", "8.00", "9.00",
)  # fmt: skip
"""ISO 3: twenty steps of about 12 % a decade."""
DECADES = range(-4, 2)
"""Decades of the buckets, from 100 us; the last edge is 90 s."""
FINE_S: tuple[float, ...] = tuple(float(f"{step}e{ten}") for ten in DECADES for step in R20)
COARSE_S: tuple[float, ...] = tuple(float(f"{step}e{ten}") for ten in DECADES for step in R20[::4])
"""R5: steps of about 58 %, for what is watched rather than judged."""
_BUCKETS = 1 << hdr.INDEX_BITS
_US_PER_S = 1e6


@dataclass
class FoldedHistogram:
    """Counts by bucket, of all histograms that were added."""

    edges_s: tuple[float, ...] = FINE_S

    def __post_init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(len(self.edges_s) + 1, dtype=np.int64)
        self.sum_s = 0.0
        """Sum of all values in seconds, each taken at the middle of its HDR bucket."""

    def add(self, histogram: SparseHistogram) -> None:
        """Fold one in; a value counts at its HDR bucket's upper edge (0.1 % at worst)."""
        if not histogram.buckets:
            return
        buckets, counts = hdr.integers(histogram.buckets), hdr.integers(histogram.counts)
        np.add.at(self._counts, _places(self.edges_s)[buckets], counts)
        self.sum_s += float(_middles_s()[buckets] @ counts)

    @property
    def count(self) -> int:
        """How many values it holds."""
        return int(self._counts.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        """(`le`, values up to it), as Prometheus' text format wants them, +Inf last."""
        sums = np.cumsum(self._counts).tolist()
        return list(zip(_names(self.edges_s), sums, strict=True))


def above(histogram: SparseHistogram, bound_s: float, *, inclusive: bool) -> int:
    """How many values lie above a bound, or at it too; each counts at its bucket's upper edge."""
    if not histogram.buckets:
        return 0
    values_s = hdr.highest_value_us(hdr.integers(histogram.buckets)) / _US_PER_S
    beyond = values_s >= bound_s if inclusive else values_s > bound_s
    return int(hdr.integers(histogram.counts)[beyond].sum())


def sum_s(histogram: SparseHistogram) -> float:
    """Sum of a histogram's values in seconds, each taken at the middle of its HDR bucket."""
    if not histogram.buckets:
        return 0.0
    return float(_middles_s()[hdr.integers(histogram.buckets)] @ hdr.integers(histogram.counts))


@cache
def _places(edges_s: tuple[float, ...]) -> NDArray[np.intp]:
    """(HDR buckets,) the first edge that each is not above."""
    highest_s = hdr.highest_value_us(np.arange(_BUCKETS, dtype=np.int64)) / _US_PER_S
    return np.searchsorted(np.array(edges_s), highest_s, side="left")


@cache
def _middles_s() -> NDArray[np.float64]:
    buckets = np.arange(_BUCKETS, dtype=np.int64)
    middles: NDArray[np.float64] = (
        (hdr.lowest_value_us(buckets) + hdr.highest_value_us(buckets)) / 2 / _US_PER_S
    )
    return middles


@cache
def _names(edges_s: tuple[float, ...]) -> Sequence[str]:
    def name_all() -> Iterator[str]:
        yield from map(_number, edges_s)
        yield "+Inf"

    return tuple(name_all())


def _number(edge_s: float) -> str:
    name: str = floatToGoString(edge_s)  # type: ignore[no-untyped-call]  # prometheus_client's
    return name


_MS_PER_S = 1e3


class Clause(NamedTuple):
    """One clause of a family's objective."""

    family: str
    text: str
    """The clause as it was written."""
    metric: str
    operator: str
    bound: float
    """Bound in base units: seconds, a share, 1/s, or the quality metric's own."""
    relative_to_teacher: bool
    """Then the bound is a factor of the teacher's value."""
    budget: float | None
    """Share of events that may be bad; None where events do not tell."""

    @property
    def kind(self) -> MetricKind:
        """The kind of its metric."""
        return metric_named(self.metric).kind

    @property
    def span(self) -> LatencySpan | None:
        """Of a latency: the span that it bounds, in seconds; None for any other metric."""
        return SPANS.get(metric_named(self.metric).span)


def clauses_of(family: str, slo: ServiceLevelObjective) -> tuple[Clause, ...]:
    """The clauses of an objective."""
    return tuple(_clause(family, one) for one in slo.constraints)


def _clause(family: str, one: Constraint) -> Clause:
    metric = metric_named(one.metric)
    bound, budget = one.value, None
    if metric.kind is MetricKind.LATENCY:
        bound /= _MS_PER_S
        budget = round(1 - metric.quantile, 6) if metric.quantile else None
    elif metric.kind is MetricKind.SHARE:
        budget = one.value
    return Clause(
        family, one.text, one.metric, one.operator, bound, one.relative_to_teacher, budget or None
    )

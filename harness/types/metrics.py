"""What a metric is: its kind, its unit, and how it is bounded, written and shown.

The metrics themselves are in `harness.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class MetricKind(StrEnum):
    """What a metric is a measure of."""

    LATENCY = "latency"
    """A statistic of a span of each request's time."""
    RATE = "rate"
    """A number per second."""
    SHARE = "share"
    """A part of the requests."""
    QUALITY = "quality"
    """How good the answers are; no load decides it."""
    COST = "cost"
    """What an answer costs."""
    ARTEFACT = "artefact"
    """What a variant is, whatever its load: no clause of an objective speaks of it."""


@dataclass(frozen=True)
class Unit:
    """How amounts of a metric are written by a user and shown to one."""

    scales: Mapping[str, float]
    """What may stand behind a number, and its factor to the metric's own unit. The empty string:
    a bare number will do."""
    suffix: str = ""
    """What stands behind a number that is shown: ` ms`."""
    is_share: bool = False
    """Whether it is a share (0 to 1), shown as a percentage."""
    lowest: float = 0.0
    """No measurement is below it, unless the metric says otherwise."""
    highest: float = math.inf
    """No measurement is above it, unless the metric says otherwise."""


MILLISECONDS = Unit(MappingProxyType({"us": 1e-3, "ms": 1.0, "s": 1e3}), " ms")
INFERENCES_PER_S = Unit(MappingProxyType({"/s": 1.0}), " inferences/s")
REQUESTS_PER_S = Unit(MappingProxyType({"/s": 1.0}), " requests/s")
TOKENS_PER_S = Unit(MappingProxyType({"/s": 1.0}), " tokens/s")
USD_PER_MILLION = Unit(MappingProxyType({"/1m": 1.0, "/1k": 1e3}), " USD/1M")
SHARE = Unit(MappingProxyType({"%": 0.01, "": 1.0}), is_share=True, highest=1.0)
CORRELATION = Unit(MappingProxyType({"": 1.0}), lowest=-1.0, highest=1.0)
"""A coefficient from -1 to 1; not a share of anything, so no percentage."""
PLAIN = Unit(MappingProxyType({"": 1.0}))
MEGABYTES = Unit(MappingProxyType({"MB": 1.0}), " MB")
SECONDS = Unit(MappingProxyType({"s": 1.0}), " s")


@dataclass(frozen=True)
class LatencyStatistic:
    """What a span's latencies are summarised by."""

    name: str
    quantile: float | None
    """The quantile; None for the mean."""
    words: str


STATISTICS: tuple[LatencyStatistic, ...] = (
    LatencyStatistic("p50", 0.50, "median"),
    LatencyStatistic("p90", 0.90, "90th percentile"),
    LatencyStatistic("p95", 0.95, "95th percentile"),
    LatencyStatistic("p99", 0.99, "99th percentile"),
    LatencyStatistic("mean", None, "mean"),
)
PERCENTILES: Mapping[str, float] = MappingProxyType(
    {one.name: one.quantile for one in STATISTICS if one.quantile is not None}
)
"""The percentiles that a latency is summarised by, with their quantiles, ascending."""


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its kind, and how it is bounded, written and shown."""

    name: str
    """Name, as an objective writes it."""
    kind: MetricKind
    title: str
    """Name in a sentence, a table's head and a plot's axis: `macro-F1`."""
    of: str
    """What the metric measures, for a list of metrics."""
    lower_is_better: bool
    """Whether lower values are better; its bound is then an upper one."""
    unit: Unit
    example: str
    """An amount, as a user would write it."""
    span: str = ""
    """Key of the span, for a latency."""
    statistic: str = ""
    """p50, p90, p95, p99 or mean, for a latency."""
    tasks: tuple[str, ...] = ()
    """The tasks that have it, for a quality metric."""
    missed: str = ""
    """What is said of a trial that misses its bound: `too many failed requests`."""
    lowest: float | None = None
    """The least that it can be, in its own unit; None: as for its unit."""
    highest: float | None = None
    """The most that it can be, in its own unit; None: as for its unit."""
    of_streams: bool = False
    """Whether only models that write have it, whose answers come token by token."""
    right_or_wrong: bool = False
    """Whether each sample is right or wrong, so that McNemar's test compares two models."""

    @property
    def is_quality(self) -> bool:
        """Whether no load decides it, and whether it may be relative to the teacher's."""
        return self.kind is MetricKind.QUALITY

    @property
    def possible(self) -> tuple[float, float]:
        """The lowest and the highest value that it can have, in its own unit."""
        low = self.unit.lowest if self.lowest is None else self.lowest
        return low, self.unit.highest if self.highest is None else self.highest

    @property
    def cause(self) -> str:
        """What a rejection by it is filed under: latency, quality, or the metric's own name."""
        if self.kind in {MetricKind.LATENCY, MetricKind.QUALITY}:
            return str(self.kind)
        return self.name

    @property
    def clause(self) -> str:
        """An example of a clause: `p95 < 50 ms`."""
        return f"{self.name} {'<' if self.lower_is_better else '>='} {self.example}"

    @property
    def quantile(self) -> float | None:
        """The quantile of a latency percentile; None for a mean and for all other metrics."""
        return PERCENTILES.get(self.statistic)

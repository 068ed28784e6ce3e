"""A number with its interval, the traffic that a plan is asked for, what a machine costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.types.workloads import ArrivalProcess


@dataclass(frozen=True)
class Interval:
    """A measured or predicted value and its confidence bounds, in the unit of the value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Demand:
    """Traffic that a deployment has to carry."""

    rate_per_s: float
    """Requests per second, mean over the day or over whatever the arrivals repeat."""
    peak_factor: float = 1.0
    """The busiest minutes' rate over the mean rate; at least 1."""
    arrivals: ArrivalProcess = field(default_factory=ArrivalProcess)
    """How requests are spread within a stretch of constant rate."""
    batch_mix: tuple[tuple[int, float], ...] = ((1, 1.0),)
    """Rows per request, and the weight of each."""

    @property
    def peak_rate_per_s(self) -> float:
        """Requests per second in the busiest minutes: what capacity is planned for."""
        return self.rate_per_s * self.peak_factor

    @property
    def rows_per_request(self) -> float:
        """Mean inferences that a request carries."""
        total = sum(weight for _, weight in self.batch_mix)
        return sum(rows * weight for rows, weight in self.batch_mix) / total


@dataclass(frozen=True)
class Pricing:
    """The machine that answers are priced on, and how fast it is beside the one measured."""

    instance: str
    """Instance type, such as `g5.xlarge`."""
    usd_per_hour: float
    """Price of one machine in US dollars per hour."""
    scaling: Interval = Interval(1.0, 1.0, 1.0)
    """Throughput there over the throughput of the machine that was measured."""
    rule: str = ""
    """How the scaling was estimated, in words; empty where that very type was measured."""

    @property
    def is_estimate(self) -> bool:
        """Whether the throughput there was not measured."""
        return bool(self.rule)

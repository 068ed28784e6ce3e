"""What is predicted of a replica's load, and the plan that rests on it (`plan.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types.estimates import Demand, Interval
from harness.types.variants import Decision
from harness.types.workloads import ServingConfig, WireProtocol


@dataclass(frozen=True)
class Prediction:
    """What a number of equal replicas would show under a demand; nothing here was measured."""

    rate_per_s: float
    """Requests per second over all replicas."""
    replicas: int
    latency_ms: Mapping[str, Interval]
    """Latency of the response span (as a client sees it), by statistic: mean, p50, p90, p95, p99.
    Where the queue would grow for ever the value is `harness.hdr.UNBOUNDED_MS`."""
    throughput_inferences_per_s: Interval
    batch_mean: Interval
    """Mean rows per execution."""
    batch_sizes: Mapping[int, float]
    """Rows of an execution -> share of the executions."""
    rejected_share: Interval
    """0 to 1: of the requests, those that meet a full queue."""
    utilization: Interval
    """0 to 1: of the instances' time, what is spent executing."""
    confidence: float
    """Confidence of every interval here."""
    beyond_measured: float = 0.0
    """By how much a replica's load exceeds the highest that was measured: 0.2 is 20% above it, 0 is
    inside the measured range."""
    outside: tuple[str, ...] = ()
    """Each way in which the question leaves the measured range, in words."""


@dataclass(frozen=True)
class MeasuredPoint:
    """A trial, as it stands beside the predictions."""

    trial_id: str
    rate_per_s: float
    """Requests per second, completed."""
    latency_ms: Interval
    """Latency of the planned statistic."""
    open_loop: bool
    predicted_ms: float | None = None
    """The model's value for this very trial; None where it was not simulated."""


@dataclass(frozen=True)
class Headroom:
    """Replicas that still carry the peak within the objective, by what happens to them."""

    peak: int
    """Replicas for the peak when all of them work."""
    lost_replica: int
    lost_zone: int
    rolling_update: int
    cold_start: int
    """Replicas at the mean rate with which a rise to the peak is carried while others start."""

    @property
    def recommended(self) -> int:
        """Replicas enough for each single event (but a rise), not for two at once."""
        return max(self.peak, self.lost_replica, self.lost_zone, self.rolling_update)


MEASURED_RANGE = "measured range"
"""What limits a rate above which nothing was measured."""


@dataclass(frozen=True)
class DeploymentPlan:
    """One variant in one serving configuration: what a replica carries, and how many it takes."""

    variant: str
    family: str
    serving: ServingConfig
    protocol: WireProtocol
    objective: str
    """The objective that is planned for: the family's own, unless one was given."""
    statistic: str
    """The first latency that the objective bounds, such as p95."""
    bound_ms: float
    highest_rate_per_s: Interval
    """Requests per second of one replica that meet the objective; the planned number is `low`."""
    limited_by: str
    """`objective`, or `MEASURED_RANGE` where a higher rate might meet it but none was measured."""
    replicas: Headroom | None
    """Number of replicas; None where no rate is sure to meet the objective."""
    latency_at_peak_ms: Interval | None
    """The planned statistic with the peak spread over `replicas.peak`."""
    decision: Decision
    """Decision on the objective at the peak on `replicas.peak`."""
    curve: tuple[Prediction, ...]
    """Predictions for one replica at rising rates."""
    measured: tuple[MeasuredPoint, ...]
    error: Mapping[str, float]
    """By statistic, the median of |predicted / measured - 1| over the trials that were
    simulated."""
    cold_start_s: float | None
    """Seconds from the order to load to the steady state; None where it was not measured."""
    note: str = ""
    """What a reader has to know of this row: out by its quality, or asked beyond what is known."""


@dataclass(frozen=True)
class CapacityPlan:
    """What `harness plan` answers."""

    demand: Demand
    zones: int
    max_unavailable: float
    """0 to 1: of the replicas, those that a rolling update takes away at a time."""
    ramp_s: float
    """How long the demand takes from its mean to its peak."""
    confidence: float
    seed: int
    deployments: tuple[DeploymentPlan, ...]
    left_out: tuple[str, ...] = field(default=())
    """Variants and configurations without a plan, each with its reason."""

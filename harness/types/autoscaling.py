"""Demand over time, the rules that numbers of replicas follow, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from harness.types.estimates import Interval, Pricing
from harness.types.variants import Decision
from harness.types.workloads import ServingConfig, WireProtocol


@dataclass(frozen=True)
class RateTrace:
    """Demand over time, as mean rates in equal steps."""

    source: str
    """Where it came from: a file, a shape or a query, for people."""
    step_s: float
    rates_per_s: tuple[float, ...]
    """Requests per second, mean of each step."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of it."""
    begins_s: float | None = None
    """When the first step begins, in seconds of the UTC day; None where nobody says."""

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the first step to the end of the last."""
        return self.step_s * len(self.rates_per_s)

    @property
    def mean_per_s(self) -> float:
        """Mean rate, in requests per second."""
        return sum(self.rates_per_s) / len(self.rates_per_s)

    @property
    def peak_per_s(self) -> float:
        """Rate of the busiest step, in requests per second."""
        return max(self.rates_per_s)

    def at(self, time_s: float) -> float:
        """The rate at a time from the start, in requests per second; 0 after the end."""
        step = int(time_s / self.step_s)
        return self.rates_per_s[step] if step < len(self.rates_per_s) else 0.0


@dataclass(frozen=True)
class UtilizationRule:
    """Keep as many replicas as hold each at a share of what it can serve."""

    share: float
    """0 to 1: of one replica's saturation."""
    per_replica_per_s: float
    """Requests per second that this share is."""
    drain_s: float | None = 60.0
    """Requests that wait count as demand too: as many per second as empty the queue in this time.
    None leaves them out; what is counted is then what the replicas answer, which cannot exceed what
    they are able to answer, whatever comes."""
    kind: Literal["utilization"] = "utilization"


@dataclass(frozen=True)
class QueueRule:
    """More replicas while a request waits longer than a target."""

    target_ms: float
    """Mean time in the queue per request."""
    per_replica_per_s: float | None
    """Requests per second of one replica at which they wait so long: fewer replicas than demand
    divided by this are never asked for. None: scale-in goes by the waiting time alone, which is
    near 0 until it is far too long, so that the number of replicas swings."""
    drain_s: float | None = 60.0
    most: float = 2.0
    """The measured time counts as at most so many times the target: a queue that stands for minutes
    says nothing of how many replicas are missing."""
    kind: Literal["queue"] = "queue"


@dataclass(frozen=True)
class InFlightRule:
    """Keep as many replicas as leave a number of requests at each, waiting or executing."""

    per_replica: float
    kind: Literal["in_flight"] = "in_flight"


@dataclass(frozen=True)
class ScheduleRule:
    """So many replicas at so many seconds of a period that repeats."""

    slot_s: float
    replicas: tuple[int, ...]
    """One for each slot of the period."""
    lead_s: float
    """How long before its slot a number is asked for: replicas take time to start."""
    begins_s: float | None = None
    """When the first slot begins, in seconds of the UTC day; None where the trace does not say."""
    kind: Literal["schedule"] = "schedule"

    @property
    def period_s(self) -> float:
        """Seconds after which the schedule repeats."""
        return self.slot_s * len(self.replicas)


@dataclass(frozen=True)
class ForecastRule:
    """Like `UtilizationRule`, for the larger of today's demand and the one its trend predicts.

    The trend is a straight line through the last minutes (least squares), as Prometheus'
    `predict_linear` draws it.
    """

    share: float
    per_replica_per_s: float
    window_s: float
    horizon_s: float
    """How far ahead: until what is ordered now carries its part."""
    drain_s: float | None = 60.0
    kind: Literal["forecast"] = "forecast"


@dataclass(frozen=True)
class FixedRule:
    """Always so many replicas: what an autoscaler is compared with."""

    replicas: int
    kind: Literal["fixed"] = "fixed"


Rule = UtilizationRule | QueueRule | InFlightRule | ScheduleRule | ForecastRule | FixedRule


@dataclass(frozen=True)
class Policy:
    """Rules, of which the one that asks for most replicas is followed, as Kubernetes does."""

    name: str
    rules: tuple[Rule, ...]


class Select(StrEnum):
    """Which of several steps counts; the words are Kubernetes'."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True)
class ReplicaStep:
    """How much the number of replicas may change within a period."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True)
class Behavior:
    """One direction of scaling, with the fields of Kubernetes' `behavior`."""

    stabilization_s: int
    """The most cautious recommendation of so many seconds counts; 0 to 3,600."""
    steps: tuple[ReplicaStep, ...]
    select: Select = Select.MAX


SCALE_UP = Behavior(0, (ReplicaStep("Percent", 100, 15), ReplicaStep("Pods", 4, 15)))
"""Kubernetes' default."""
SCALE_DOWN = Behavior(300, (ReplicaStep("Percent", 100, 15),))
"""Kubernetes' default."""


@dataclass(frozen=True)
class ScalingLimits:
    """What Kubernetes' HorizontalPodAutoscaler does with a recommendation."""

    min_replicas: int = 1
    max_replicas: int = 10
    tolerance: float = 0.1
    """A metric this close to its target, as a share of it, changes nothing."""
    up: Behavior = SCALE_UP
    down: Behavior = SCALE_DOWN


@dataclass(frozen=True)
class ScaledDeployment:
    """What is scaled in a cluster, and who knows its metrics there."""

    model: str
    deployment: str = "triton"
    namespace: str = ""
    """Kubernetes' namespace; empty: none is written, and the manifests go where kubectl says."""
    match: str = ""
    """Further label matchers of its series, such as `namespace="ml"`."""
    prometheus: str = "http://prometheus-operated.monitoring:9090"
    """Prometheus' address as KEDA reaches it."""


@dataclass(frozen=True)
class SharedMachine:
    """What replicas carry on one machine that the balancer and the load generator use too."""

    alone_per_s: float
    """Requests per second of one replica that always had work."""
    pair_per_s: float
    """Throughput of two replicas together."""
    starting_share: float
    """0 to 1: of one replica's throughput, what was left while another one started beside it."""

    @property
    def contention(self) -> float:
        """How much longer each takes for every other one: 0 where two carry twice as much."""
        return max(0.0, 2 * self.alone_per_s / self.pair_per_s - 1)

    def speed(self, replicas: float, *, starting: bool) -> float:
        """0 to 1: how fast each of so many is, one alone being 1."""
        shared = 1 + self.contention * max(0.0, replicas - 1)
        return (self.starting_share if starting else 1.0) / shared


@dataclass(frozen=True)
class ScalingTerms:
    """Times of everything between demand and a replica that carries it."""

    start_s: float
    """Seconds from the order of a replica until it carries its part."""
    sync_s: float = 15.0
    """Between two decisions; Kubernetes' default."""
    window_s: float = 60.0
    """Seconds over which rates are averaged: PromQL's [1m]."""
    scrape_s: float = 15.0
    """Between two scrapes: what is decided on is taken to be as old as that."""
    limits: ScalingLimits = field(default_factory=ScalingLimits)
    machine: SharedMachine | None = None
    """The machine that all replicas share, as it was measured; None: each has a machine of its
    own."""


@dataclass(frozen=True)
class ScalingCourse:
    """One policy over time, for a picture: equal stretches, each with its mean."""

    stretch_s: float
    demand_per_s: tuple[float, ...]
    ordered: tuple[float, ...]
    """Replicas that are paid for, ready or not."""
    ready: tuple[float, ...]
    attained: tuple[float, ...]
    """0 to 1: of the requests that came in the stretch, those within the bound; -1 without any."""


@dataclass(frozen=True)
class PolicyOutcome:
    """What a policy would do on a trace; simulated."""

    policy: Policy
    attained: Interval
    """0 to 1: of all requests, those within the bound."""
    needed: float
    """0 to 1: the share that the objective asks for."""
    decision: Decision
    """Decision on all latency clauses of the objective, over the whole trace."""
    replica_hours: Interval
    scalings: Interval
    """Changes of the number of replicas."""
    most_replicas: int
    missed_share: Interval
    """0 to 1: of the minutes with traffic, those in which too few requests were within the
    bound."""
    cost_usd: Interval | None
    """Cost of the whole trace; None without a price."""
    with_foresight: bool = False
    """Whether the policy was made from the very hours that it is judged on: it is a yardstick, and
    never chosen."""
    on_front: bool = False
    """No other policy without foresight keeps more requests within the bound with fewer replica
    hours."""
    course: ScalingCourse | None = None


@dataclass(frozen=True)
class LiveOutcome:
    """A policy on real replicas under a real load, beside what had been predicted of it."""

    policy: str
    length_s: float
    """Length of the trace as it was run."""
    requests: int
    failed: int
    """Requests without a right answer, or never sent: not in time either."""
    attained: Interval
    """0 to 1, measured; the bounds are exact for independent requests (Clopper-Pearson)."""
    predicted: Interval
    replica_hours: float
    predicted_replica_hours: Interval
    scalings: int
    predicted_scalings: Interval
    most_replicas: int
    predicted_most: int
    start_s: Interval
    """How long replicas took to start: mean, shortest, longest."""
    course: ScalingCourse
    resumed: int = 0
    """How often it was killed and gone on with."""


@dataclass(frozen=True)
class LiveStep:
    """One decision of a live scaler, and what was seen up to it."""

    at_s: float
    """Seconds since the start of the trace."""
    ordered: int
    ready: int
    requests: int
    """Requests that fell due before `counted_s`, since the start of the trace."""
    in_time: int
    failed: int
    counted_s: float = 0.0
    """Seconds since the start of the trace: where a resumed run goes on, so that no request counts
    twice."""


@dataclass(frozen=True)
class AutoscalePlan:
    """What `harness autoscale` answers (`autoscale.json`)."""

    variant: str
    family: str
    serving: ServingConfig
    protocol: WireProtocol
    objective: str
    statistic: str
    """The first latency that the objective bounds, such as p95."""
    bound_ms: float
    trace: RateTrace
    terms: ScalingTerms
    saturation_per_s: float
    """Requests per second of one replica that never waits for work, by the best guess."""
    pricing: Pricing | None
    """Price of one replica, one on each machine; None where no price was given."""
    outcomes: tuple[PolicyOutcome, ...]
    chosen: str | None
    """Name of the policy with the fewest replica hours of those that are sure to keep the
    objective; None where none is."""
    reason: str
    """Why that one, or why none."""
    draws: int
    """Simulations behind each interval."""
    confidence: float
    seed: int
    notes: tuple[str, ...] = ()
    """What the trials do not show, and what is assumed."""
    manifests: Mapping[str, str] = field(default_factory=dict)
    """The chosen policy as Kubernetes' YAML, by file name; none for a fixed number of replicas."""
    live: LiveOutcome | None = None
    """The policy run on real replicas; None where it was only simulated."""


@dataclass(frozen=True)
class LiveState:
    """A live run that goes on (`autoscale-live.json`): all that a resumed one needs."""

    plan: AutoscalePlan
    policy: Policy
    length_s: float
    steps: tuple[LiveStep, ...] = ()
    """The number that it begins with, at 0 s, and every decision."""
    start_times_s: tuple[float, ...] = ()
    resumed: int = 0
    finished: bool = False

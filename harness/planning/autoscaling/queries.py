"""A policy's metrics as PromQL over Triton's counters, each with its target.

They compute what `FleetReading` holds. Counters are summed over all replicas before one is divided
by another, and both sides are of the same model: a mean of the replicas' own quotients would give
an idle replica as much weight as a busy one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.types.autoscaling import (
    ForecastRule,
    InFlightRule,
    Policy,
    QueueRule,
    Rule,
    ScalingTerms,
    UtilizationRule,
)

_NO_TRAFFIC_PER_S = "1e-9"
"""Stands in for a rate of 0, which nothing can be divided by."""


@dataclass(frozen=True)
class ScalingMetric:
    """A metric that an autoscaler holds against a target."""

    name: str
    query: str
    """A PromQL expression with one value."""
    target: float
    kind: Literal["AverageValue", "Value"]
    """Kubernetes' words: a total of which each replica gets a part, or a value of all of them."""


def metrics_of(policy: Policy, terms: ScalingTerms, model: str, match: str) -> list[ScalingMetric]:
    """The metrics of a policy's rules; a schedule and a fixed number have none.

    Args:
        policy: whose rules they are.
        terms: the window that rates are averaged over, and the time between two decisions.
        model: as Triton calls it.
        match: further label matchers, such as `namespace="ml"`; may be empty.
    """
    series = _Series(f'model="{model}"' + (f",{match}" if match else ""), f"{terms.window_s:.0f}s")
    return [
        metric for rule in policy.rules for metric in _metrics(rule, series, f"{terms.sync_s:.0f}s")
    ]


@dataclass(frozen=True)
class _Series:
    """PromQL about one model's counters over one window."""

    matchers: str
    window: str

    def per_s(self, counter: str) -> str:
        return f"sum(rate({counter}{{{self.matchers}}}[{self.window}]))"

    @property
    def waiting(self) -> str:
        return f"sum(nv_inference_pending_request_count{{{self.matchers}}})"

    @property
    def completed_per_s(self) -> str:
        """Answered or refused; a model that never failed has no series of failures."""
        names = '__name__=~"nv_inference_request_(success|failure)"'
        return f"sum(rate({{{names},{self.matchers}}}[{self.window}]))"

    def demand(self, drain_s: float | None) -> str:
        return self.completed_per_s + (f" + {self.waiting} / {drain_s:g}" if drain_s else "")

    @property
    def executing(self) -> str:
        """Time that requests spend outside the queue per second is the number of them: Little."""
        spent = self.per_s("nv_inference_request_duration_us")
        return f"({spent} - {self.per_s('nv_inference_queue_duration_us')}) / 1e6"

    @property
    def queue_ms(self) -> str:
        answered = self.per_s("nv_inference_request_success")
        return (
            f"{self.per_s('nv_inference_queue_duration_us')} / 1e3"
            f" / clamp_min({answered}, {_NO_TRAFFIC_PER_S})"
        )


def _metrics(rule: Rule, series: _Series, step: str) -> list[ScalingMetric]:
    match rule:
        case UtilizationRule():
            demand = series.demand(rule.drain_s)
            return [ScalingMetric("demand", demand, rule.per_replica_per_s, "AverageValue")]
        case ForecastRule():
            demand = series.demand(rule.drain_s)
            ahead = (
                f"clamp_min(predict_linear(({demand})[{rule.window_s:.0f}s:{step}], "
                f"{rule.horizon_s:.0f}), 0)"
            )
            each = rule.per_replica_per_s
            return [
                ScalingMetric("demand", demand, each, "AverageValue"),
                ScalingMetric("forecast", ahead, each, "AverageValue"),
            ]
        case InFlightRule():
            in_flight = f"{series.waiting} + {series.executing}"
            return [ScalingMetric("in-flight", in_flight, rule.per_replica, "AverageValue")]
        case QueueRule():
            waited = f"clamp_max({series.queue_ms}, {rule.most * rule.target_ms:g})"
            found = [ScalingMetric("queue-ms", waited, rule.target_ms, "Value")]
            if rule.per_replica_per_s is not None:
                demand, each = series.demand(rule.drain_s), rule.per_replica_per_s
                found.append(ScalingMetric("demand", demand, each, "AverageValue"))
            return found
        case _:
            return []

"""A policy as Kubernetes' manifests: a KEDA ScaledObject; an HPA with Prometheus Adapter's rules.

Fields are those of autoscaling/v2 and keda.sh/v1alpha1. KEDA's `cooldownPeriod` is left out: it
only governs going from one replica to none. Scaling in among several is governed by the HPA that
KEDA makes, so its `behavior` holds the stabilization windows here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from harness.errors import UsageError
from harness.planning.autoscaling.candidates import DAY_S
from harness.planning.autoscaling.queries import ScalingMetric, metrics_of
from harness.types.autoscaling import (
    Behavior,
    FixedRule,
    Policy,
    ScaledDeployment,
    ScalingTerms,
    ScheduleRule,
)
from harness.words.numbers import asked

Json = dict[str, Any]
KEDA, HPA, ADAPTER = "keda.yaml", "hpa.yaml", "prometheus-adapter.yaml"
"""File names, behind the document's own."""
_DAY_MINUTES = 1440


def manifests_of(
    policy: Policy, terms: ScalingTerms, scaled: ScaledDeployment, facts: Mapping[str, str]
) -> dict[str, str]:
    """YAML by file name; none for a fixed number of replicas, which a Deployment itself holds.

    Args:
        policy: what is to be followed.
        terms: the scaler's limits, windows and times.
        scaled: the deployment.
        facts: what was simulated of the policy, as annotations: a name and a value each.

    Raises:
        UsageError: a schedule whose period is not a day, which no cron expression says.
    """
    if any(isinstance(rule, FixedRule) for rule in policy.rules):
        return {}
    annotations = {f"harness/{name}": value for name, value in facts.items()}
    metrics = metrics_of(policy, terms, scaled.model, scaled.match)
    schedules = [rule for rule in policy.rules if isinstance(rule, ScheduleRule)]
    for rule in schedules:
        annotations["harness/schedule-begins"] = _begins_words(rule)
    found = {KEDA: _scaled_object(metrics, schedules, terms, scaled, annotations)}
    if metrics and not schedules:
        found[HPA] = _horizontal_pod_autoscaler(metrics, terms, scaled, annotations)
        found[ADAPTER] = _adapter_rules(metrics, scaled)
    return {
        name: yaml.safe_dump(one, sort_keys=False, width=100_000, allow_unicode=True)
        for name, one in found.items()
    }


def _scaled_object(
    metrics: Sequence[ScalingMetric],
    schedules: Sequence[ScheduleRule],
    terms: ScalingTerms,
    scaled: ScaledDeployment,
    annotations: Mapping[str, str],
) -> Json:
    stretches = [one for rule in schedules for one in _stretches(rule)]
    always = [one.replicas for one in stretches if one.fills_the_day]
    least = max([terms.limits.min_replicas, *always])
    triggers = [_prometheus_trigger(one, scaled) for one in metrics]
    triggers += [_cron_trigger(one) for one in stretches if one.replicas > least]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(scaled, annotations),
        "spec": {
            "scaleTargetRef": _target(scaled),
            "pollingInterval": round(terms.sync_s),
            "minReplicaCount": least,
            "maxReplicaCount": terms.limits.max_replicas,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(terms)}},
            "triggers": triggers,
        },
    }


def _prometheus_trigger(metric: ScalingMetric, scaled: ScaledDeployment) -> Json:
    return {
        "type": "prometheus",
        "name": metric.name,
        "metricType": metric.kind,
        "metadata": {
            "serverAddress": scaled.prometheus,
            "query": metric.query,
            "threshold": f"{metric.target:.6g}",
        },
    }


@dataclass(frozen=True)
class _Stretch:
    """A time of the day at which a schedule asks for one number."""

    replicas: int
    start: int
    """Minute of the UTC day from which it is asked for, the lead included; below 0: of the day
    before."""
    end: int
    """Minute at which that ends, from the same midnight on."""

    @property
    def fills_the_day(self) -> bool:
        """KEDA refuses a trigger that starts as it ends, and takes a longer one for a short one."""
        return self.end - self.start >= _DAY_MINUTES


def _stretches(rule: ScheduleRule) -> Iterator[_Stretch]:
    """One for all slots in a row with the same number."""
    if rule.period_s != DAY_S:
        raise UsageError(
            f"a schedule that repeats every {asked(rule.period_s)} s cannot be written as cron "
            "triggers",
            next_step="name a trace of two days or more, so that the schedule is one of a day",
        )
    first, begins_s = 0, rule.begins_s or 0.0
    for replicas, run in groupby(rule.replicas):
        after = first + len(list(run))
        start_s = begins_s + first * rule.slot_s - rule.lead_s
        end_s = begins_s + after * rule.slot_s
        yield _Stretch(replicas, math.floor(start_s / 60), math.ceil(end_s / 60))
        first = after


def _cron_trigger(stretch: _Stretch) -> Json:
    return {
        "type": "cron",
        "metadata": {
            "timezone": "Etc/UTC",
            "start": _cron(stretch.start),
            "end": _cron(stretch.end),
            "desiredReplicas": str(stretch.replicas),
        },
    }


def _cron(minute: int) -> str:
    """A minute of the day as a cron expression."""
    hour, minute = divmod(minute % _DAY_MINUTES, 60)
    return f"{minute} {hour} * * *"


def _begins_words(rule: ScheduleRule) -> str:
    """At what time of day the schedule begins, and how that is known."""
    if rule.begins_s is None:
        return (
            "00:00 UTC, which is taken for granted: the trace does not say when it begins; where "
            "that is another time, move every start and end by as much"
        )
    hour, minute = divmod(int(rule.begins_s // 60), 60)
    return f"{hour:02}:{minute:02} UTC, as the trace does"


def _horizontal_pod_autoscaler(
    metrics: Sequence[ScalingMetric],
    terms: ScalingTerms,
    scaled: ScaledDeployment,
    annotations: Mapping[str, str],
) -> Json:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(scaled, annotations),
        "spec": {
            "scaleTargetRef": _target(scaled),
            "minReplicas": terms.limits.min_replicas,
            "maxReplicas": terms.limits.max_replicas,
            "behavior": _behavior(terms),
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": _external_name(one, scaled)},
                        "target": _quantity(one),
                    },
                }
                for one in metrics
            ],
        },
    }


def _quantity(metric: ScalingMetric) -> Json:
    """A target in thousandths, which a Kubernetes quantity holds exactly."""
    field = "averageValue" if metric.kind == "AverageValue" else "value"
    return {"type": metric.kind, field: f"{max(1, round(1e3 * metric.target))}m"}


def _adapter_rules(metrics: Sequence[ScalingMetric], scaled: ScaledDeployment) -> Json:
    """What Prometheus Adapter has to know: values for its Helm chart."""
    return {
        "rules": {
            "external": [
                {
                    "seriesQuery": f'nv_inference_request_success{{model="{scaled.model}"}}',
                    "resources": {"namespaced": False},
                    "name": {"as": _external_name(one, scaled)},
                    "metricsQuery": one.query,
                }
                for one in metrics
            ]
        }
    }


def _external_name(metric: ScalingMetric, scaled: ScaledDeployment) -> str:
    words = f"triton-{scaled.model}-{metric.name}".lower()
    return "".join(letter if letter.isalnum() else "_" for letter in words)


def _metadata(scaled: ScaledDeployment, annotations: Mapping[str, str]) -> Json:
    place = {"namespace": scaled.namespace} if scaled.namespace else {}
    return {"name": scaled.deployment, **place, "annotations": dict(annotations)}


def _target(scaled: ScaledDeployment) -> Json:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": scaled.deployment}


def _behavior(terms: ScalingTerms) -> Json:
    return {"scaleUp": _rules(terms.limits.up), "scaleDown": _rules(terms.limits.down)}


def _rules(behavior: Behavior) -> Json:
    return {
        "stabilizationWindowSeconds": behavior.stabilization_s,
        "selectPolicy": behavior.select.value,
        "policies": [
            {"type": one.type, "value": one.value, "periodSeconds": one.period_s}
            for one in behavior.steps
        ],
    }

"""A policy as Kubernetes' manifests: a KEDA ScaledObject; an HPA with Prometheus Adapter's rules.

Fields are those of autoscaling/v2 and keda.sh/v1alpha1. KEDA's `cooldownPeriod` is left out: it
only governs going from one replica to none. Scaling in among several is governed by the HPA that
KEDA makes, so its `behavior` holds the stabilization windows here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    triggers = [_prometheus_trigger(one, scaled) for one in metrics]
    for rule in schedules:
        triggers += _cron_triggers(rule, terms.limits.min_replicas)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(scaled, annotations),
        "spec": {
            "scaleTargetRef": _target(scaled),
            "pollingInterval": round(terms.sync_s),
            "minReplicaCount": terms.limits.min_replicas,
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


def _cron_triggers(rule: ScheduleRule, least: int) -> Iterator[Json]:
    """One trigger for each stretch of slots with the same number above the least."""
    if rule.period_s != DAY_S:
        raise UsageError(
            f"a schedule that repeats every {asked(rule.period_s)} s cannot be written as cron "
            "triggers",
            next_step="name a trace of two days or more, so that the schedule is one of a day",
        )
    slots = rule.replicas
    first = 0
    while first < len(slots):
        last = first
        while last + 1 < len(slots) and slots[last + 1] == slots[first]:
            last += 1
        if slots[first] > least:
            yield {
                "type": "cron",
                "metadata": {
                    "timezone": "Etc/UTC",
                    "start": _cron(first * rule.slot_s - rule.lead_s),
                    "end": _cron((last + 1) * rule.slot_s),
                    "desiredReplicas": str(slots[first]),
                },
            }
        first = last + 1


def _cron(at_s: float) -> str:
    """A minute of the day, rounded down, as a cron expression."""
    minute = int(at_s % DAY_S // 60)
    return f"{minute % 60} {minute // 60} * * *"


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

"""Manifests of policies: against Kubernetes' schemas, KEDA's own, and themselves.

KEDA's custom resources say of a trigger only that its metadata are texts by name: which ones is in
the documentation of each scaler (https://keda.sh/docs/2.16/scalers/prometheus/ and cron/), from
which the triggers below are written; they refuse what it does not name.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Annotated, Literal

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from harness.errors import UsageError
from harness.planning.autoscaling.manifests import ADAPTER, HPA, KEDA, manifests_of
from harness.planning.autoscaling.queries import metrics_of
from harness.types.autoscaling import (
    FixedRule,
    ForecastRule,
    InFlightRule,
    Policy,
    QueueRule,
    ScaledDeployment,
    ScalingLimits,
    ScalingTerms,
    ScheduleRule,
    UtilizationRule,
)

RELEASES = ("1.29", "1.32")
TERMS = ScalingTerms(start_s=40.0, limits=ScalingLimits(min_replicas=2, max_replicas=12))
SCALED = ScaledDeployment("topics-student", "triton", "ml", 'namespace="ml"')
FACTS = {"objective": "p95 < 30 ms", "simulated-in-time": "99.1% (98.5\u201399.6%) of the requests"}
UTILIZATION = UtilizationRule(0.7, 509.0909, 60.0)
POLICIES = {
    "utilization": (UTILIZATION,),
    "queue": (QueueRule(7.5, 400.0),),
    "queue alone": (QueueRule(7.5, None),),
    "in flight": (InFlightRule(5.3),),
    "forecast": (ForecastRule(0.6, 436.0, 300.0, 115.0),),
}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PrometheusMetadata(Strict):
    serverAddress: str  # noqa: N815
    query: str
    threshold: str


class PrometheusTrigger(Strict):
    type: Literal["prometheus"]
    name: str
    metricType: Literal["AverageValue", "Value"]  # noqa: N815
    metadata: PrometheusMetadata


class CronMetadata(Strict):
    timezone: str
    start: str
    end: str
    desiredReplicas: str  # noqa: N815


class CronTrigger(Strict):
    type: Literal["cron"]
    metadata: CronMetadata


TRIGGERS = TypeAdapter(
    list[Annotated[PrometheusTrigger | CronTrigger, Field(discriminator="type")]]
)


def as_keda_reads(document):
    """A ScaledObject by KEDA's own definition, in which nothing was unknown; and its triggers."""
    read = keda.ScaledObject.model_validate(document)
    # The models pass over what they do not know, so it would be missing here.
    known = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if known != document:
        raise ValueError(f"{document} is read as {known}")
    return read, TRIGGERS.validate_python(document["spec"]["triggers"])


def made(rules, terms=TERMS, scaled=SCALED):
    found = manifests_of(Policy("policy", tuple(rules)), terms, scaled, FACTS)
    return {name: yaml.safe_load(text) for name, text in found.items()}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
def test_every_policy_is_an_hpa_that_kubernetes_knows(rules, release):
    hpa = made(rules)[HPA]
    kubernetes_validate.validate(hpa, release, strict=True)
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (2, 12)
    assert hpa["metadata"]["annotations"]["harness/objective"] == "p95 < 30 ms"


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
def test_every_policy_is_a_scaled_object_with_the_hpas_behaviour(rules):
    documents = made(rules)
    read, triggers = as_keda_reads(documents[KEDA])
    hpa = documents[HPA]["spec"]
    assert (read.spec.min_replica_count, read.spec.max_replica_count) == (2, 12)
    advanced = documents[KEDA]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    assert advanced["behavior"] == hpa["behavior"]
    assert len(triggers) == len(hpa["metrics"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(minReplicas=2),
        lambda spec: spec.update(maxReplicaCount="many"),
        lambda spec: spec.pop("scaleTargetRef"),
        lambda spec: spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(down={}),
        lambda spec: spec["triggers"][0].pop("metadata"),
        lambda spec: spec["triggers"][0]["metadata"].update(threshold=3.5),
        lambda spec: spec["triggers"][0]["metadata"].update(metricName="queue"),
    ],
)
def test_what_keda_does_not_know_is_found(spoil):
    document = made((UTILIZATION,))[KEDA]
    as_keda_reads(document)
    spoilt = deepcopy(document)
    spoil(spoilt["spec"])
    with pytest.raises(ValueError, match=r"ScaledObject|Trigger"):
        as_keda_reads(spoilt)


def test_trap_scaling_in_is_slowed_by_the_window_and_not_by_kedas_cooldown():
    """`cooldownPeriod` only governs going from one replica to none."""
    terms = replace(TERMS, limits=replace(TERMS.limits, down=replace(
        TERMS.limits.down, stabilization_s=900
    )))  # fmt: skip
    spec = made((UTILIZATION,), terms)[KEDA]["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 900
    assert behavior["scaleUp"]["policies"] == [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ]
    assert "cooldownPeriod" not in spec
    assert "idleReplicaCount" not in spec


def test_targets_are_the_policys_in_both_forms():
    documents = made((QueueRule(7.5, 400.0),))
    queue, demand = documents[KEDA]["spec"]["triggers"]
    assert (queue["metricType"], queue["metadata"]["threshold"]) == ("Value", "7.5")
    assert (demand["metricType"], demand["metadata"]["threshold"]) == ("AverageValue", "400")
    targets = [one["external"]["target"] for one in documents[HPA]["spec"]["metrics"]]
    assert targets == [
        {"type": "Value", "value": "7500m"},
        {"type": "AverageValue", "averageValue": "400000m"},
    ]


def test_the_adapter_knows_every_metric_of_the_hpa_by_its_name():
    documents = made((QueueRule(7.5, 400.0),))
    names = [one["external"]["metric"]["name"] for one in documents[HPA]["spec"]["metrics"]]
    rules = documents[ADAPTER]["rules"]["external"]
    assert [one["name"]["as"] for one in rules] == names
    assert names[0] == "triton_topics_student_queue_ms"
    queries = [one["metadata"]["query"] for one in documents[KEDA]["spec"]["triggers"]]
    assert [one["metricsQuery"] for one in rules] == queries


def test_every_counter_is_summed_and_of_the_same_model():
    """A quotient of sums over different series is a number of nothing."""
    for rules in POLICIES.values():
        for metric in metrics_of(Policy("", rules), TERMS, SCALED.model, SCALED.match):
            series = metric.query.count("{")
            assert metric.query.count('model="topics-student",namespace="ml"}') == series
            assert metric.query.count("sum(") == series
            assert "avg" not in metric.query


def test_a_schedule_is_written_as_stretches_of_a_day_and_only_for_keda():
    numbers = [2] * 16 + [6] * 4 + [9] * 8 + [2] * 20
    rule = ScheduleRule(1800.0, tuple(numbers), lead_s=90.0)
    documents = made((rule, UTILIZATION))
    assert set(documents) == {KEDA}
    _, triggers = as_keda_reads(documents[KEDA])
    crons = [one.metadata for one in triggers if isinstance(one, CronTrigger)]
    assert [(one.start, one.end, one.desiredReplicas) for one in crons] == [
        ("58 7 * * *", "0 10 * * *", "6"),
        ("58 9 * * *", "0 14 * * *", "9"),
    ]
    with pytest.raises(UsageError, match="cannot be written as cron"):
        made((ScheduleRule(300.0, (2, 3), 15.0),))


def crons_of(*numbers, lead_s=90.0, begins_s=None):
    """The least number, and start, end and number of each cron trigger."""
    rule = ScheduleRule(1800.0, tuple(numbers), lead_s, begins_s)
    document = made((rule, UTILIZATION))[KEDA]
    read, triggers = as_keda_reads(document)
    crons = [one.metadata for one in triggers if isinstance(one, CronTrigger)]
    found = [(one.start, one.end, int(one.desiredReplicas)) for one in crons]
    return read.spec.min_replica_count, found


def test_a_schedule_is_written_at_the_time_of_day_at_which_its_trace_has_it():
    """From 14:30 UTC on: the slots 16 to 19 are 22:30 to 00:30, and 20 to 27 are until 04:30."""
    numbers = [2] * 16 + [6] * 4 + [9] * 8 + [2] * 20
    least, crons = crons_of(*numbers, begins_s=14.5 * 3600)
    assert least == 2
    assert crons == [("28 22 * * *", "30 0 * * *", 6), ("28 0 * * *", "30 4 * * *", 9)]
    # Not on a whole minute: no stretch is cut short.
    assert crons_of(*numbers, begins_s=14.5 * 3600 + 20)[1][0] == ("28 22 * * *", "31 0 * * *", 6)


@pytest.mark.parametrize(
    ("begins_s", "words"), [(52200.0, "14:30 UTC, as the trace does"), (None, "taken for granted")]
)
def test_a_manifest_says_when_its_schedule_begins_and_how_that_is_known(begins_s, words):
    rule = ScheduleRule(1800.0, (2, 5) * 24, 90.0, begins_s)
    annotations = made((rule, UTILIZATION))[KEDA]["metadata"]["annotations"]
    assert words in annotations["harness/schedule-begins"]
    assert "harness/schedule-begins" not in made((UTILIZATION,))[KEDA]["metadata"]["annotations"]


def test_what_a_schedule_asks_for_around_the_clock_is_the_least_number():
    """KEDA refuses a trigger that starts as it ends; one longer than a day is inactive but for a
    minute."""
    assert crons_of(*[5] * 48) == (5, [])
    assert crons_of(*[5] * 47, 3, lead_s=1800.0) == (5, [])
    assert crons_of(*[5] * 47, 9, lead_s=1800.0) == (5, [("0 23 * * *", "0 0 * * *", 9)])
    assert crons_of(*[5] * 47, 3) == (
        2,
        [("58 23 * * *", "30 23 * * *", 5), ("28 23 * * *", "0 0 * * *", 3)],
    )


def test_a_fixed_number_needs_no_autoscaler():
    assert made((FixedRule(4),)) == {}

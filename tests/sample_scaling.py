"""Autoscaling policies on a short trace, with a replica that is made up: for reports."""

from __future__ import annotations

from harness.planning.autoscaling.candidates import policies_of
from harness.planning.autoscaling.evaluation import (
    Ground,
    choose,
    clauses_of,
    evaluations,
    with_front,
)
from harness.planning.autoscaling.manifests import manifests_of
from harness.planning.autoscaling.replica import ReplicaTable
from harness.study.objective import parse_objective
from harness.types import ServingConfig, WireProtocol
from harness.types.autoscaling import (
    AutoscalePlan,
    RateTrace,
    ScaledDeployment,
    ScalingLimits,
    ScalingTerms,
)
from harness.types.estimates import Pricing


def sample_scaling() -> AutoscalePlan:
    """A rise from 100/s to 600/s and back, on replicas of 200/s that start in 40 s."""
    table = ReplicaTable(
        saturation_per_s=200.0,
        shares=(0.0, 0.5, 0.9),
        latency_s=((0.01,) * 20, (0.02,) * 20, tuple(0.002 * n for n in range(1, 21))),
        wait_s=(0.0, 0.005, 0.04),
        execution_s=(0.01, 0.01, 0.01),
    )
    rates = (100.0,) * 15 + (600.0,) * 20 + (150.0,) * 15
    trace = RateTrace("a rise and a fall", 60.0, rates)
    terms = ScalingTerms(40.0, limits=ScalingLimits(max_replicas=12))
    clauses = clauses_of(parse_objective("p95 < 50 ms"))
    pricing = Pricing("c7i.large", 0.089)
    ground = Ground(trace, terms, (table, table), clauses, 0.95, 3, pricing)
    policies = list(policies_of(trace, terms, table, 0.05, 150.0))
    outcomes = tuple(evaluations(ground, policies))
    chosen, reason = choose(outcomes)
    policy = next(one for one in policies if one.name == chosen)
    return AutoscalePlan(
        variant="student",
        family="topics",
        serving=ServingConfig(8),
        protocol=WireProtocol.GRPC,
        objective="p95 < 50 ms",
        statistic="p95",
        bound_ms=50.0,
        trace=trace,
        terms=terms,
        saturation_per_s=200.0,
        pricing=pricing,
        outcomes=with_front(outcomes),
        chosen=chosen,
        reason=reason,
        draws=2,
        confidence=0.95,
        seed=3,
        manifests=manifests_of(policy, terms, ScaledDeployment("student"), {}),
    )

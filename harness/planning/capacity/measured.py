"""Replicas of models that write token by token, planned with what was measured alone.

A replica that batches continuously is not a server that executes one batch after the other, so the
model of `model.py` does not hold for it, and nothing is simulated here. What is sure is what an
open loop has shown: a replica carries a rate at which the objective was met, and any lower one. It
is planned with the highest rate up to which every open loop of its configuration met it. The
prompts, and the lengths of the answers, are those that were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from harness.errors import UsageError
from harness.metrics import latency_of, metric_named
from harness.planning.assessment import Assessment, assess
from harness.planning.capacity.headroom import Surroundings, cold_start_seconds, headroom
from harness.study.clauses import judged_latency, load_clauses
from harness.types import (
    ArrivalKind,
    ColdStart,
    Decision,
    LoadMode,
    ServiceLevelObjective,
    ServingConfig,
    ShapeKind,
    TrialResult,
    WireProtocol,
)
from harness.types.capacity import MEASURED_RANGE, DeploymentPlan, MeasuredPoint
from harness.types.estimates import Demand, Interval
from harness.types.metrics import MetricKind
from harness.words.numbers import number, seconds

ONLY_MEASURED = (
    "the answers came token by token, and replicas are then planned with the open loops that were "
    "measured"
)
OTHER_ARRIVALS = (
    "the answers came token by token, and replicas are then planned with what was measured: "
    "Poisson arrivals of one prompt a request, and no others"
)


@dataclass(frozen=True)
class MeasuredReplica:
    """A variant in a serving configuration, and its open loops at rising rates."""

    variant: str
    family: str
    serving: ServingConfig
    protocol: WireProtocol
    loops: tuple[TrialResult, ...]
    """By the rate that was asked for."""


def _asked_per_s(one: TrialResult) -> float:
    return one.trial.workload.rate_per_s or one.throughput_requests_per_s


def why_not(trials: Sequence[TrialResult], demand: Demand) -> str:
    """Why a variant's streams have no plan; empty where they have.

    Args:
        trials: of the variant, invalid ones included.
        demand: what is asked for.
    """
    if not _is_measured(demand):
        return OTHER_ARRIVALS
    opened = [one for one in trials if one.trial.workload.load_mode is LoadMode.OPEN]
    if any(map(_is_open, opened)):
        return ""
    invalid = [one.invalid_reason for one in opened if not one.valid]
    if invalid:
        return f"{ONLY_MEASURED}: none of the {len(opened)} is valid: {invalid[0]}"
    return f"{ONLY_MEASURED}, and there is none (saturation_shares in the study asks for them)"


def measured_replicas(trials: Sequence[TrialResult], demand: Demand) -> list[MeasuredReplica]:
    """What can be planned by measurement: each configuration that open loops of streams drove."""
    found: dict[tuple[str, str, ServingConfig, WireProtocol], list[TrialResult]] = {}
    for one in trials if _is_measured(demand) else ():
        if _is_open(one):
            trial = one.trial
            key = (trial.variant, trial.family, trial.serving, trial.workload.protocol)
            found.setdefault(key, []).append(one)
    return [
        MeasuredReplica(*key, tuple(sorted(loops, key=_asked_per_s)))
        for key, loops in found.items()
    ]


def plan_measured(
    replica: MeasuredReplica,
    slo_of: Callable[[str], ServiceLevelObjective],
    cold_starts: Sequence[ColdStart],
    demand: Demand,
    surroundings: Surroundings,
) -> DeploymentPlan:
    """How many such replicas carry a demand.

    Args:
        replica: with at least one open loop.
        slo_of: each family's objective; its clauses on latencies and errors count.
        cold_starts: of the run.
        demand: Poisson arrivals of one prompt each.
        surroundings: what may happen to the replicas.

    Raises:
        UsageError: the family's objective bounds no latency.
    """
    slo = slo_of(replica.family)
    metric = judged_latency(slo)
    bound = next((one for one in slo.constraints if one.metric == metric.name), None)
    if bound is None:
        raise UsageError(
            f"the objective '{slo.text}' bounds no latency, so any rate short of saturation "
            "meets it",
            next_step='name one: --slo "ttft p95 < 200 ms"',
        )
    judged = _judged(replica, slo)
    met = list(takewhile(lambda one: one.decision is Decision.PASS, judged))
    rate_per_s = met[-1].result.throughput_requests_per_s if met else 0.0
    shown = met[-1] if met else judged[0]
    start = next((one for one in cold_starts if one.variant == replica.variant), None)
    start_s = cold_start_seconds(start)
    return DeploymentPlan(
        variant=replica.variant,
        family=replica.family,
        serving=replica.serving,
        protocol=replica.protocol,
        objective=slo.text,
        statistic=metric.name,
        bound_ms=bound.value,
        highest_rate_per_s=Interval(rate_per_s, rate_per_s, rate_per_s),
        limited_by=MEASURED_RANGE if len(met) == len(judged) else "objective",
        replicas=headroom(demand, rate_per_s, surroundings, start_s) if met else None,
        latency_at_peak_ms=_latency_ms(metric.name, shown.result) if met else None,
        decision=shown.decision,
        curve=(),
        measured=tuple(
            MeasuredPoint(trial_id, rate, latency_ms, open_loop=True)
            for trial_id, rate, latency_ms in _points(replica, metric.name)
        ),
        error={},
        cold_start_s=start_s,
        note=_note(replica, met, judged),
    )


def _judged(replica: MeasuredReplica, slo: ServiceLevelObjective) -> list[Assessment]:
    """The loops by the rate that was asked for: a replica that is overloaded may answer less.

    A rate that was not met once is not met: of one rate that loop comes first.
    """
    found = (assess(_of_one_replica(slo), one) for one in replica.loops)
    return sorted(found, key=lambda one: (_asked_per_s(one.result), one.decision is Decision.PASS))


def _points(replica: MeasuredReplica, metric: str) -> Iterator[tuple[str, float, Interval]]:
    for one in replica.loops:
        latency_ms = _latency_ms(metric, one)
        if latency_ms is not None:
            yield one.trial.trial_id, one.throughput_requests_per_s, latency_ms


def _note(replica: MeasuredReplica, met: Sequence[Assessment], judged: Sequence[Assessment]) -> str:
    generation = replica.loops[0].trial.workload.generation
    asked = f" of {generation.traffic}" if generation and generation.traffic else ""
    if not met:
        lowest = judged[0]
        rate = number(lowest.result.throughput_requests_per_s)
        return f"measured, not predicted: {lowest.reason} at the lowest rate, {rate} requests/s"
    best = met[-1].result
    said = (
        f"measured, not predicted: an open loop of {number(best.throughput_requests_per_s)} "
        f"requests/s{asked} over {seconds(best.duration_s)} s met the objective"
    )
    if len(met) < len(judged):
        return f"{said}; at the next rate, {judged[len(met)].reason}"
    return f"{said}, and no higher rate was measured"


def _of_one_replica(slo: ServiceLevelObjective) -> ServiceLevelObjective:
    """Latencies and errors: how much is carried is what the demand says, and what it costs else."""
    kept = [
        one
        for one in load_clauses(slo)
        if metric_named(one.metric).kind in {MetricKind.LATENCY, MetricKind.SHARE}
    ]
    return replace(slo, constraints=tuple(kept))


def _latency_ms(metric: str, result: TrialResult) -> Interval | None:
    found = latency_of(metric_named(metric), result)
    return None if found is None else Interval(found.value_ms, found.low_ms, found.high_ms)


def _is_open(one: TrialResult) -> bool:
    workload = one.trial.workload
    return bool(
        one.valid
        and one.streams
        and workload.load_mode is LoadMode.OPEN
        and workload.arrivals.kind is ArrivalKind.POISSON
        and workload.arrivals.shape.kind is ShapeKind.FLAT
        and one.throughput_requests_per_s > 0
    )


def _is_measured(demand: Demand) -> bool:
    """Whether a demand arrives as the open loops of streams do."""
    return demand.arrivals.kind is ArrivalKind.POISSON and all(
        rows == 1 for rows, _ in demand.batch_mix
    )

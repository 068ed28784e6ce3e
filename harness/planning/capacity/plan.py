"""From a demand to numbers of replicas: per variant and serving configuration, with headroom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.planning.capacity.draws import ArrivalSource
from harness.planning.capacity.fit import fit_capacity, is_batched, is_usable
from harness.planning.capacity.headroom import Surroundings, cold_start_seconds, headroom
from harness.planning.capacity.judging import (
    SHARES,
    Predicted,
    highest_rate,
    meets,
    planned_clauses,
)
from harness.planning.capacity.measured import measured_replicas, plan_measured
from harness.planning.capacity.model import CapacityModel
from harness.types import (
    ColdStart,
    Decision,
    LoadMode,
    ServiceLevelObjective,
    ServingConfig,
    TrialResult,
    WireProtocol,
)
from harness.types.capacity import MEASURED_RANGE, DeploymentPlan, Headroom, MeasuredPoint
from harness.types.estimates import Demand, Interval
from harness.words.numbers import count, number, percent, things

BUDGET = 1_200_000
"""Requests that all curves of a plan may simulate, so that it answers within seconds."""
_LEAST, _MOST = 400, 2000
_ATTEMPTS, _LESS = 5, 0.95
"""How often the peak is tried at a rate per replica, and the factor from each attempt to the
next."""
MOST_CONFIGURATIONS = 3
"""Per variant and protocol: the ones with the highest throughput measured."""


@dataclass(frozen=True)
class PlanTerms:
    """What a plan is asked, and how it is simulated."""

    demand: Demand
    """The demand whose peak the replicas have to carry."""
    surroundings: Surroundings
    arrivals: ArrivalSource
    confidence: float
    """Confidence of every interval, between 0 and 1."""
    seed: int
    """Seed of everything that is drawn."""
    queue_limit: int | None = None
    """Requests that may wait in a replica; None: any number."""


@dataclass(frozen=True)
class Candidate:
    """A variant in a serving configuration over a protocol, which some valid trial measured."""

    variant: str
    family: str
    serving: ServingConfig
    protocol: WireProtocol


def candidates_of(trials: Sequence[TrialResult], demand: Demand) -> list[Candidate]:
    """What can be planned: per variant, the protocol and the configurations that gave most.

    Raises:
        UsageError: no valid trial, or none whose largest batch holds the demand's requests.
    """
    usable = [one for one in trials if is_usable(one)]
    valid = [one for one in trials if one.valid]
    if not usable and valid and all(one.streams for one in valid):
        raise UsageError(STREAMS_UNSIMULATED, next_step=PLAN_STREAMS_BY)
    if not usable and valid and not any(map(is_batched, valid)):
        raise UsageError(
            f"{UNBATCHED}, and nothing else was measured",
            next_step="give the model a maximum batch (max_batch_size in its config.pbtxt) and "
            "measure it again; harness cost prices it as it is",
        )
    if not usable:
        raise UsageError(_why_none(trials), next_step=_measure(trials))
    largest = max(rows for rows, _ in demand.batch_mix)
    fits = [one for one in usable if one.trial.serving.max_batch_size >= largest]
    if not fits:
        most = max(one.trial.serving.max_batch_size for one in usable)
        raise UsageError(
            f"requests of {largest} rows exceed the largest batch of every measured "
            f"configuration, {most}",
            next_step=f"ask for at most --batch {most}, or measure a configuration with more",
        )
    best: dict[Candidate, float] = {}
    for one in fits:
        trial = one.trial
        key = Candidate(trial.variant, trial.family, trial.serving, trial.workload.protocol)
        best[key] = max(best.get(key, 0.0), one.throughput_inferences_per_s)
    chosen: list[Candidate] = []
    for variant in dict.fromkeys(one.variant for one in best):
        ranked = sorted((one for one in best if one.variant == variant), key=lambda c: -best[c])
        protocol = ranked[0].protocol
        chosen += [one for one in ranked if one.protocol is protocol][:MOST_CONFIGURATIONS]
    return chosen


STREAMS_UNSIMULATED = (
    "the answers came token by token, and a replica is simulated as a server that executes one "
    "batch after the other: of a model that batches continuously it would predict wrong latencies"
)
UNBATCHED = (
    "a replica is simulated as Triton's batcher serves it, and a model was measured that takes "
    "each request by itself, or does not say how many it joins (a maximum batch of 0)"
)
PLAN_STREAMS_BY = (
    "harness plan counts such replicas by the open loops that were measured; harness cost prices "
    "them per million tokens"
)


def planned_count(trials: Sequence[TrialResult], demand: Demand) -> int:
    """How many plans `plan_deployments` makes.

    Raises:
        UsageError: there is nothing to plan from.
    """
    return len(_simulated(trials, demand)) + len(measured_replicas(trials, demand))


def _simulated(trials: Sequence[TrialResult], demand: Demand) -> list[Candidate]:
    """What is planned by simulation: nothing, where all that can be planned was streamed."""
    if not any(map(is_usable, trials)) and measured_replicas(trials, demand):
        return []
    return candidates_of(trials, demand)


def _why_none(trials: Sequence[TrialResult]) -> str:
    if not trials:
        return "the run has no trials, so nothing is known of the time an execution takes"
    invalid = [one for one in trials if not one.valid]
    if len(invalid) == len(trials):
        return (
            f"none of the run's trials is valid ({count(len(trials))} measured), so they say "
            f"nothing of capacity; the first: {invalid[0].invalid_reason}"
        )
    return (
        "the run's valid trials hold no execution times (Triton's statistics of the model), "
        "without which nothing can be predicted"
    )


def _measure(trials: Sequence[TrialResult]) -> str:
    name = trials[0].trial.variant if trials else "VARIANT"
    return (
        f"measure, on a quiet machine: harness load STUDY --variant {name} --concurrency 8 "
        "--out runs/capacity, then plan from runs/capacity"
    )


def plan_deployments(
    trials: Sequence[TrialResult],
    cold_starts: Sequence[ColdStart],
    slo_of: Callable[[str], ServiceLevelObjective],
    terms: PlanTerms,
) -> Iterator[DeploymentPlan]:
    """A plan for each candidate, one after the other (each takes a part of a second).

    Models that answer at once are simulated, and then come those that write token by token.

    Args:
        trials: of the run; invalid ones are left out.
        cold_starts: of the run.
        slo_of: each family's objective.
        terms: what is asked, and how it is simulated.

    Raises:
        UsageError: nothing to plan from (`candidates_of`), or an objective without a latency.
    """
    candidates = _simulated(trials, terms.demand)
    each = BUDGET // (max(1, len(candidates)) * len(SHARES) * 16)
    for one in candidates:
        own = [result for result in trials if result.trial.variant == one.variant]
        model = fit_capacity(
            own,
            arrivals=terms.arrivals,
            serving=one.serving,
            protocol=one.protocol,
            queue_limit=terms.queue_limit,
            confidence=terms.confidence,
            seed=terms.seed,
        )
        start = next((c for c in cold_starts if c.variant == one.variant), None)
        requests = min(_MOST, max(_LEAST, each))
        yield _deployment(one, model, own, start, slo_of(one.family), terms, requests)
    for replica in measured_replicas(trials, terms.demand):
        yield plan_measured(replica, slo_of, cold_starts, terms.demand, terms.surroundings)


def _deployment(
    candidate: Candidate,
    model: CapacityModel,
    trials: Sequence[TrialResult],
    start: ColdStart | None,
    slo: ServiceLevelObjective,
    terms: PlanTerms,
    requests: int,
) -> DeploymentPlan:
    demand = terms.demand
    curve = model.curve(demand, SHARES, requests=requests)
    reached = highest_rate(model, slo, demand, curve)
    most = model.highest_measured_per_s(demand.rows_per_request)
    rate = Interval(*(min(most, one) for one in (reached.value, reached.low, reached.high)))
    clause = planned_clauses(slo)[0]
    statistic = metric_named(clause.metric).statistic
    cold_start_s = cold_start_seconds(start)
    replicas = at_peak = None
    predicted = meets(curve[0], slo)
    sure = rate.low
    for attempt in range(_ATTEMPTS if sure > 0 else 0):
        # It lies between two rates that were simulated, and chance may put it a little too high.
        rate = replace(rate, low=_LESS**attempt * sure)
        replicas = headroom(demand, rate.low, terms.surroundings, cold_start_s)
        at_peak = model.predict(demand, replicas=replicas.peak, requests=requests)
        predicted = meets(at_peak, slo)
        if predicted.decision is Decision.PASS:
            break
    return DeploymentPlan(
        variant=candidate.variant,
        family=candidate.family,
        serving=candidate.serving,
        protocol=candidate.protocol,
        objective=slo.text,
        statistic=statistic,
        bound_ms=clause.value,
        highest_rate_per_s=rate,
        limited_by=MEASURED_RANGE if reached.low > most else "objective",
        replicas=replicas,
        latency_at_peak_ms=at_peak.latency_ms[statistic] if at_peak else None,
        decision=predicted.decision,
        curve=curve,
        measured=_points(candidate, model, trials, statistic),
        error=model.error,
        cold_start_s=cold_start_s,
        note="; ".join(
            [
                *_unsure(replicas, predicted),
                *_beyond(reached, most),
                *(at_peak.outside if at_peak else model.limits),
            ]
        ),
    )


def _unsure(replicas: Headroom | None, predicted: Predicted) -> Iterator[str]:
    """Why a row is no pass."""
    if replicas is None:
        yield f"no rate is sure to meet the objective: at the lowest simulated, {predicted.reason}"
    elif predicted.decision is not Decision.PASS:
        many = things(replicas.peak, "replica")
        yield f"not sure to meet the objective: at the peak on {many}, {predicted.reason}"


def _beyond(reached: Interval, most: float) -> Iterator[str]:
    """What might be planned with, had it been measured."""
    if reached.low > most:
        yield (
            f"{number(reached.low)} requests/s might do, {percent(reached.low / most - 1)} above "
            f"the highest that was measured ({number(most)}), which is what is planned with"
        )


def _points(
    candidate: Candidate, model: CapacityModel, trials: Sequence[TrialResult], statistic: str
) -> tuple[MeasuredPoint, ...]:
    """Valid trials of the candidate, with what the model says of each."""
    points = []
    for one in trials:
        trial, summary = one.trial, one.latency
        key = (trial.serving, trial.workload.protocol)
        value = summary.value_ms(statistic) if summary else None
        if key != (candidate.serving, candidate.protocol) or not is_usable(one) or value is None:
            continue
        low, high = _bounds(one, statistic, value)
        check = (model.checks or {}).get(trial.trial_id, {}).get(statistic)
        points.append(
            MeasuredPoint(
                trial_id=trial.trial_id,
                rate_per_s=one.throughput_requests_per_s,
                latency_ms=Interval(value, low, high),
                open_loop=trial.workload.load_mode is LoadMode.OPEN,
                predicted_ms=check[1] if check else None,
            )
        )
    return tuple(sorted(points, key=lambda point: point.rate_per_s))


def _bounds(result: TrialResult, statistic: str, value: float) -> tuple[float, float]:
    summary = result.latency
    if summary and statistic in summary.percentiles:
        found = summary.percentiles[statistic]
        return found.low_ms, found.high_ms
    if summary and summary.mean_low_ms is not None and summary.mean_high_ms is not None:
        return summary.mean_low_ms, summary.mean_high_ms
    return value, value

"""A stored run and a trace in, an autoscaling plan out: attainment, hours and cost by policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import UsageError
from harness.flow.plan import CONFIDENCE, measured_loads, objective_for, seed_of
from harness.load.schedule.arrivals import arrival_times_ns
from harness.metrics import metric_named
from harness.planning.autoscaling.candidates import knows_itself, policies_of
from harness.planning.autoscaling.evaluation import (
    MOST_DRAWS,
    Ground,
    choose,
    clauses_of,
    draws_for,
    evaluations,
    with_front,
)
from harness.planning.autoscaling.manifests import manifests_of
from harness.planning.autoscaling.replica import ReplicaTable, tables_of
from harness.planning.autoscaling.scaler import check_limits
from harness.planning.autoscaling.simulation import LatencyClause
from harness.planning.capacity.fit import fit_capacity
from harness.planning.capacity.headroom import cold_start_seconds
from harness.planning.capacity.judging import highest_rate, planned_clauses
from harness.planning.capacity.model import CapacityModel
from harness.planning.capacity.plan import Candidate, candidates_of
from harness.planning.cost.catalogue import Catalogue
from harness.planning.cost.costs import measured_machine
from harness.planning.cost.scaling import is_external, ran_on_accelerator, scaling_between
from harness.report.build import build_report
from harness.runs.documents import write_document
from harness.runs.folder import StoredRun, read_run
from harness.system.storage import replace_text
from harness.types import Progress, ServiceLevelObjective
from harness.types.autoscaling import (
    AutoscalePlan,
    Policy,
    PolicyOutcome,
    RateTrace,
    ScaledDeployment,
    ScalingTerms,
)
from harness.types.estimates import Demand, Pricing
from harness.words.numbers import asked, number, percent, span

AUTOSCALE = "autoscale"
"""Name of the document that the answer is kept in."""
LONGEST_S = 8 * 86400.0
"""Longest trace that is simulated within seconds."""
SPARE = 2.0
"""Replicas allowed where nobody says how many, over those that the peak needs."""
_NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class PriceQuestion:
    """What a replica runs on, one on each machine."""

    catalogue: Catalogue
    instance: str
    measured_on: str = ""
    """Instance type of the run's machine; empty: as its manifest says."""


@dataclass(frozen=True)
class AutoscaleQuestion:
    """What is asked of a trace."""

    trace: RateTrace
    terms: ScalingTerms
    """Terms of the simulation; its `start_s` counts only where `start_is_given`."""
    start_is_given: bool = False
    """Whether the start-up time was given, instead of the run's cold start."""
    max_is_given: bool = False
    """Whether the most replicas were given, instead of as many as the peak needs twice over."""
    demand: Demand = field(default_factory=lambda: Demand(1.0))
    """How requests arrive, and their rows; its rate does not matter."""
    slo: ServiceLevelObjective | None = None
    """Objective to plan for; None takes the family's own."""
    variant: str = ""
    """Variant to scale; empty for the recommended one."""
    price: PriceQuestion | None = None
    usd_per_hour: float | None = None
    """Price of one replica, in place of a machine's price."""
    own_machines: bool = False
    """Whether a live run is simulated as if each replica had a machine of its own."""
    scaled: ScaledDeployment | None = None
    """What the manifests are for; its model is the variant. None: the usual names."""
    confidence: float = CONFIDENCE
    seed: int | None = None
    """Seed of the draws; None takes the study's."""


def autoscale(
    folder: Path, question: AutoscaleQuestion, progress: Callable[[Progress], None]
) -> tuple[AutoscalePlan, Path]:
    """Simulate policies from a run folder, keep the answer there, and write its report anew.

    Returns:
        The answer, and the path of its document; the manifests lie beside it.

    Raises:
        RunFolderError: no run, or one that cannot be read.
        UsageError: nothing to simulate from, or a question that cannot be answered.
        StorageError: the answer cannot be written.
    """
    run = read_run(folder)
    plan = autoscale_run(run, question, progress)
    path = write_document(folder, AUTOSCALE, plan)
    for name, text in plan.manifests.items():
        replace_text(path.with_suffix(f".{name}"), text)
    build_report(run, folder)
    return plan, path


def autoscale_run(
    run: StoredRun, question: AutoscaleQuestion, progress: Callable[[Progress], None]
) -> AutoscalePlan:
    """Simulate every policy from a run as it was read.

    Raises:
        UsageError: nothing to simulate from, or a question that cannot be answered.
    """
    candidate, slo, clauses, pricing = checked(run, question)
    seed = question.seed if question.seed is not None else seed_of(run)
    progress(Progress("simulating", 0, 1, "one replica"))
    model = fit_capacity(
        [one for one in measured_loads(run) if one.trial.variant == candidate.variant],
        arrivals=arrival_times_ns,
        serving=candidate.serving,
        protocol=candidate.protocol,
        confidence=question.confidence,
        seed=seed,
    )
    sure, tables = _replica(model, slo, question)
    terms = _terms(run, question, candidate, model, sure)
    policies = tuple(policies_of(question.trace, terms, tables[0], clauses[0].bound_s, sure))
    draws = draws_for(question.trace, terms, len(policies))
    ground = Ground(
        question.trace,
        terms,
        tables[: draws + 1],
        clauses,
        question.confidence,
        seed,
        pricing,
    )
    outcomes = _evaluated(ground, policies, progress)
    chosen, reason = choose(outcomes)
    scaled = replace(question.scaled or ScaledDeployment(""), model=candidate.variant)
    taken = next((one for one in outcomes if one.policy.name == chosen), None)
    return AutoscalePlan(
        variant=candidate.variant,
        family=candidate.family,
        serving=candidate.serving,
        protocol=candidate.protocol,
        objective=slo.text,
        statistic=_statistic(slo),
        bound_ms=1e3 * clauses[0].bound_s,
        trace=question.trace,
        terms=terms,
        saturation_per_s=tables[0].saturation_per_s,
        pricing=pricing,
        outcomes=with_front(outcomes),
        chosen=chosen,
        reason=reason,
        draws=len(ground.tables),
        confidence=question.confidence,
        seed=seed,
        notes=tuple(_notes(run, question, candidate, model, terms, sure)),
        manifests=_manifests(taken, slo, question.trace, terms, scaled) if taken else {},
    )


def _replica(
    model: CapacityModel, slo: ServiceLevelObjective, question: AutoscaleQuestion
) -> tuple[float, tuple[ReplicaTable, ...]]:
    """The rate that one replica is sure to carry, requests/s, and its latencies by load."""
    sure = highest_rate(model, slo, question.demand).low
    tables = tables_of(model, question.demand, MOST_DRAWS, statistic=_statistic(slo))
    machine = question.terms.machine
    if machine is None:
        return sure, tables
    speed = machine.alone_per_s / tables[0].saturation_per_s
    return sure * speed, tuple(one.at_speed(speed) for one in tables)


def _evaluated(
    ground: Ground, policies: tuple[Policy, ...], progress: Callable[[Progress], None]
) -> list[PolicyOutcome]:
    """What each policy does on the trace."""
    outcomes: list[PolicyOutcome] = []
    for one in evaluations(ground, policies):
        outcomes.append(one)
        progress(Progress("simulating", len(outcomes), len(policies), one.policy.name))
    return outcomes


def _manifests(
    taken: PolicyOutcome,
    slo: ServiceLevelObjective,
    trace: RateTrace,
    terms: ScalingTerms,
    scaled: ScaledDeployment,
) -> dict[str, str]:
    """The policy that is taken as YAML, which carries what was simulated of it."""
    share = taken.attained
    ends = span(percent(share.low), percent(share.high))
    facts = {
        "objective": slo.text,
        "policy": taken.policy.name,
        "simulated-in-time": f"{percent(share.value)} ({ends}) of the requests",
        "simulated-on": trace.source,
    }
    return manifests_of(taken.policy, terms, scaled, facts)


def checked(
    run: StoredRun, question: AutoscaleQuestion
) -> tuple[Candidate, ServiceLevelObjective, tuple[LatencyClause, ...], Pricing | None]:
    """What is scaled, for which objective, its percentile clauses, and a replica's price.

    Raises:
        UsageError: a question that cannot be answered, whatever the simulation says.
    """
    _check(question)
    candidate = _candidate(run, question)
    slo = objective_for(run, question.slo, candidate.family)
    return candidate, slo, clauses_of(slo), _pricing(run, question, candidate)


def _check(question: AutoscaleQuestion) -> None:
    check_limits(question.terms.limits)
    trace = question.trace
    if trace.duration_s > LONGEST_S:
        raise UsageError(
            f"the trace is {number(trace.duration_s / 86400)} days long, and "
            f"{asked(LONGEST_S / 86400)} are simulated at most",
            next_step="cut out the week that matters most",
        )
    if not trace.peak_per_s:
        raise UsageError(
            f"{trace.source} has no requests at all", next_step="name a trace with traffic"
        )
    if trace.duration_s < 2 * question.terms.sync_s:
        raise UsageError(
            f"the trace is {asked(trace.duration_s)} s long, in which nothing is ever decided: one "
            f"decision comes every {asked(question.terms.sync_s)} s",
            next_step="name a longer trace; is its unit right? (--trace-unit)",
        )


def _candidate(run: StoredRun, question: AutoscaleQuestion) -> Candidate:
    """The variant and configuration that is scaled."""
    trials = run.trials
    if question.variant:
        trials = tuple(one for one in trials if one.trial.variant == question.variant)
        if run.trials and not trials:
            names = sorted({one.trial.variant for one in run.trials})
            raise UsageError(
                f"the run has no trial of {question.variant}",
                next_step=f"name one of: {', '.join(names)}",
            )
    candidates = candidates_of(trials, question.demand)
    recommended = _recommended(run)
    for one in trials:
        trial = one.trial
        key = Candidate(trial.variant, trial.family, trial.serving, trial.workload.protocol)
        if trial.trial_id in recommended and key in candidates:
            return key
    return candidates[0]


def _recommended(run: StoredRun) -> set[str]:
    return {verdict.recommended for verdict in run.verdicts if verdict.recommended}


def _statistic(slo: ServiceLevelObjective) -> str:
    return metric_named(planned_clauses(slo)[0].metric).statistic


def _terms(
    run: StoredRun,
    question: AutoscaleQuestion,
    candidate: Candidate,
    model: CapacityModel,
    sure_per_s: float,
) -> ScalingTerms:
    """The question's terms, with what it left to the run."""
    terms = question.terms
    if not question.start_is_given:
        cold = next((one for one in run.cold_starts if one.variant == candidate.variant), None)
        start_s = cold_start_seconds(cold)
        if start_s is None:
            raise UsageError(
                f"the run measured no cold start of {candidate.variant}, so nobody knows how long "
                "a replica takes to start",
                next_step="say it: --start-time 90s (the node, the image and the model)",
            )
        terms = replace(terms, start_s=start_s)
    if not question.max_is_given:
        carried = sure_per_s or model.saturation_per_s(question.demand)
        most = max(2, math.ceil(SPARE * question.trace.peak_per_s / carried))
        least = terms.limits.min_replicas
        terms = replace(terms, limits=replace(terms.limits, max_replicas=max(least, most)))
    return terms


def _pricing(run: StoredRun, question: AutoscaleQuestion, candidate: Candidate) -> Pricing | None:
    if question.usd_per_hour is not None:
        return Pricing("a replica", question.usd_per_hour)
    asked_price = question.price
    if asked_price is None:
        return None
    instance = asked_price.catalogue.named(asked_price.instance)
    machine = measured_machine(run.manifest, asked_price.catalogue, asked_price.measured_on)
    on_accelerator = ran_on_accelerator(
        machine, candidate.serving.instance_kind, external=is_external(run.manifest)
    )
    scaling = scaling_between(machine, instance, on_accelerator=on_accelerator)
    return Pricing(instance.name, instance.on_demand_usd_per_hour, scaling.factor, scaling.rule)


def _notes(
    run: StoredRun,
    question: AutoscaleQuestion,
    candidate: Candidate,
    model: CapacityModel,
    terms: ScalingTerms,
    sure_per_s: float,
) -> Iterator[str]:
    """What a reader has to know of the answer."""
    trace = question.trace
    yield from trace.notes
    if not question.variant and not _recommended(run):
        yield (
            f"the run recommends no variant: {candidate.variant} is scaled; --variant names another"
        )
    if not question.start_is_given:
        yield (
            f"a replica starts in {asked(round(terms.start_s, 1))} s, the model's cold start as "
            "measured: a node, an image and the server's own start come on top (--start-time)"
        )
    yield from _schedule_notes(trace)
    if not sure_per_s:
        yield "no rate of one replica is sure to meet the objective"
    elif terms.limits.max_replicas * sure_per_s < trace.peak_per_s:
        yield (
            f"{terms.limits.max_replicas} replicas are sure to carry "
            f"{number(terms.limits.max_replicas * sure_per_s)} requests/s, and the peak is "
            f"{number(trace.peak_per_s)}"
        )
    most = model.saturation_per_s(question.demand)
    beyond = most / model.highest_measured_per_s(question.demand.rows_per_request) - 1
    if beyond > _NEGLIGIBLE:
        yield (
            f"a replica is simulated up to {number(most)} requests/s, {percent(beyond)} above "
            "the highest that was measured"
        )
    yield from model.limits


def _schedule_notes(trace: RateTrace) -> Iterator[str]:
    """What a reader has to know of the schedule that was made from a trace."""
    if knows_itself(trace):
        yield (
            "the schedule is made from the very trace that it is judged on, so it is a yardstick "
            "and is not chosen; a trace of two days or more gives an honest one"
        )
    elif trace.begins_s is None:
        yield (
            "the trace does not say at what time of day it begins: the cron triggers of a schedule "
            "take it to begin at midnight UTC; times in ISO 8601 or since 1970 say it"
        )

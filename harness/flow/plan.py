"""A stored run in, a capacity plan out: the demand's replicas, per variant and configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import UsageError
from harness.load.schedule.arrivals import arrival_times_ns
from harness.planning.capacity.fit import is_batched
from harness.planning.capacity.headroom import Surroundings
from harness.planning.capacity.measured import why_not
from harness.planning.capacity.plan import (
    UNBATCHED,
    PlanTerms,
    plan_deployments,
    planned_count,
)
from harness.planning.routing.deployed import ROUTER_STAGE
from harness.report.build import build_report
from harness.runs.documents import write_document
from harness.runs.folder import StoredRun, read_run
from harness.study.objective import parse_objective
from harness.types import BATCHES, ROLES, Progress, ServiceLevelObjective, TrialResult
from harness.types.capacity import MEASURED_RANGE, CapacityPlan, DeploymentPlan
from harness.types.estimates import Demand
from harness.words.labels import serving_words
from harness.words.numbers import number

CONFIDENCE = 0.95
PLAN = "plan"
"""Name of the document that a plan is kept in."""


@dataclass(frozen=True)
class PlanQuestion:
    """What a plan is asked."""

    demand: Demand
    surroundings: Surroundings = field(default_factory=Surroundings)
    slo: ServiceLevelObjective | None = None
    """Objective to plan for; None takes each family's own."""
    variants: tuple[str, ...] = ()
    """Variants to plan; empty for every one with valid trials."""
    queue_limit: int | None = None
    """Requests that may wait in a replica; None: any number."""
    confidence: float = CONFIDENCE
    seed: int | None = None
    """Seed of the draws; None takes the study's."""


def plan_capacity(
    folder: Path, question: PlanQuestion, progress: Callable[[Progress], None]
) -> tuple[CapacityPlan, Path]:
    """Plan from a run folder, keep the plan there, and write its report anew.

    Returns:
        The plan, and the path of its document.

    Raises:
        RunFolderError: no run, or one that cannot be read.
        UsageError: nothing to plan from, or a question that cannot be answered.
        StorageError: the plan cannot be written.
    """
    run = read_run(folder)
    plan = plan_run(run, question, progress)
    path = write_document(folder, PLAN, plan)
    build_report(run, folder)
    return plan, path


def plan_run(
    run: StoredRun, question: PlanQuestion, progress: Callable[[Progress], None]
) -> CapacityPlan:
    """Plan from a run as it was read.

    Raises:
        UsageError: nothing to plan from, or a question that cannot be answered.
    """
    measured = measured_loads(run)
    asked = question.variants
    trials = [one for one in measured if not asked or one.trial.variant in asked]
    known = sorted({one.trial.variant for one in measured})
    unknown = sorted(set(question.variants) - set(known))
    if unknown and known:
        raise UsageError(
            f"the run has no trial of {', '.join(unknown)}",
            next_step=f"plan for one of: {', '.join(known)}",
        )
    total = planned_count(trials, question.demand)
    seed = question.seed if question.seed is not None else seed_of(run)
    deployments: list[DeploymentPlan] = []
    for one in plan_deployments(
        trials,
        run.cold_starts,
        lambda family: objective_for(run, question.slo, family),
        PlanTerms(
            question.demand,
            question.surroundings,
            arrival_times_ns,
            question.confidence,
            seed,
            question.queue_limit,
        ),
    ):
        deployments.append(_with_verdict(run, one))
        progress(Progress("planning", len(deployments), total, one.variant))
    overtaken = _overtaken(deployments)
    return CapacityPlan(
        demand=question.demand,
        zones=question.surroundings.zones,
        max_unavailable=question.surroundings.max_unavailable,
        ramp_s=question.surroundings.ramp_s,
        confidence=question.confidence,
        seed=seed,
        deployments=tuple(one for place, one in enumerate(deployments) if place not in overtaken),
        left_out=(
            *overtaken.values(),
            *_left_out(run, question, {one.variant for one in deployments}),
        ),
    )


def measured_loads(run: StoredRun) -> tuple[TrialResult, ...]:
    """The trials that a replica is fitted to: closed loops, and open loops after the verdict.

    A router's latency is that of two models, one after the other: no replica of one model. Those at
    growing batch sizes are of configurations that nobody serves requests with, and those that
    compare a student's roles are of loads that the search has too.
    """
    others = {ROUTER_STAGE, BATCHES, ROLES}
    return tuple(one for one in run.every_trial if one.trial.stage not in others)


def objective_for(
    run: StoredRun, slo: ServiceLevelObjective | None, family: str
) -> ServiceLevelObjective:
    """What is planned for: what was asked, else the family's own objective, else the study's.

    Raises:
        UsageError: there is none.
    """
    if slo is not None:
        return slo
    if family in run.objectives:
        return run.objectives[family]
    text = str(run.manifest.get("study", {}).get("objective") or "")
    if not text:
        raise UsageError(
            "the run has no objective to plan for", next_step='name one: --slo "p95 < 50 ms"'
        )
    return parse_objective(text)


def seed_of(run: StoredRun) -> int:
    """The study's seed; 0 where the manifest holds none."""
    seeds = run.manifest.get("seeds") or {}
    return int(seeds.get("study") or 0)


def _with_verdict(run: StoredRun, plan: DeploymentPlan) -> DeploymentPlan:
    """Say of a variant that the run rejected for its quality that it is out."""
    reasons = [
        rejection.reason
        for verdict in run.verdicts
        for rejection in verdict.rejected
        if rejection.variant == plan.variant and rejection.cause == "quality"
    ]
    if not reasons:
        return plan
    return replace(plan, note="; ".join([f"rejected for its quality: {reasons[0]}", plan.note]))


def _overtaken(deployments: Sequence[DeploymentPlan]) -> dict[int, str]:
    """Configurations that were not measured far enough to compare, each with the reason.

    One that was loaded only with requests of other sizes has a low rate for want of measurement,
    and beside another configuration of its variant it would read as the slower.

    Returns:
        By place among the deployments, the line that says it.
    """
    found = {}
    for place, one in enumerate(deployments):
        rate = one.highest_rate_per_s.low
        best = max(
            (other for other in deployments if other.variant == one.variant),
            key=lambda other: other.highest_rate_per_s.low,
        )
        if one.limited_by == MEASURED_RANGE and rate < best.highest_rate_per_s.low:
            found[place] = (
                f"{one.variant}, {serving_words(one.serving)}: it was measured up to "
                f"{number(rate)} requests of this size per second only, fewer "
                f"than are planned for it with {serving_words(best.serving)}; measure it with "
                "more of them in flight to compare the two"
            )
    return found


def _left_out(run: StoredRun, question: PlanQuestion, planned: set[str]) -> tuple[str, ...]:
    """Variants of the run that have no plan, each with its reason."""
    found = []
    for variant in run.variants:
        asked = not question.variants or variant.name in question.variants
        if variant.name in planned or variant.is_composed or not asked:
            continue
        own = [one for one in run.every_trial if one.trial.variant == variant.name]
        if not own:
            why = "no trial measured it"
        elif not any(one.valid for one in own):
            why = f"none of its trials is valid ({len(own)} measured): {own[0].invalid_reason}"
        elif any(one.streams for one in own):
            why = why_not(own, question.demand)
        elif not any(is_batched(one) for one in own if one.valid):
            why = UNBATCHED
        else:
            why = "its valid trials hold no execution times, or only smaller batches"
        found.append(f"{variant.name}: {why}")
    return tuple(found)

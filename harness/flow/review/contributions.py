"""What other documents of a run folder add to a decision: costs, a router, replicas, savings.

A new kind of document is one entry of `CONTRIBUTORS`: its name, its dataclass, and a function that
says what it adds. Nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.flow.review.routers import router_candidates
from harness.metrics import COST
from harness.planning.cost.costs import leading_instance
from harness.report.cost.words import basis, bounded, machines, paid_back, returned
from harness.report.offline.tables import job_words
from harness.report.rollout.words import outcome_words
from harness.report.routing.words import deployed_words
from harness.runs.documents import read_document
from harness.types import Decision
from harness.types.autoscaling import AutoscalePlan
from harness.types.capacity import CapacityPlan, DeploymentPlan
from harness.types.costs import CostReport, Saving, VariantCost
from harness.types.losses import Estimate
from harness.types.offline import OfflinePlan
from harness.types.review import DecisionCandidate, Figure, FigureBasis, PlannedFact, Risk
from harness.types.rollout import RolloutRecord, RolloutStatus
from harness.types.routing import Route
from harness.words.numbers import asked, asked_percent, count, number, percent, span, things, whole


@dataclass(frozen=True)
class VariantFigure:
    """A figure of a variant that the run itself does not hold: a cost."""

    variant: str
    figure: Figure


@dataclass(frozen=True)
class Contribution:
    """What a document adds to the decision."""

    figures: tuple[VariantFigure, ...] = ()
    candidates: tuple[tuple[str, DecisionCandidate], ...] = ()
    """Further candidates, each with its family's name: a router."""
    facts: tuple[tuple[str, PlannedFact], ...] = ()
    """Facts for a heading of the page, each with its family's name (empty for all)."""
    risks: tuple[tuple[str, Risk], ...] = ()
    """What whoever signs should know, each with its family's name (empty for all)."""


@dataclass(frozen=True)
class Contributor:
    """A kind of document that adds figures to a decision."""

    name: str
    """Name of the documents' files: `plan` for plan.json."""
    kind: type[Any]
    """The frozen dataclass that the document is read as."""
    contribute: Callable[[Any, str], Contribution]
    """Makes the contribution from the document and the run folder's path."""


@dataclass(frozen=True)
class Contributions:
    """All that the documents of one run folder add."""

    parts: tuple[Contribution, ...] = field(default=())

    def figures(self, variant: str) -> tuple[Figure, ...]:
        """The further figures of a variant."""
        return tuple(
            one.figure for part in self.parts for one in part.figures if one.variant == variant
        )

    def candidates(self, family: str) -> tuple[DecisionCandidate, ...]:
        """The further candidates of a family."""
        return tuple(one for part in self.parts for name, one in part.candidates if name == family)

    def facts(self, family: str) -> tuple[PlannedFact, ...]:
        """What is shown of a family."""
        return tuple(one for part in self.parts for name, one in part.facts if name in {"", family})

    def risks(self, family: str) -> tuple[Risk, ...]:
        """What whoever signs for a family should know."""
        return tuple(one for part in self.parts for name, one in part.risks if name in {"", family})


def contributions_of(folder: Path) -> Contributions:
    """Read every known document of a run folder that is there.

    Raises:
        RunFolderError: a document cannot be read as one of its kind.
    """
    read = ((one, read_document(folder, one.name, one.kind)) for one in CONTRIBUTORS)
    return Contributions(
        tuple(one.contribute(found, str(folder)) for one, found in read if found is not None)
    )


def _of_plan(plan: CapacityPlan, run: str) -> Contribution:
    """Replicas of each deployment that meets the objective at the peak; what limits the rest."""
    heading = f"Replicas for {number(plan.demand.peak_rate_per_s)} requests/s at the peak"
    return Contribution(
        facts=tuple(
            (
                one.family,
                PlannedFact(heading, f"{one.variant} ({one.serving.label})", _replicas(one), run),
            )
            for one in plan.deployments
        ),
        risks=tuple(
            (family, Risk("extrapolated", f"replicas of {', '.join(variants)}: {note}", run))
            for (family, note), variants in _noted(plan.deployments).items()
        ),
    )


def _noted(deployments: Iterable[DeploymentPlan]) -> dict[tuple[str, str], list[str]]:
    """By family and note, the variants that it applies to, so that it is printed once."""
    noted: dict[tuple[str, str], list[str]] = {}
    for one in deployments:
        variants = noted.setdefault((one.family, one.note), [])
        if one.note and one.variant not in variants:
            variants.append(one.variant)
    return {key: variants for key, variants in noted.items() if variants}


def _replicas(deployment: DeploymentPlan) -> str:
    headroom = deployment.replicas
    if headroom is None:
        return "no rate is sure to meet the objective"
    return (
        f"{count(headroom.peak)}, or {count(headroom.recommended)} with headroom; predicted, "
        f"{deployment.decision}"
    )


def _of_route(route: Route, run: str) -> Contribution:
    """How much of the traffic a router sends to the teacher, and what that keeps."""
    at = route.at
    kept = "not known" if at.kept is None else percent(at.kept.value)
    if at.kept is not None:
        kept += f" ({span(percent(at.kept.low), percent(at.kept.high))})"
    fact = PlannedFact(
        "Router",
        f"{route.student}, and {route.teacher} where it is unsure",
        f"{percent(at.routed.value)} of the rows go to the teacher; keeps {kept} of its "
        f"accuracy on {count(route.held_out_rows)} rows held out, "
        f"asked: {asked_percent(route.chosen.keep)}",
        run,
    )
    facts = [(route.family, fact)]
    risks = []
    found = route.deployed
    if found is None:
        told = "the router was not served (harness route --serve): what it keeps is predicted"
        risks.append(Risk("router", told, run))
    else:
        deployed = PlannedFact(
            "Router", f"{found.variant}, as deployed", deployed_words(route, found), run
        )
        facts.append((route.family, deployed))
        if found.keeps is Decision.FAIL:
            kept = f"{found.variant} keeps less of the teacher's accuracy than was promised"
            risks.append(Risk("router", kept, run))
    return Contribution(
        candidates=tuple((route.family, one) for one in router_candidates(route, run)),
        facts=tuple(facts),
        risks=tuple((route.family, risk) for risk in risks),
    )


def _of_rollout(record: RolloutRecord, run: str) -> Contribution:
    """Where a rollout stands, and why; one that did not end well is a risk."""
    plan = record.plan
    name = f"{plan.student} in place of {plan.teacher}, {plan.mode}"
    fact = PlannedFact("Rollout", name, outcome_words(record), run)
    risks: tuple[tuple[str, Risk], ...] = ()
    if record.state.status is not RolloutStatus.TAKEN_OVER:
        risks = ((record.family, Risk("rollout", outcome_words(record), run)),)
    return Contribution(facts=((record.family, fact),), risks=risks)


def _of_cost(report: CostReport, run: str) -> Contribution:
    """Each family's costs on one instance type, the same for all of its variants, and savings."""
    by_family: dict[str, list[VariantCost]] = {}
    for one in report.costs:
        by_family.setdefault(one.family, []).append(one)
    chosen = {family: leading_instance(costs) for family, costs in by_family.items()}
    costs = [one for one in report.costs if one.instance == chosen[one.family]]
    savings = [one for one in report.savings if one.instance == chosen[one.family]]
    return Contribution(
        figures=tuple(VariantFigure(one.variant, _cost_figure(one, run)) for one in costs),
        facts=(*_monthly(report, costs, run), *(_saved(one, run) for one in savings)),
        risks=(
            *(("", Risk("other", f"cost: {note}", run)) for note in report.notes),
            *(
                (one.family, Risk("other", f"{one.variant} has no cost: {one.reason}", run))
                for one in report.unpriced
                if one.instance in {"", chosen.get(one.family)}
            ),
        ),
    )


def _cost_figure(one: VariantCost, run: str) -> Figure:
    cost = one.usd_per_million_inferences
    return Figure(
        COST,
        Estimate(cost.value, cost.low, cost.high),
        run,
        one.trial_id,
        basis=FigureBasis.ESTIMATE if one.is_estimate else FigureBasis.MEASURED,
        note=f"on {one.instance}, {asked(one.rows_per_request)} per request",
    )


def _monthly(
    report: CostReport, costs: Iterable[VariantCost], run: str
) -> Iterator[tuple[str, PlannedFact]]:
    if report.demand is None:
        return
    many = ", headroom included" if report.planned else ", none of them spare"
    peak = number(report.demand.peak_rate_per_s)
    for one in costs:
        if one.fleet is None:
            continue
        heading = f"Cost per month on {one.instance} for {peak} requests/s at the peak{many}"
        value = (
            f"{bounded(one.fleet.usd_per_month)} USD for {machines(one.fleet)}; "
            f"{basis(is_estimate=one.is_estimate)}"
        )
        yield one.family, PlannedFact(heading, one.variant, value, run, one.trial_id)


def _saved(one: Saving, run: str) -> tuple[str, PlannedFact]:
    parts = [f"saves {bounded(one.share, percent)} of the cost per million"]
    if one.usd_per_month is not None:
        parts.append(f"{bounded(one.usd_per_month)} USD per month")
    if (paid := one.break_even) is not None:
        months, ends = paid_back(paid)
        within = f" ({ends})" if ends else ""
        parts.append(f"{asked(paid.invested_usd)} USD paid back after {months}{within}")
        parts.append(f"return over {asked(paid.horizon_months)} months {returned(paid)}")
    parts.append(basis(is_estimate=one.is_estimate))
    name = f"{one.student} in place of {one.teacher} on {one.instance}"
    return one.family, PlannedFact("Return on investment", name, "; ".join(parts), run)


def _of_autoscaling(plan: AutoscalePlan, run: str) -> Contribution:
    """The policy to take, what it keeps and what it takes; or that there is none."""
    chosen = next((one for one in plan.outcomes if one.policy.name == plan.chosen), None)
    if chosen is None:
        risk = Risk("other", f"autoscaling of {plan.variant}: {plan.reason}", run)
        return Contribution(risks=((plan.family, risk),))
    share, hours, cost = chosen.attained, chosen.replica_hours, chosen.cost_usd
    priced = "" if cost is None else f", {bounded(cost)} USD"
    fact = PlannedFact(
        f"Autoscaling on {plan.trace.source}",
        f"{plan.variant} ({plan.serving.label})",
        f"{plan.chosen}: {percent(share.value)} ({span(percent(share.low), percent(share.high))}) "
        f"of the requests within {asked(plan.bound_ms)} ms, {bounded(hours)} replica hours"
        f"{priced}; simulated",
        run,
    )
    return Contribution(facts=((plan.family, fact),))


def _of_batch(plan: OfflinePlan, run: str) -> Contribution:
    """The machines and the cost of a job, of every variant; that none is recommended is a risk."""
    heading = f"Job of {job_words(plan.terms)}"
    facts = []
    for one in plan.variants:
        for need in one.needs:
            where = f" on {need.instance}" if need.instance else ""
            cost = "" if need.usd_per_job is None else f", {bounded(need.usd_per_job)} USD per job"
            value = (
                f"{things(need.recommended, 'machine')}, one of which may be lost "
                f"({bounded(need.even, whole)} if all were equally fast){cost}; "
                f"{basis(is_estimate=need.is_estimate)}"
            )
            name = f"{one.variant}{where}, batch {count(one.batch_size)}, quality {one.quality}"
            facts.append(
                (one.family, PlannedFact(heading, name, value, run, next(iter(one.trial_ids), "")))
            )
    risks = tuple(
        (one.family, Risk("other", f"{heading.lower()}: {one.reason}", run))
        for one in plan.choices
        if not one.variant
    )
    return Contribution(facts=tuple(facts), risks=risks)


CONTRIBUTORS: list[Contributor] = [
    Contributor("plan", CapacityPlan, _of_plan),
    Contributor("cost", CostReport, _of_cost),
    Contributor("autoscale", AutoscalePlan, _of_autoscaling),
    Contributor("batch", OfflinePlan, _of_batch),
    Contributor("route", Route, _of_route),
    Contributor("rollout", RolloutRecord, _of_rollout),
]
"""Every kind that is known."""

"""What a run's variants cost to serve: per million, per month, teacher against students."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from harness.errors import UsageError
from harness.planning.cost.catalogue import Catalogue, InstanceType, age_notes
from harness.planning.cost.money import (
    break_even,
    difference,
    filled_machines,
    fleet_of,
    per_tokens,
    planned_machines,
    scaled,
    share_saved,
    usd_per_million,
)
from harness.planning.cost.rates import MeasuredRun, SustainedRate, WithoutRate, sustained_rate
from harness.planning.cost.scaling import (
    InstanceScaling,
    is_external,
    machine_of,
    ran_on_accelerator,
    scaling_between,
)
from harness.types import ModelVariant, Role, ServiceLevelObjective
from harness.types.capacity import Headroom
from harness.types.costs import (
    HORIZON_MONTHS,
    CostReport,
    MeasuredMachine,
    Saving,
    Unpriced,
    VariantCost,
)
from harness.types.estimates import Demand, Interval, Pricing
from harness.words.labels import rows_words
from harness.words.numbers import asked


@dataclass(frozen=True)
class CostQuestion:
    """What is asked beside the run, the demand and the catalogue."""

    today: date
    instances: tuple[str, ...] = ()
    """Instance types; none: the one that was measured, and the cheapest of each cloud."""
    measured_on: str = ""
    """Instance type that the run was measured on; empty: as detected, or unknown."""
    spot: bool = False
    tokens_per_inference: float | None = None
    """Tokens per inference, of every variant; None takes what `tokens` has."""
    tokens: Mapping[str, float] = field(default_factory=dict)
    """Mean tokens of a row, by variant; one that is not there has no cost per token."""
    training_usd: float = 0.0
    engineering_usd: float = 0.0
    horizon_months: float = HORIZON_MONTHS
    slo: ServiceLevelObjective | None = None
    """Objective in place of every family's own."""
    replicas: Mapping[str, Headroom] = field(default_factory=dict)
    """What a capacity plan found for the demand on the measured machine, by variant."""


def costs_of(
    run: MeasuredRun, demand: Demand | None, catalogue: Catalogue, question: CostQuestion
) -> CostReport:
    """Price every variant of a run at the highest load that meets the objective.

    Args:
        run: a stored run.
        demand: the traffic, for costs per month; None leaves those out.
        catalogue: prices.
        question: the rest.

    Raises:
        UsageError: an instance type that the catalogue does not have, or whose spot price it lacks;
            a run on somebody else's server without the machine's name.
    """
    _check_numbers(question)
    machine = measured_machine(run.manifest, catalogue, question.measured_on)
    external = is_external(run.manifest)
    named = [catalogue.named(one) for one in question.instances]
    for one in named:
        one.usd_per_hour(spot=question.spot)
    costs: list[VariantCost] = []
    unpriced: list[Unpriced] = []
    for variant in judged_candidates(run.variants):
        slo = question.slo or run.objectives.get(variant.family) or ServiceLevelObjective("", ())
        rate = sustained_rate(run, variant, slo, demand)
        if isinstance(rate, WithoutRate):
            unpriced.append(Unpriced(variant.family, variant.name, "", rate.reason, rate.next_step))
            continue
        accelerated = ran_on_accelerator(machine, rate.instance_kind, external=external)
        comparable = named or _comparable(
            catalogue, machine, on_accelerator=accelerated, spot=question.spot
        )
        if not comparable:
            unpriced.append(_incomparable(variant, machine))
        for instance in comparable:
            try:
                scaling = scaling_between(machine, instance, on_accelerator=accelerated)
            except UsageError as error:
                where = (variant.family, variant.name, instance.name)
                unpriced.append(Unpriced(*where, str(error), error.next_step))
                continue
            costs.append(_cost(variant, rate, instance, scaling, demand, question))
    costs.sort(key=lambda one: (one.family, one.usd_per_million_inferences.value))
    used = [catalogue.named(one) for one in dict.fromkeys(one.instance for one in costs)]
    notes = (
        *_machine_notes(machine, run.manifest),
        *age_notes(used, question.today),
        *_rate_notes(costs, demand),
        *_plan_notes(costs, demand, question),
    )
    return CostReport(
        machine,
        demand,
        tuple(costs),
        tuple(_savings(costs, question)),
        tuple(unpriced),
        notes,
        planned=demand is not None and bool(question.replicas),
    )


def measured_machine(
    manifest: Mapping[str, Any], catalogue: Catalogue, measured_on: str
) -> MeasuredMachine:
    """The machine of a run: as the user names it, else as its manifest describes it.

    Raises:
        UsageError: a type that the catalogue does not have, or an external server without one.
    """
    if is_external(manifest) and not measured_on:
        raise UsageError(
            "the run measured an external server, whose machine its manifest does not know",
            next_step="name its instance type: --measured-on g5.xlarge",
        )
    return machine_of(manifest.get("environment", {}), catalogue, measured_on)


def leading_instance(costs: Sequence[VariantCost]) -> str:
    """The one type that a comparison of variants is made on; empty for no costs.

    The one that was measured, else that on which most variants have a cost, else the cheapest.
    """
    by_type: dict[str, list[VariantCost]] = {}
    for one in costs:
        by_type.setdefault(one.instance, []).append(one)

    def place(instance: str) -> tuple[bool, int, float]:
        there = by_type[instance]
        cheapest = min(one.usd_per_million_inferences.value for one in there)
        return any(one.is_estimate for one in there), -len(there), cheapest

    return min(by_type, key=place, default="")


def _check_numbers(question: CostQuestion) -> None:
    for what, value in (
        ("the training cost", question.training_usd),
        ("the engineering cost", question.engineering_usd),
    ):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{what} is {asked(value)} USD", next_step="it is 0 or more")
    tokens = question.tokens_per_inference
    if tokens is not None and not 0 < tokens < float("inf"):
        raise UsageError(f"{asked(tokens)} tokens per inference", next_step="it is more than 0")
    if not 0 < question.horizon_months < float("inf"):
        raise UsageError(
            f"a horizon of {asked(question.horizon_months)} months", next_step="it is more than 0"
        )


def judged_candidates(variants: Sequence[ModelVariant]) -> Iterator[ModelVariant]:
    """Teachers and students; ensembles, routers and controls are no candidates."""
    for one in variants:
        if one.role in {Role.TEACHER, Role.STUDENT} and not one.is_composed:
            yield one


def _comparable(
    catalogue: Catalogue, machine: MeasuredMachine, *, on_accelerator: bool, spot: bool
) -> list[InstanceType]:
    """The measured type, and of each cloud the one that is expected to be cheapest."""
    found: dict[str, tuple[float, InstanceType]] = {}
    own: list[InstanceType] = []
    for one in catalogue.types:
        if spot and one.spot_usd_per_hour is None:
            continue
        try:
            scaling = scaling_between(machine, one, on_accelerator=on_accelerator)
        except UsageError:
            continue
        if not scaling.rule:
            own.append(one)
            continue
        each = one.usd_per_hour(spot=spot) / scaling.factor.value
        if one.cloud not in found or each < found[one.cloud][0]:
            found[one.cloud] = (each, one)
    return own + [one for _, one in found.values()]


def _incomparable(variant: ModelVariant, machine: MeasuredMachine) -> Unpriced:
    return Unpriced(
        variant.family,
        variant.name,
        "",
        f"it was measured on {machine.title}, and no instance type compares with that",
        "name the type that it was measured on: --measured-on TYPE",
    )


def _cost(
    variant: ModelVariant,
    rate: SustainedRate,
    instance: InstanceType,
    scaling: InstanceScaling,
    demand: Demand | None,
    question: CostQuestion,
) -> VariantCost:
    usd_per_hour = instance.usd_per_hour(spot=question.spot)
    pricing = Pricing(instance.name, usd_per_hour, scaling.factor, scaling.rule)
    million = usd_per_million(pricing, rate.inferences_per_s)
    there = scaled(rate.inferences_per_s, scaling.factor)
    tokens = question.tokens_per_inference or question.tokens.get(variant.name)
    fleet = None
    if demand is not None:
        rows, planned = demand.rows_per_request, question.replicas.get(variant.name)
        if planned is not None:
            machines = planned_machines(planned, scaling.factor)
        else:
            machines = filled_machines(demand.peak_rate_per_s * rows, there)
        fleet = fleet_of(demand.rate_per_s * rows, machines, there, usd_per_hour)
    return VariantCost(
        family=variant.family,
        variant=variant.name,
        role=variant.role,
        trial_id=rate.trial_id,
        confirmed=rate.confirmed,
        rows_per_request=rate.rows_per_request,
        cloud=instance.cloud,
        region=instance.region,
        pricing=pricing,
        price_date=instance.date,
        inferences_per_s=there,
        usd_per_million_inferences=million,
        usd_per_million_tokens=None if tokens is None else per_tokens(million, tokens),
        fleet=fleet,
        tokens_per_inference=tokens,
        usd_per_million_output_tokens=_over(pricing, rate.output_tokens_per_s),
        usd_per_million_input_tokens=_over(pricing, rate.input_tokens_per_s),
    )


def _over(pricing: Pricing, tokens_per_s: Interval | None) -> Interval | None:
    """A machine's cost over the tokens that it reads or writes, per million."""
    if tokens_per_s is None or tokens_per_s.value <= 0:
        return None
    return usd_per_million(pricing, tokens_per_s)


def _savings(costs: Sequence[VariantCost], question: CostQuestion) -> Iterator[Saving]:
    """Each student beside its teacher's cheapest variant, on the same instance type."""
    teachers: dict[tuple[str, str], VariantCost] = {}
    for one in costs:  # the cheapest of a family comes first
        if one.role is Role.TEACHER:
            teachers.setdefault((one.family, one.instance), one)
    for student in costs:
        teacher = teachers.get((student.family, student.instance))
        if student.role is Role.STUDENT and teacher is not None:
            yield _saving(teacher, student, question)


def _saving(teacher: VariantCost, student: VariantCost, question: CostQuestion) -> Saving:
    before, after = teacher.usd_per_million_inferences, student.usd_per_million_inferences
    monthly = None
    if teacher.fleet and student.fleet and _counted_alike(teacher, student, question):
        monthly = difference(teacher.fleet.usd_per_month, student.fleet.usd_per_month)
    invested = question.training_usd + question.engineering_usd
    paid_back = None
    if monthly is not None and invested > 0:
        paid_back = break_even(monthly, invested, question.horizon_months)
    return Saving(
        student.family,
        teacher.variant,
        student.variant,
        student.instance,
        teacher.is_estimate or student.is_estimate,
        difference(before, after),
        share_saved(_as_measured(teacher), _as_measured(student)),
        monthly,
        paid_back,
    )


def _counted_alike(teacher: VariantCost, student: VariantCost, question: CostQuestion) -> bool:
    """Whether both fleets are a plan's, headroom included, or neither is."""
    return (teacher.variant in question.replicas) == (student.variant in question.replicas)


def _as_measured(one: VariantCost) -> Interval:
    """The cost per million on a machine as fast as the measured one."""
    there, scaling = one.inferences_per_s, one.pricing.scaling
    measured = Interval(
        there.value / scaling.value, there.low / scaling.low, there.high / scaling.high
    )
    return usd_per_million(Pricing(one.instance, one.pricing.usd_per_hour), measured)


def _machine_notes(machine: MeasuredMachine, manifest: Mapping[str, Any]) -> Iterator[str]:
    """What is not known of the measured machine, or not as its type is."""
    if not machine.instance and not is_external(manifest):
        yield (
            f"the run was measured on {machine.title} of unknown type, so every throughput is an "
            "estimate: name the type with --measured-on"
        )
    yield from unlike_notes(machine, manifest)


def unlike_notes(machine: MeasuredMachine, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Where what a run's manifest shows is not what its machine's type has, named or detected.

    A container may be given a few of its machine's cores, and is paid for with all of them.
    """
    if not machine.instance or is_external(manifest):  # it shows the machine that sent the load
        return
    environment = manifest.get("environment", {})
    seen, gpus = environment.get("usable_cores"), environment.get("gpus")
    if isinstance(seen, int) and seen != machine.vcpu:
        yield (
            f"{machine.instance} has {machine.vcpu} vCPUs, and the run could use {seen}: what was "
            "measured may not be what that machine gives"
        )
    if machine.accelerator and not gpus:
        yield f"{machine.instance} has a {machine.accelerator}, and the run saw no GPU"


def _rate_notes(costs: Sequence[VariantCost], demand: Demand | None) -> Iterator[str]:
    unconfirmed = list(dict.fromkeys(one.variant for one in costs if not one.confirmed))
    if unconfirmed:
        yield (
            f"the throughput of {', '.join(unconfirmed)} is the best of the search, which no fresh "
            "measurement bears out: the best of many is partly luck"
        )
    if demand is None:
        return
    other = {
        one.variant: one.rows_per_request
        for one in costs
        if one.rows_per_request != demand.rows_per_request
    }
    for variant, rows in other.items():
        yield (
            f"{variant} was measured with {rows_words(rows)} per request and the demand has "
            f"{asked(demand.rows_per_request)}: its cost is that of {rows_words(rows)}"
        )


def _plan_notes(
    costs: Sequence[VariantCost], demand: Demand | None, question: CostQuestion
) -> Iterator[str]:
    """How sure a plan's machines are, and which variants it does not reach."""
    if demand is None or not question.replicas:
        return
    if any(one.variant in question.replicas for one in costs):
        yield (
            "a plan's machines are as many as are sure to carry the demand: that number has no "
            "interval but the estimate's, and neither have the costs per month and the months to "
            "break even that follow from it"
        )
    without = [one.variant for one in costs if one.variant not in question.replicas]
    if without:
        yield (
            f"the plan has no replicas of {', '.join(dict.fromkeys(without))} that are sure to "
            "meet the objective: its machines are as many as the peak fills, without a spare one, "
            "and beside a plan's machines, which have spare ones, no saving per month is counted"
        )

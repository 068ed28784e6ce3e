"""A run's variants for a job with a deadline: the batch worth while, machines, cost, which to take.

Latency does not count here, so a rate is that of any valid closed loop; the objective's clauses on
quality do: a variant that does not pass them is shown and not recommended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import numpy as np

from harness.errors import UsageError
from harness.planning.assessment import QualityJudgement
from harness.planning.capacity.headroom import cold_start_seconds
from harness.planning.cost.catalogue import InstanceType, age_notes
from harness.planning.cost.costs import judged_candidates, unlike_notes
from harness.planning.cost.rates import MeasuredRun
from harness.planning.cost.scaling import is_external, ran_on_accelerator, scaling_between
from harness.planning.decision import judge_quality
from harness.planning.offline.choice import choices_of
from harness.planning.offline.curve import (
    ASSUMED_SPREAD,
    ClosedLoad,
    Scatter,
    by_load,
    curve_of,
    rate_of,
    scatter_of,
    spread_of,
)
from harness.planning.offline.needs import DRAWS, OfflineWork, machines_for
from harness.types import (
    ColdStart,
    ModelVariant,
    QualityScore,
    Role,
    ServiceLevelObjective,
    TrialResult,
)
from harness.types.costs import MeasuredMachine
from harness.types.estimates import Interval, Pricing
from harness.types.offline import (
    BatchCurve,
    CurveSource,
    MachineNeed,
    OfflineLeftOut,
    OfflinePlan,
    OfflineSpread,
    OfflineTerms,
    OfflineVariant,
)
from harness.words.numbers import asked, count


class OfflineRun(MeasuredRun, Protocol):
    """What is read of a stored run."""

    @property
    def scores(self) -> Sequence[QualityScore]: ...  # noqa: D102
    @property
    def cold_starts(self) -> Sequence[ColdStart]: ...  # noqa: D102
    @property
    def batches(self) -> Sequence[TrialResult]: ...  # noqa: D102


@dataclass(frozen=True)
class VariantCurves:
    """What was measured of a variant beyond the search's trials."""

    walked: BatchCurve | None = None
    """Through the server, each batch size beside its double; None where that was not measured."""
    in_process: BatchCurve | None = None
    seconds: float = 0.0
    """Coefficient of variation of the throughput from second to second."""


@dataclass(frozen=True)
class OfflineQuestion:
    """What is asked of a run."""

    terms: OfflineTerms
    measured_on: MeasuredMachine
    today: date
    instances: tuple[InstanceType, ...] = ()
    """Instance types; None for machines like the one that was measured, without a price."""
    spot: bool = False
    slo: ServiceLevelObjective | None = None
    """Objective in place of every family's own."""
    curves: Mapping[str, VariantCurves] = field(default_factory=dict)
    measure: str = ""
    """The command that would measure what is missing."""
    seed: int = 0


def offline_plan(run: OfflineRun, question: OfflineQuestion) -> OfflinePlan:
    """Machines and cost of the job for every variant of a run.

    Raises:
        UsageError: nothing that could be counted with.
    """
    found: list[OfflineVariant] = []
    left_out: list[OfflineLeftOut] = []
    for variant in judged_candidates(run.variants):
        measured = _measured(run, variant, question)
        if isinstance(measured, OfflineLeftOut):
            left_out.append(measured)
            continue
        accelerated = ran_on_accelerator(
            question.measured_on,
            measured.load.serving.instance_kind,
            external=is_external(run.manifest),
        )
        answers = list(_needs(variant, measured, question, on_accelerator=accelerated))
        needs = tuple(one for one in answers if isinstance(one, MachineNeed))
        left_out += [one for one in answers if isinstance(one, OfflineLeftOut)]
        found.append(_variant(run, variant, measured, needs, question))
    if not any(one.needs for one in found):
        _refuse(left_out)
    return OfflinePlan(
        question.terms,
        question.measured_on,
        tuple(found),
        tuple(left_out),
        choices_of(found),
        DRAWS,
        question.seed,
        (*_variant_notes(found, question), *_machine_notes(run, question)),
    )


def asked_for(run: OfflineRun, names: Sequence[str]) -> list[ModelVariant]:
    """The teachers and students of these names; of no name all of them.

    Raises:
        UsageError: the run has no such model.
    """
    there = list(judged_candidates(run.variants))
    unknown = sorted(set(names) - {one.name for one in there})
    if unknown:
        raise UsageError(
            f"the run has no teacher or student {', '.join(unknown)}",
            next_step=f"name one of: {', '.join(one.name for one in there) or 'none'}",
        )
    return [one for one in there if not names or one.name in names]


def _refuse(left_out: Sequence[OfflineLeftOut]) -> None:
    reasons = [
        f"  - {one.variant}{f' on {one.instance}' if one.instance else ''}: {one.reason}"
        for one in left_out
    ]
    if not reasons:
        raise UsageError(
            "the run has no variant to count with", next_step="name a run of a study's models"
        )
    raise UsageError(
        "no variant of this run can be counted with\n" + "\n".join(reasons),
        next_step=left_out[0].next_step,
    )


@dataclass(frozen=True)
class _Measured:
    """A variant at the batch size that is worth while."""

    load: ClosedLoad
    results: tuple[TrialResult, ...]
    rate: Interval
    served: BatchCurve
    start_s: float
    spread: OfflineSpread


def _measured(
    run: OfflineRun, variant: ModelVariant, question: OfflineQuestion
) -> _Measured | OfflineLeftOut:
    curves = question.curves.get(variant.name, VariantCurves())
    trials = walked_trials(run, variant) if curves.walked else run.trials
    scatter = scatter_of((*run.trials, *run.batches))
    best = best_loads((one for one in trials if one.trial.variant == variant.name), scatter)
    if not best:
        return _without_rate(run, variant, question.measure)
    rates = {size: rate for size, (_, _, rate) in best.items()}
    least = question.terms.least_growth
    repeats = {size: len(results) for size, (_, results, _) in best.items()}
    served = curves.walked or curve_of(CurveSource.SEARCH, rates, least, repeats)
    size = served.knee if served.knee in best else max(rates, key=lambda one: rates[one].value)
    load, results, rate = best[size]
    start_s = _start_seconds(run, variant, question)
    spread = spread_of((*run.trials, *run.batches), question.terms.spread, curves.seconds)
    return _Measured(load, tuple(results), rate, served, start_s, spread)


def walked_trials(run: OfflineRun, variant: ModelVariant) -> list[TrialResult]:
    """The closed loops at growing batch sizes of this very artefact."""
    return [
        one
        for one in run.batches
        if (one.trial.variant, one.sha256) == (variant.name, variant.sha256)
    ]


def best_loads(
    trials: Iterable[TrialResult],
    scatter: Scatter | None = None,
) -> dict[int, tuple[ClosedLoad, list[TrialResult], Interval]]:
    """By batch size, the load with the highest rate, with its trials and that rate.

    Loads of the data's own lengths come first. Those whose rate has no interval are left out.
    """
    found: dict[int, tuple[ClosedLoad, list[TrialResult], Interval]] = {}
    for load, results in by_load(trials).items():
        rate = rate_of(results, scatter)
        known = found.get(load.batch_size)
        if rate is None:
            continue
        place = (not load.length_mix, rate.value)
        if known is None or place > (not known[0].length_mix, known[2].value):
            found[load.batch_size] = (load, results, rate)
    return found


def _without_rate(run: OfflineRun, variant: ModelVariant, measure: str) -> OfflineLeftOut:
    """Why nothing is known of a variant's rate, and what would tell."""
    own = [one for one in (*run.trials, *run.batches) if one.trial.variant == variant.name]
    rejected = [one for verdict in run.verdicts for one in verdict.rejected]
    why = next((one.reason for one in rejected if one.variant == variant.name), "")
    invalid = next((one.invalid_reason for one in own if not one.valid), "")
    if by_load(own):
        reason = "its trials are too short for an interval of their throughput"
    elif own and invalid:
        reason = f"none of its trials ({count(len(own))}) is a valid closed loop: {invalid}"
    elif own:
        reason = "none of its trials is a closed loop of one batch size"
    else:
        reason = f"it was not load-tested: {why}" if why else "it was not load-tested"
    next_step = f"{measure} --variant {variant.name}"
    return OfflineLeftOut(variant.family, variant.name, "", reason, next_step)


def _start_seconds(run: OfflineRun, variant: ModelVariant, question: OfflineQuestion) -> float:
    """Until a machine works: as asked, else the cold start as measured, else 0."""
    if question.terms.start_s is not None:
        return question.terms.start_s
    cold = next((one for one in run.cold_starts if one.variant == variant.name), None)
    return cold_start_seconds(cold) or 0.0


def _variant_notes(found: Sequence[OfflineVariant], question: OfflineQuestion) -> Iterator[str]:
    """What is unsure of the variants' numbers, and the command that would tell."""
    measure = question.measure

    def named(variants: Iterable[OfflineVariant]) -> str:
        return ", ".join(one.variant for one in variants)

    growing = [one for one in found if one.served.knee is None]
    if growing:
        why = "; ".join(dict.fromkeys(one.served.ended for one in growing))
        yield f"no batch of diminishing returns of {named(growing)} ({why}): {measure} looks for it"
    searched = [one for one in found if one.served.source is CurveSource.SEARCH]
    unsure = [one for one in searched if not one.served.is_sure and one.served.knee is not None]
    if unsure:
        yield (
            f"the batch of {named(unsure)} is that of the mean growth, whose interval is wide: "
            f"{measure} narrows it"
        )
    lucky = [one for one in searched if len(one.trial_ids) == 1]
    if lucky:
        yield (
            f"the rate of {named(lucky)} is one trial of the search, the best of several and so "
            f"partly luck: {measure} repeats it"
        )
    if any(one.spread.machines == ASSUMED_SPREAD for one in found):
        yield (
            "how machines differ is assumed, for the run repeats too few trials to tell: --spread "
            f"states it, {measure} measures how trials differ"
        )
    if question.terms.start_s is not None:
        return
    at_once = [one for one in found if not one.start_s]
    if at_once:
        yield (
            f"the run measured no cold start of {named(at_once)}: machines are taken to work at "
            "once (--start-time)"
        )
    if len(at_once) < len(found):
        yield (
            "a machine starts in the model's cold start as measured: a node, an image and the "
            "server's own start come on top (--start-time)"
        )


def _needs(
    variant: ModelVariant,
    measured: _Measured,
    question: OfflineQuestion,
    *,
    on_accelerator: bool,
) -> Iterator[MachineNeed | OfflineLeftOut]:
    """On each instance type the machines, or why there are none."""
    for instance in question.instances or (None,):
        name = instance.name if instance else ""
        try:
            pricing = None
            if instance is not None:
                scaling = scaling_between(
                    question.measured_on, instance, on_accelerator=on_accelerator
                )
                price = instance.usd_per_hour(spot=question.spot)
                pricing = Pricing(instance.name, price, scaling.factor, scaling.rule)
            work = OfflineWork(
                question.terms,
                measured.load.batch_size,
                measured.rate,
                measured.start_s,
                measured.spread,
            )
            yield machines_for(work, pricing, question.seed)
        except UsageError as error:
            next_step = error.next_step
            yield OfflineLeftOut(variant.family, variant.name, name, str(error), next_step)


def _variant(
    run: OfflineRun,
    variant: ModelVariant,
    measured: _Measured,
    needs: tuple[MachineNeed, ...],
    question: OfflineQuestion,
) -> OfflineVariant:
    decision, reason, _ = quality_of(run, variant, question.slo)
    load = measured.load
    return OfflineVariant(
        family=variant.family,
        variant=variant.name,
        role=variant.role,
        sha256=variant.sha256,
        quality=decision,
        quality_reason=reason,
        serving=load.serving,
        protocol=load.protocol,
        batch_size=load.batch_size,
        in_flight=load.in_flight,
        trial_ids=tuple(one.trial.trial_id for one in measured.results),
        inferences_per_s=measured.rate,
        start_s=measured.start_s,
        spread=measured.spread,
        served=measured.served,
        in_process=question.curves.get(variant.name, VariantCurves()).in_process,
        needs=needs,
    )


def quality_of(
    run: OfflineRun, variant: ModelVariant, slo: ServiceLevelObjective | None
) -> QualityJudgement:
    """What a variant's scores say of the objective's clauses on quality, and why.

    Args:
        run: a stored run.
        variant: one of its.
        slo: in place of its family's objective; None: that.
    """
    family = variant.family
    objective = slo or run.objectives.get(family) or ServiceLevelObjective("", ())
    own = [one for one in run.scores if one.variant == variant.name]
    # The teacher's variant that others are compared with: the first that was served.
    teachers = [v.name for v in run.variants if v.family == family and v.role is Role.TEACHER]
    reference = [one for one in run.scores if teachers and one.variant == teachers[0]]
    return judge_quality(objective, own, reference)


def _machine_notes(run: OfflineRun, question: OfflineQuestion) -> Iterator[str]:
    if not question.instances:
        yield (
            f"machines are like {question.measured_on.title}, which was measured, and have no "
            "price: name a type with --instance"
        )
    elif not question.measured_on.instance:
        yield (
            f"the run was measured on {question.measured_on.title} of unknown type, so every "
            "throughput is an estimate: name the type with --measured-on"
        )
    yield from unlike_notes(question.measured_on, run.manifest)
    yield from age_notes(question.instances, question.today)
    if question.terms.jobs_per_day != 1:
        yield f"costs per month are for {asked(question.terms.jobs_per_day)} jobs per day"


def variation_of_seconds(rates: Sequence[float]) -> float:
    """Coefficient of variation of a throughput, second by second; 0 for fewer than two."""
    values = np.asarray(rates, dtype=np.float64)
    if len(values) < 2 or values.mean() <= 0:  # noqa: PLR2004  (one has no spread)
        return 0.0
    return float(values.std(ddof=1) / values.mean())

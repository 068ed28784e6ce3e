"""A stored run and a job with a deadline in; the batch worth while, machines and cost out."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from harness.flow.offline.measuring import measure_batches
from harness.flow.offline.walk import walk_up
from harness.flow.options import RunSettings
from harness.flow.plan import seed_of
from harness.flow.run import write_results
from harness.flow.served_pair import study_of
from harness.flow.spaces import serving_configs, workloads
from harness.planning.cost.catalogue import Catalogue
from harness.planning.cost.costs import judged_candidates, measured_machine
from harness.planning.cost.scaling import is_external
from harness.planning.dialogue import after_longer_warm_up
from harness.planning.offline.asked import check_terms
from harness.planning.offline.curve import curve_of, judged
from harness.planning.offline.plan import (
    OfflineQuestion,
    VariantCurves,
    asked_for,
    best_loads,
    offline_plan,
    quality_of,
    variation_of_seconds,
    walked_trials,
)
from harness.runs.documents import read_documents, write_document
from harness.runs.folder import StoredRun, read_run
from harness.study import Study
from harness.types import (
    Decision,
    LoadMode,
    ModelVariant,
    Progress,
    ServiceLevelObjective,
    Trial,
    TrialResult,
)
from harness.types.card import Runtime
from harness.types.costs import MeasuredMachine
from harness.types.estimates import Interval
from harness.types.offline import BatchCurve, CurveSource, OfflinePlan, OfflineTerms

BATCH = "batch"
"""Name of the document that the answer is kept in."""
_WHOLE_SECOND = 0.9


@dataclass(frozen=True)
class BatchQuestion:
    """What is asked of a run."""

    terms: OfflineTerms
    catalogue: Catalogue
    today: date
    instances: tuple[str, ...] = ()
    measured_on: str = ""
    spot: bool = False
    slo: ServiceLevelObjective | None = None
    measured: tuple[str, ...] = ()
    """Variants to measure, where anything is measured; empty for all whose quality may pass."""
    asked_again: str = ""
    """Options of the same question, for what to run next."""


def plan_batch(
    folder: Path, question: BatchQuestion, settings: RunSettings, *, measure: bool
) -> tuple[OfflinePlan, Path]:
    """Count machines for a job, keep the answer in the run folder, and write its report anew.

    Args:
        folder: a run folder.
        question: the job.
        settings: where the model repository is, and who watches.
        measure: double the batch in process and through the embedded server first.

    Returns:
        The answer, and the path of its document.

    Raises:
        RunFolderError: no run, one that cannot be read, or whose artefacts have changed.
        UsageError: a question that cannot be answered, or nothing to answer it by.
        ServerError: the server died, where something is measured.
        StorageError: the answer cannot be written.
    """
    run = read_run(folder)
    check_terms(question.terms)
    asked = _asked(folder, run, question)
    earlier = _earlier_in_process(folder)
    if measure:
        variants = [one for one in asked_for(run, question.measured) if _worth(run, one, question)]
        study = study_of(run, folder)
        bases = {one.name: _base(run, study, one) for one in variants}
        least = question.terms.least_growth
        found = measure_batches(folder, run, variants, bases, least, settings)
        sha256 = {one.name: one.sha256 for one in variants}
        earlier |= {(name, sha256[name]): curve for name, curve in found.items()}
        run = read_run(folder)
    settings.progress(Progress("counting machines", 0, 1, "simulated jobs"))
    curves = curves_of(run, earlier, question.terms.least_growth)
    plan = offline_plan(run, dataclasses.replace(asked, curves=curves))
    path = write_document(folder, BATCH, plan)
    write_results(folder)
    return plan, path


def _asked(folder: Path, run: StoredRun, question: BatchQuestion) -> OfflineQuestion:
    """The question with its instance types looked up; its curves are filled in later."""
    asked_for(run, question.measured)
    instances = tuple(question.catalogue.named(one) for one in question.instances)
    for one in instances:
        one.usd_per_hour(spot=question.spot)
    machine = MeasuredMachine("", 0, "", 0)
    if instances or question.measured_on or not is_external(run.manifest):
        machine = measured_machine(run.manifest, question.catalogue, question.measured_on)
    if not instances and machine.instance:
        instances = (question.catalogue.named(machine.instance),)
    return OfflineQuestion(
        terms=question.terms,
        measured_on=machine,
        today=question.today,
        instances=instances,
        spot=question.spot,
        slo=question.slo,
        measure=f"harness batch {shlex.quote(str(folder))} {question.asked_again} --measure",
        seed=seed_of(run),
    )


Known = dict[tuple[str, str], BatchCurve]
"""Curves in process by a variant's name and its artefact's digest."""


def _earlier_in_process(folder: Path) -> Known:
    """What earlier answers of this folder measured in process, the newest of each artefact."""
    return {
        (one.variant, one.sha256): one.in_process
        for found in read_documents(folder, BATCH, OfflinePlan)
        for one in found.variants
        if one.in_process is not None and one.in_process.source is CurveSource.PROCESS
    }


def _worth(run: StoredRun, variant: ModelVariant, question: BatchQuestion) -> bool:
    """Whether a variant is measured: all that were named, else those whose quality may pass."""
    decision = quality_of(run, variant, question.slo).decision
    return bool(question.measured) or decision is not Decision.FAIL


def _base(run: StoredRun, study: Study, variant: ModelVariant) -> Trial:
    """What a walk begins from: one that was begun, else the load that gave most, else the first."""
    if begun := walked_trials(run, variant):
        return begun[0].trial
    best = best_loads(one for one in run.trials if one.trial.variant == variant.name)
    if best:
        _, results, _ = max(best.values(), key=lambda one: one[2].value)
        return results[0].trial
    family = next(one for one in study.families if one.name == variant.family)
    serving = serving_configs(study.serving_of(family))[0]
    workload = dataclasses.replace(
        workloads(study, study.traffic_of(family))[0], load_mode=LoadMode.CLOSED, rate_per_s=None
    )
    return Trial(variant.name, variant.family, serving, workload)


def curves_of(run: StoredRun, in_process: Known, least_growth: float) -> dict[str, VariantCurves]:
    """By variant, throughput over batch sizes as measured beyond the search's trials.

    Args:
        run: as it was read.
        in_process: walks in process; the report card's batches count where there is none.
        least_growth: what a doubling has to bring.
    """
    found = {}
    for one in judged_candidates(run.variants):
        walked = _stored_walk(run, one, least_growth)
        process = in_process.get((one.name, one.sha256)) or _of_card(run, one, least_growth)
        if process is not None and process.least != least_growth:
            process = judged(process.source, process.points, least_growth)
        trials = walked_trials(run, one) if walked else run.trials
        best = best_loads(result for result in trials if result.trial.variant == one.name)
        results: Sequence[TrialResult] = ()
        if best:
            _, results, _ = max(best.values(), key=lambda load: load[2].value)
        found[one.name] = VariantCurves(walked, process, _seconds(run, results))
    return found


def _stored_walk(run: StoredRun, variant: ModelVariant, least_growth: float) -> BatchCurve | None:
    """The walk through the server again, from the journal alone."""
    stored = {one.trial.trial_id: one for one in walked_trials(run, variant)}
    first = next(iter(stored.values()), None)
    if first is None:
        return None
    return walk_up(first.trial, _stored(stored), least_growth, known=set(stored))


def _stored(known: Mapping[str, TrialResult]) -> Callable[[Trial], TrialResult | None]:
    def take(trial: Trial) -> TrialResult | None:
        found = known.get(trial.trial_id)
        steadier = after_longer_warm_up(found) if found is not None else None
        return known.get(steadier.trial_id, found) if steadier is not None else found

    return take


def _of_card(run: StoredRun, variant: ModelVariant, least_growth: float) -> BatchCurve | None:
    """The report card's batches at the longest length; the range of its rounds as the interval."""
    entry = next(
        (
            one
            for one in run.card
            if (one.name, one.runtime, one.digest)
            == (variant.name, Runtime.ONNX_RUNTIME, variant.sha256)
        ),
        None,
    )
    if entry is None or not entry.throughput:
        return None
    sizes = {one.batch_size for one in entry.throughput}
    points = (entry.rate(size) for size in sizes)
    rates = {
        one.batch_size: Interval(one.per_s.value, one.per_s.low, one.per_s.high)
        for one in points
        if one is not None and one.per_s.low > 0
    }
    return curve_of(CurveSource.CARD, rates, least_growth) if rates else None


def _seconds(run: StoredRun, results: Sequence[TrialResult]) -> float:
    """How the throughput varied from second to second within trials of one load: the median."""
    found = []
    for one in results:
        series = run.series.get(one.trial.trial_id)
        if series is not None:
            whole = [s.inferences_per_s for s in series.measured if s.length_s >= _WHOLE_SECOND]
            found.append(variation_of_seconds(whole))
    return sorted(found)[len(found) // 2] if found else 0.0

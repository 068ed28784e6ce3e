"""The load side: which trials, measured where the journal lacks them, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from harness.flow.ensembles import ensemble_trial
from harness.flow.options import ProgressSink, RunSettings
from harness.flow.preparation import PreparedFamily
from harness.flow.prompts import prompt_requests
from harness.flow.scoring import quality_gate, standing
from harness.flow.serving import Served
from harness.flow.spaces import serving_configs, streams_of, workloads
from harness.flow.trial import TrialRunner
from harness.load.generators.pool import LoadGenerators
from harness.load.requests.generation import GenerationRequest, write_requests
from harness.load.requests.payloads import Group, write_payloads
from harness.planning.assessment import QualityJudgement
from harness.planning.decision import decide
from harness.planning.dialogue import Reserved
from harness.planning.search import BisectionSearch, GridSearch, Search
from harness.runs.folder import RunFolder
from harness.study import Family, Study, plans_of, variants_of
from harness.tasks.generation.rows import PromptDataset
from harness.types import (
    Accelerator,
    Decision,
    FailedVariant,
    Generation,
    Progress,
    Rejection,
    ServiceLevelObjective,
    ServingConfig,
    TrialResult,
    Verdict,
    WireProtocol,
)


@contextmanager
def trial_runner(
    study: Study, served: Served, folder: RunFolder, settings: RunSettings
) -> Iterator[TrialRunner]:
    """The load generators, started once for all trials of a run."""
    families = served.families
    workers = settings.workers or max(study.traffic_of(each.family).workers for each in families)
    targets = served.site.targets
    only = next(iter(targets.values()))
    with LoadGenerators(
        http=targets.get(WireProtocol.HTTP, only),
        grpc=targets.get(WireProtocol.GRPC, only),
        workers=workers,
        log_dir=folder.path / "logs",
        cpus=settings.cpus_generator,
        implementation=settings.grpc,
    ) as generators:
        yield TrialRunner(
            served.site,
            generators,
            folder,
            variants={variant.name: variant for each in families for variant in each.served},
            parts={
                one.ensemble.variant.name: one.ensemble.parts
                for each in families
                for one in each.ensembles
            },
            payloads=_write_payloads(served, folder),
            settings=settings,
        )


def decide_family(
    study: Study,
    prepared: PreparedFamily,
    runner: TrialRunner,
    folder: RunFolder,
    settings: RunSettings,
    served: Served,
) -> Verdict:
    """Load-test what passes the quality gate, and decide.

    Args:
        study: says what is searched.
        prepared: the family.
        runner: measures.
        folder: gets every result.
        settings: who watches.
        served: says how variants are served that are measured as they are.
    """
    slo = study.objective_of(prepared.family)
    judge = partial(
        decide,
        prepared.family.name,
        slo,
        teachers=_teachers(prepared.family),
        teacher_counts=study.teacher_counts_in(prepared.family),
    )
    _show_scores(prepared, folder, settings)
    quality = quality_gate(study, prepared, folder)
    smallest_first = sorted(
        standing(prepared, folder),
        key=lambda variant: (variant.size_bytes or 0, variant.parameters),
    )
    names = [variant.name for variant in smallest_first if variant.name in quality]
    unbatched = {each.name for each in prepared.variants if not each.batches}
    judged = {name: quality[name] for name in names}
    search = make_search(
        study, prepared.family, judged, served.served_as, unbatched, served.generations
    )
    results = _searched(
        search, partial(judge, quality), prepared.family, runner, folder, settings, slo
    )
    verdict = judge(quality, results)
    if settings.monitor is not None:
        settings.monitor.decide(verdict.family, verdict.decision)
    _measure_ensemble(prepared, verdict, slo, runner, folder, settings.progress)
    verdict = dataclasses.replace(verdict, pruned=tuple(search.pruned))
    return with_failed(verdict, folder.journal.failed.values())


def _searched(
    search: Search,
    judge: Callable[[Sequence[TrialResult]], Verdict],
    family: Family,
    runner: TrialRunner,
    folder: RunFolder,
    settings: RunSettings,
    slo: ServiceLevelObjective,
) -> list[TrialResult]:
    """Measure every trial that the search asks for; one that the journal has is not repeated."""
    results: list[TrialResult] = []
    while (trial := search.ask()) is not None:
        total = len(results) + search.remaining
        stage = f"load on {family.name}"
        settings.progress(Progress(stage, len(results), total, trial.trial_id))
        result = folder.journal.trials.get(trial.trial_id)
        if result is None or result.sha256 != runner.sha256(trial):
            result = runner.measure(trial, slo)
            folder.journal.add(result)
        elif settings.monitor is not None:
            settings.monitor.add_result(result)
        search.tell(result)
        results.append(result)
        if settings.monitor is not None:
            so_far = judge(results)
            settings.monitor.decide(so_far.family, so_far.decision)
    return results


def with_failed(verdict: Verdict, failed: Iterable[FailedVariant]) -> Verdict:
    """The verdict with the variants that could not be judged, each with its whole reason."""
    own = [one for one in failed if one.family == verdict.family]
    if not own:
        return verdict
    names = ", ".join(one.name for one in own)
    return dataclasses.replace(
        verdict,
        summary=f"{verdict.summary} Left out, because it could not be exported or served: {names}.",
        rejected=(
            *(Rejection(one.name, None, one.cause, one.reason) for one in own),
            *verdict.rejected,
        ),
    )


def _show_scores(prepared: PreparedFamily, folder: RunFolder, settings: RunSettings) -> None:
    if settings.monitor is not None:
        for variant in prepared.variants:
            entry = folder.journal.quality.get(variant.name)
            settings.monitor.add_quality(entry.scores if entry else ())


def _measure_ensemble(
    prepared: PreparedFamily,
    verdict: Verdict,
    slo: ServiceLevelObjective,
    runner: TrialRunner,
    folder: RunFolder,
    progress: ProgressSink,
) -> None:
    """The winner with its pre- and post-processing, at the load that it won with."""
    winner = folder.journal.trials.get(verdict.recommended or "")
    for one in prepared.ensembles:
        if winner is None or one.ensemble.model.name != winner.trial.variant:
            continue
        trial = ensemble_trial(winner, one.ensemble)
        progress(Progress(f"ensemble of {prepared.family.name}", 0, 1, trial.trial_id))
        runner.settle(trial, slo)


def make_search(
    study: Study,
    family: Family,
    quality: Mapping[str, QualityJudgement],
    served_as: Mapping[str, ServingConfig] | None = None,
    unbatched: Container[str] = (),
    generations: Mapping[str, Generation] | None = None,
) -> Search:
    """The search that the study names, over the family's own space.

    A variant that fails on quality is left out: it is never load-tested for the verdict. The
    others are tried in the order given; what comes after a fast one is sooner seen to be slower.
    """
    traffic = study.traffic_of(family)
    kind = GridSearch if study.search == "grid" else BisectionSearch
    decisions = {name: judged.decision for name, judged in quality.items()}
    return kind(
        family.name,
        [name for name, decision in decisions.items() if decision is not Decision.FAIL],
        offered_configs(study, family, decisions, served_as, unbatched),
        workloads(
            study,
            traffic,
            cached_answers=study.serving_of(family).response_cache,
            generation=next(
                (one for name, one in (generations or {}).items() if name in quality),
                streams_of(family),
            ),
        ),
        study.objective_of(family),
        confirm_duration_s=traffic.confirm_duration_s or 2 * traffic.duration_s,
        reserved=Reserved(
            frozenset(name for name, one in decisions.items() if one is Decision.UNDECIDED),
            frozenset(() if study.teacher_counts_in(family) else _teachers(family)),
        ),
    )


def _teachers(family: Family) -> tuple[str, ...]:
    """The variants of the family's teacher."""
    return tuple(variants_of(family.teacher))


def offered_configs(
    study: Study,
    family: Family,
    variants: Iterable[str],
    served_as: Mapping[str, ServingConfig] | None,
    unbatched: Container[str] = (),
) -> dict[str, tuple[ServingConfig, ...]]:
    """Each variant's serving configurations.

    No accelerator changes a TensorRT plan; one of `unbatched` keeps its maximum batch of 0, with
    which there is no queue delay.
    """
    if served_as:
        return {variant: (serving,) for variant, serving in served_as.items()}
    every = serving_configs(study.serving_of(family))
    plain = (dataclasses.replace(serving, accelerator=Accelerator.NONE) for serving in every)
    of_a_plan, plans = tuple(dict.fromkeys(plain)), plans_of(family)
    offered = {variant: of_a_plan if variant in plans else every for variant in variants}
    return {
        variant: _without_batching(configs) if variant in unbatched else configs
        for variant, configs in offered.items()
    }


def _without_batching(configs: Iterable[ServingConfig]) -> tuple[ServingConfig, ...]:
    kept = (dataclasses.replace(one, max_batch_size=0, queue_delay_us=0) for one in configs)
    return tuple(dict.fromkeys(kept))


def _write_payloads(served: Served, folder: RunFolder) -> dict[str, Path]:
    """One payload file per tokenization: variants whose inputs are the same share it."""
    paths = {}
    for family in served.families:
        for name, dataset in family.datasets.items():
            if isinstance(dataset, PromptDataset):
                paths[name] = _write_prompts(folder, dataset, prompt_requests(family.opened[name]))
                continue
            groups: Sequence[Group] = [group.inputs for group in dataset.groups]
            names, tag = served.names.get(name), ""
            if names is not None:
                groups, tag = names.groups(groups), f"-{names.tag}"
            path = folder.path / "payloads" / f"{dataset.digest[:16]}{tag}.npz"
            if not path.is_file():
                write_payloads(path, groups)
            paths[name] = path
        for one in family.ensembles:
            dataset = family.datasets[one.ensemble.model.name]
            path = folder.path / "payloads" / f"{dataset.digest[:16]}-texts.npz"
            if not path.is_file():
                write_payloads(path, one.texts)
            paths[one.ensemble.variant.name] = path
    return paths


def _write_prompts(
    folder: RunFolder, dataset: PromptDataset, requests: Sequence[GenerationRequest]
) -> Path:
    """The prompts as streams are asked, with the longest answer that the task allows."""
    path = folder.path / "payloads" / f"{dataset.digest[:16]}.jsonl"
    if not path.is_file():
        write_requests(path, requests)
    return path

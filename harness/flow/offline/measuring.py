"""Batch sizes doubled in process and through the embedded server, on a stored run's artefacts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import RunFolderError
from harness.flow.card import card_serving, family_subjects, preload_for
from harness.flow.input_checks import check_driven
from harness.flow.manifest import HERE, check_machine
from harness.flow.offline.walk import SERVED, growths_of, walk_up
from harness.flow.options import ProgressSink, RunSettings
from harness.flow.preparation import PreparedFamily, prepare
from harness.flow.served_pair import study_of
from harness.flow.serving import serve
from harness.flow.sweep import trial_runner
from harness.flow.trial import TrialRunner
from harness.profiling.scaling import measure_scaling
from harness.profiling.subjects import ArtefactSubject
from harness.profiling.timing import lengths_of
from harness.profiling.worker import Worker
from harness.runs.folder import RunFolder, StoredRun
from harness.serving.embedded.environment import ensure_server_environment
from harness.study import Study
from harness.types import ModelVariant, Progress, ServiceLevelObjective, Trial, TrialResult
from harness.types.estimates import Interval
from harness.types.offline import BatchCurve, BatchPoint, CurveSource
from harness.types.profiles import Scaling


def measure_batches(
    folder: Path,
    run: StoredRun,
    variants: Sequence[ModelVariant],
    bases: dict[str, Trial],
    least_growth: float,
    settings: RunSettings,
) -> dict[str, BatchCurve]:
    """Double the batch of each variant in process, then through the server.

    Trials through the server go to the run's journal under a stage of their own, each before the
    next begins; what is there already is not measured again.

    Args:
        folder: of the run.
        run: as it was read.
        variants: which of its variants.
        bases: by variant, the trial whose configuration is taken.
        least_growth: what a doubling has to bring.
        settings: where the model repository is, and who watches.

    Returns:
        By variant, throughput over batch size in process; none of what only a server can open.

    Raises:
        RunFolderError: the run is of an external server, of another machine, in use, or its
            artefacts have changed.
        ServerError: the server died, or does not load a model.
    """
    study = study_of(run, folder)
    environment = ensure_server_environment(settings.progress)
    names = {one.family for one in variants}
    narrowed = study.model_copy(
        update={"families": [one for one in study.families if one.name in names]}
    )
    check_driven(narrowed)
    with RunFolder.resume(folder, study) as kept:
        check_machine(kept, HERE)
        families = prepare(
            narrowed,
            repository=settings.repository,
            progress=settings.progress,
            warn=settings.warn,
            inputs=settings.inputs,
        )
        for one in variants:
            _check_same(folder, families, one)
        in_process = _in_process(study, families, variants, least_growth, settings)
        log_file = folder / "logs" / "triton.log"
        with (
            serve(families, environment, settings, log_file=log_file) as served,
            trial_runner(narrowed, served, kept, settings) as runner,
        ):
            known = {result.trial.trial_id for result in run.batches}
            for one in variants:
                if one.batches:
                    slo = study.objective_of(_family(families, one.family).family)
                    _walk(runner, slo, bases[one.name], least_growth, known, settings)
    return in_process


def _walk(
    runner: TrialRunner,
    slo: ServiceLevelObjective,
    base: Trial,
    least_growth: float,
    known: Container[str],
    settings: RunSettings,
) -> None:
    """Double one variant's batch through the server, and tell of every step.

    Where no trial is valid the job is answered from other trials, and that is said.
    """
    most = SERVED.largest_batch.bit_length() - 1
    taken: list[TrialResult] = []

    def tell(batch: int) -> None:
        at = batch.bit_length() - 1
        settings.progress(Progress(f"batch sizes of {base.variant}", at, most, f"batch {batch}"))

    def take(trial: Trial) -> TrialResult:
        taken.append(runner.settle(trial, slo))
        return taken[-1]

    walk_up(base, take, least_growth, tell, known)
    if not any(one.valid for one in taken):
        settings.warn(
            f"no batch of {base.variant} could be measured through the server, so what follows is "
            f"from the run's other trials: {taken[-1].invalid_reason}"
        )


def _family(families: Sequence[PreparedFamily], name: str) -> PreparedFamily:
    return next(one for one in families if one.family.name == name)


def _check_same(folder: Path, families: Sequence[PreparedFamily], variant: ModelVariant) -> None:
    family = _family(families, variant.family)
    if variant.name in family.failures:
        raise family.failures[variant.name]
    found = next((one for one in family.variants if one.name == variant.name), None)
    if found is None or found.sha256 != variant.sha256:
        raise RunFolderError(
            f"{variant.name} is another file than {folder} measured: its batches would not be "
            "those of the run",
            next_step="run the study again, or name its --repository",
        )


def _in_process(
    study: Study,
    families: Sequence[PreparedFamily],
    variants: Sequence[ModelVariant],
    least_growth: float,
    settings: RunSettings,
) -> dict[str, BatchCurve]:
    """Throughput over batch size of each artefact that ONNX Runtime opens, nothing else running."""
    names = {one.name for one in variants}
    found: dict[str, BatchCurve] = {}
    preload_for(families)
    for family in families:
        serving = card_serving(study, family)
        for one in family_subjects(family, serving):
            if not isinstance(one.subject, ArtefactSubject) or one.subject.name not in names:
                continue
            with Worker(one.subject, serving.intra_op_threads) as worker:
                scaling = measure_scaling(
                    worker,
                    one.dataset,
                    lengths_of(one.dataset)[-1],
                    least_growth=least_growth,
                    seed=study.seed,
                    progress=_named(settings, one.subject.name),
                )
            found[one.subject.name] = curve_in_process(scaling)
    return found


def _named(settings: RunSettings, name: str) -> ProgressSink:
    """The walk's progress under the variant's name: there is a walk for each."""
    return lambda told: settings.progress(replace(told, stage=f"batch sizes of {name} in process"))


def curve_in_process(scaling: Scaling) -> BatchCurve:
    """A walk in process as a curve; its rates are the median and the range of the rounds."""
    growths = growths_of(scaling.steps)
    points = tuple(
        BatchPoint(
            one.batch_size,
            Interval(one.per_s.value, one.per_s.low, one.per_s.high),
            growths.get(one.batch_size),
        )
        for one in scaling.steps
    )
    return BatchCurve(
        CurveSource.PROCESS, points, scaling.least_growth, scaling.knee, scaling.ended
    )

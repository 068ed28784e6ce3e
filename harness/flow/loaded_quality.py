"""Quality scored again while the load of the verdict runs.

The verdict's quality is that of an endpoint that does nothing else, and its latency that of one
under load. Here the recommended variant is put under the load of its own trial, and while that runs
the first rows of the test split are asked once more. They are compared row by row with the same
variant's answers without a load, and with the teacher's. Nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import GeneratorError, ServerError
from harness.flow.options import ProgressSink, RunSettings, ignore_progress
from harness.flow.preparation import PreparedFamily
from harness.flow.scoring import SCORING_BATCH, outcomes_path
from harness.flow.serving import Served, check_after_failure
from harness.flow.trial import TrialRunner
from harness.quality.collection import collect_outcomes, read_outcomes
from harness.quality.losses import compare_with_teacher
from harness.quality.scores import score
from harness.quality.writing import collect_texts
from harness.runs.folder import RunFolder
from harness.study import Study
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import Decision, ModelVariant, Progress, Trial, Verdict
from harness.types.loaded_quality import LoadedQuality

WRITING_SAMPLES = 32
"""Prompts, where the study does not say how many."""
STREAMS = 1
"""Prompts at a time beside the load: what is looked at must not be another load."""


def score_under_load(
    study: Study,
    served: Served,
    verdicts: Sequence[Verdict],
    runner: TrialRunner,
    folder: RunFolder,
    settings: RunSettings,
) -> None:
    """Score each family's winner under its own load, unless the journal has it.

    Raises:
        ServerError: the server died.
    """
    for prepared, verdict in zip(served.families, verdicts, strict=True):
        trial = _trial_of(verdict, folder)
        rows = _rows(study, prepared)
        if trial is None or not rows:
            continue
        variant = next((one for one in prepared.variants if one.name == trial.variant), None)
        if variant is None or _is_known(variant, prepared, trial, folder):
            continue
        if family_of(variant.task).writes and served.site.streams is None:
            continue
        stage = f"quality of {prepared.family.name} under load"
        settings.progress(Progress(stage, 0, 1, trial.trial_id))
        case = _Case(study, served, prepared, variant, trial, rows)
        folder.journal.add(_measured(case, runner, folder))


@dataclass(frozen=True)
class _Case:
    """What is scored under which load."""

    study: Study
    served: Served
    prepared: PreparedFamily
    variant: ModelVariant
    trial: Trial
    rows: int


def _trial_of(verdict: Verdict, folder: RunFolder) -> Trial | None:
    """The trial that was recommended; None where none was."""
    if verdict.decision is not Decision.PASS or verdict.recommended is None:
        return None
    known = folder.journal.trials.get(verdict.recommended)
    return None if known is None else known.trial


def _rows(study: Study, prepared: PreparedFamily) -> int:
    """How many rows are asked."""
    said = study.traffic_of(prepared.family).loaded_samples
    if said is not None:
        return said
    return WRITING_SAMPLES if family_of(prepared.family.task).writes else 0


def _is_known(
    variant: ModelVariant, prepared: PreparedFamily, trial: Trial, folder: RunFolder
) -> bool:
    known = folder.journal.loaded.get(variant.name)
    return known is not None and (known.sha256, known.teacher_sha256, known.trial_id) == (
        variant.sha256,
        prepared.teacher.sha256,
        trial.trial_id,
    )


def _measured(case: _Case, runner: TrialRunner, folder: RunFolder) -> LoadedQuality:
    variant = case.variant
    whole = case.prepared.datasets[variant.name]
    kept = np.arange(min(case.rows, whole.size))
    dataset = take(whole, kept)
    try:
        loaded, requests_per_s = runner.while_loaded(
            case.trial, lambda: _answers(variant, dataset, case.served, ignore_progress)
        )
    except (GeneratorError, ServerError) as error:
        # A load that fails is no score; a server that died ends the run.
        check_after_failure(case.served.site.server)
        return _without(case, str(error))
    alone = take(read_outcomes(outcomes_path(folder, variant.name)), kept)
    teacher = take(read_outcomes(outcomes_path(folder, case.prepared.teacher.name)), kept)
    seed = case.study.seed
    under, without = (
        score(one, dataset, variant=variant, teacher=teacher, seed=seed) for one in (loaded, alone)
    )
    return LoadedQuality(
        variant.name,
        variant.sha256,
        case.prepared.teacher.sha256,
        case.trial.trial_id,
        dataset.size,
        family_of(variant.task).changed(loaded, alone),
        requests_per_s,
        tuple(under),
        tuple(without),
        tuple(compare_with_teacher(loaded, alone, family=case.prepared.family.name, seed=seed)),
    )


def _without(case: _Case, problem: str) -> LoadedQuality:
    return LoadedQuality(
        case.variant.name,
        case.variant.sha256,
        case.prepared.teacher.sha256,
        case.trial.trial_id,
        samples=0,
        changed=None,
        requests_per_s=0.0,
        scores=(),
        alone=(),
        problem=problem,
    )


def _answers(
    variant: ModelVariant, dataset: EncodedDataset, served: Served, progress: ProgressSink
) -> Outcomes:
    site = served.site
    if family_of(variant.task).writes and site.streams is not None:
        return collect_texts(variant, dataset, site.streams, in_flight=STREAMS, progress=progress)
    largest = served.largest_batch(variant) or SCORING_BATCH
    outcomes: Outcomes = collect_outcomes(
        variant, dataset, site.client, batch_size=min(largest, SCORING_BATCH), progress=progress
    )
    return outcomes

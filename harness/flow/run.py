"""The main job, read top to bottom: prepare, serve, score, sweep, decide, write down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.flow.card import begin_preloading, measure_card, serve_card
from harness.flow.external.served_writing import serve_writing
from harness.flow.external.study import ExternalStudy
from harness.flow.external.variants import serve_external
from harness.flow.external.writing import ExternalWriting
from harness.flow.input_checks import check_inputs
from harness.flow.lm_evaluation import evaluate_family
from harness.flow.lm_plan import TaskEvaluation
from harness.flow.loaded_quality import score_under_load
from harness.flow.losses import trace_losses
from harness.flow.manifest import check_machine, describe_run
from harness.flow.null_model import measure_overhead
from harness.flow.options import RunSettings
from harness.flow.preparation import PreparedFamily, prepare, prepare_alone
from harness.flow.roles import measure_roles, score_roles
from harness.flow.saturation import measure_saturation
from harness.flow.scoring import score_family
from harness.flow.serving import Served, serve, uses_cache
from harness.flow.sweep import decide_family, trial_runner
from harness.load.requests.payloads import REPOSITORY_FILE, write_payloads
from harness.report.build import build_report
from harness.runs.folder import RunFolder, read_run
from harness.runs.tables import write_tables
from harness.serving.embedded.environment import ensure_server_environment
from harness.serving.embedded.server import require_free
from harness.study import Study
from harness.types import ModelVariant, Trial, TrialResult, Verdict
from harness.types.card import CardPlan
from harness.words.numbers import things

External = ExternalStudy | ExternalWriting
"""A study's models on a server that is up."""


def run_study(
    study: Study,
    folder: RunFolder,
    settings: RunSettings,
    *,
    external: External | None = None,
    card: CardPlan | None = None,
) -> tuple[Verdict, ...]:
    """Export, serve, score, sweep, decide, report; go on where the folder's journal stops.

    Args:
        study: what is asked.
        folder: gets everything.
        settings: where and how.
        external: the study's models on a server that is up; None exports and serves them.
        card: of the report card that is measured at the end, when the server is gone; of families
            that answer at once, because it times single runs of a model.

    Raises:
        HarnessError: with the exit code its class names; finished results are in the journal.
    """
    with _served_into(study, folder, settings, external=external) as served:
        answering = [family for family in served.families if not family.writes]
        preloading = begin_preloading(answering) if card is not None else None
        _score(study, served, folder, settings)
        if preloading is not None:
            preloading.join()
        if external is None:
            measure_overhead(study, served, folder, settings)
        with trial_runner(study, served, folder, settings) as runner:
            verdicts = tuple(
                decide_family(study, family, runner, folder, settings, served)
                for family in served.families
            )
            folder.write_verdicts(verdicts)
            score_under_load(study, served, verdicts, runner, folder, settings)
            if settings.saturation:
                measure_saturation(study, served.families, verdicts, runner, folder, settings)
            measure_roles(study, served.families, runner, folder, settings)
    if card is not None:
        measure_card(study, answering, folder, card, settings.progress)
    write_results(folder.path)
    return verdicts


def score_study(
    study: Study,
    folder: RunFolder,
    settings: RunSettings,
    *,
    external: External | None = None,
    evaluation: TaskEvaluation | None = None,
) -> None:
    """Export, serve and score, without any load; then let lm-eval's tasks be answered.

    Raises:
        UsageError: tasks, of models on a server that is asked by texts.
    """
    if evaluation is not None and isinstance(external, ExternalWriting):
        external.check_tasks()
    with _served_into(study, folder, settings, external=external) as served:
        _score(study, served, folder, settings)
        for family in served.families:
            if evaluation is None:
                break
            evaluate_family(study, family, served, folder, evaluation, settings.progress)
    write_results(folder.path)


def card_study(study: Study, folder: RunFolder, settings: RunSettings, plan: CardPlan) -> None:
    """Export, serve and score what the folder does not hold yet, then measure the report card."""
    with _served_into(study, folder, settings) as served:
        for family in served.families:
            score_family(study, family, served, folder, settings.progress)
        with trial_runner(study, served, folder, settings) as runner:
            serve_card(study, served.families, runner, folder, plan, settings.progress)
    measure_card(study, served.families, folder, plan, settings.progress)
    write_results(folder.path)


def measure_once(
    study: Study, trial: Trial, folder: RunFolder, settings: RunSettings
) -> TrialResult:
    """Measure one trial of one variant, whatever its quality; nothing else is exported."""
    with (
        _served_into(
            study,
            folder,
            settings,
            only=trial.variant,
            response_cache=trial.serving.response_cache,
        ) as served,
        trial_runner(study, served, folder, settings) as runner,
    ):
        result = runner.settle(trial, study.objective_of(study.family_of(trial.variant)))
    write_tables(read_run(folder.path), folder.path)
    return result


def export_study(study: Study, settings: RunSettings) -> tuple[PreparedFamily, ...]:
    """Fill the model repository, without a server.

    Beside each artefact lie the study's encoded samples, so that a load generator on any machine
    drives it with the repository alone.

    Raises:
        ParityError: an export disagrees with its checkpoint.
        StorageError: the repository cannot be written.
    """
    check_inputs(study, settings.inputs)
    families = _prepared(study, settings)
    for family in families:
        for variant in family.variants:
            groups = [group.inputs for group in family.datasets[variant.name].groups]
            write_payloads(variant.path / REPOSITORY_FILE, groups)
    return families


def write_results(path: Path) -> None:
    """Write the tables and the report of a run folder, finished or not."""
    run = read_run(path)
    write_tables(run, path)
    build_report(run, path)


def _score(study: Study, served: Served, folder: RunFolder, settings: RunSettings) -> None:
    """Every family's scores, where its quality was lost, and what a student is worth beside it."""
    for family in served.families:
        score_family(study, family, served, folder, settings.progress)
        trace_losses(study, family, served, folder, settings.progress)
        score_roles(study, family, served, folder, settings)


@contextmanager
def _served_into(
    study: Study,
    folder: RunFolder,
    settings: RunSettings,
    *,
    only: str | None = None,
    external: External | None = None,
    response_cache: bool | None = None,
) -> Iterator[Served]:
    """Prepare and serve a study, with the artefacts in the folder's journal and manifest.

    With `only` it is one variant, or one ensemble, and what that needs.
    The server has a response cache as the study says, or as `response_cache` does.

    Raises:
        RunFolderError: the run was measured on another machine, or on other data.
    """
    check_machine(folder)
    if external is not None:
        served = (
            serve_writing(study, external, settings)
            if isinstance(external, ExternalWriting)
            else serve_external(study, external, settings, folder)
        )
        _write_down(study, folder, served.families, {"server": external.manifest()}, settings)
        yield served
        return
    if settings.ports is not None:
        require_free(settings.ports)  # before anything is exported in vain
    environment = ensure_server_environment(settings.progress)
    families = _prepared(study, settings, only)
    own = {"environment": {"server_environment": environment.digest}}
    _write_down(study, folder, families, own, settings)
    log_file = folder.path / "logs" / "triton.log"
    if response_cache is None:
        response_cache = uses_cache(study)
    with serve(
        families, environment, settings, log_file=log_file, response_cache=response_cache
    ) as served:
        yield served


def _prepared(
    study: Study, settings: RunSettings, only: str | None = None
) -> tuple[PreparedFamily, ...]:
    """Every family with its artefacts in the repository; with `only` that variant alone."""
    repository, progress = settings.repository, settings.progress
    warn, inputs = settings.warn, settings.inputs
    if only is None:
        return prepare(study, repository=repository, progress=progress, warn=warn, inputs=inputs)
    alone = prepare_alone(
        study, only, repository=repository, progress=progress, warn=warn, inputs=inputs
    )
    return (alone,)


def _write_down(
    study: Study,
    folder: RunFolder,
    families: Sequence[PreparedFamily],
    server: Mapping[str, Mapping[str, Any]],
    settings: RunSettings,
) -> None:
    # First, for it refuses other data: of a run that is refused the journal stays as it was.
    manifest = describe_run(study, folder.path, families, server)
    for family in families:
        for variant in family.served:
            _tell_if_exchanged(variant, folder, settings)
            folder.journal.add(variant)
        for failed in family.failed:
            folder.journal.add(failed)
    folder.write_manifest(manifest)


def _tell_if_exchanged(variant: ModelVariant, folder: RunFolder, settings: RunSettings) -> None:
    """Say why a resumed run measures again what it had measured of a variant, and decides anew."""
    known = folder.journal.variants.get(variant.name)
    if known is None or known.sha256 == variant.sha256:
        return
    folder.withdraw_verdicts()
    trials = sum(one.trial.variant == variant.name for one in folder.journal.trials.values())
    finished = things(trials, "finished trial")
    settings.warn(
        f"{variant.name} is another file than when this run was begun (SHA-256 "
        f"{known.sha256[:12]} then, {variant.sha256[:12]} now): its score and {finished} are "
        "measured again"
    )

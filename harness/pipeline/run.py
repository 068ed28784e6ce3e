"""The main job, read top to bottom: prepare, serve, score, sweep, decide, write down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.pipeline.borrowed import Borrowed
from harness.pipeline.borrowed_serving import serve_borrowed
from harness.pipeline.inputs import check_inputs
from harness.pipeline.machinery import Machinery
from harness.pipeline.manifest import describe_run
from harness.pipeline.preparation import PreparedFamily, prepare
from harness.pipeline.scoring import score_family
from harness.pipeline.serving import Served, serve
from harness.pipeline.sweep import decide_family, trial_runner
from harness.report.build import build_report
from harness.runs import RunFolder, read_run
from harness.serving.environment import ensure_server_environment
from harness.study import Study
from harness.tables import write_tables
from harness.types import Trial, TrialResult, Verdict


def run_study(
    study: Study, folder: RunFolder, machinery: Machinery, borrowed: Borrowed | None = None
) -> tuple[Verdict, ...]:
    """Export, serve, score, sweep, decide, report; go on where the folder's journal stops.

    Args:
        study: what is asked.
        folder: gets everything.
        machinery: where and how.
        borrowed: the study's models on a server that is up; None exports and serves them.

    Raises:
        HarnessError: with the exit code its class names; finished results are in the journal.
    """
    with _served_into(study, folder, machinery, borrowed=borrowed) as served:
        for family in served.families:
            score_family(study, family, served, folder, machinery.progress)
        with trial_runner(study, served, folder, machinery) as runner:
            verdicts = tuple(
                decide_family(study, family, runner, folder, machinery.progress, served.served_as)
                for family in served.families
            )
    folder.write_verdicts(verdicts)
    write_results(folder.path)
    return verdicts


def score_study(
    study: Study, folder: RunFolder, machinery: Machinery, borrowed: Borrowed | None = None
) -> None:
    """Export, serve and score, without any load."""
    with _served_into(study, folder, machinery, borrowed=borrowed) as served:
        for family in served.families:
            score_family(study, family, served, folder, machinery.progress)
    write_results(folder.path)


def measure_once(
    study: Study, trial: Trial, folder: RunFolder, machinery: Machinery
) -> TrialResult:
    """Measure one trial of one variant, whatever its quality."""
    with (
        _served_into(study, folder, machinery, only_family=trial.family) as served,
        trial_runner(study, served, folder, machinery) as runner,
    ):
        result = runner.measure(trial, study.objective_of(study.family_of(trial.variant)))
    folder.journal.add_trial(result)
    write_tables(read_run(folder.path), folder.path)
    return result


def export_study(study: Study, machinery: Machinery) -> tuple[PreparedFamily, ...]:
    """Fill the model repository, without a server."""
    check_inputs(study)
    return prepare(study, repository=machinery.repository, progress=machinery.progress)


def write_results(path: Path) -> None:
    """Write the tables and the report of a run folder, finished or not."""
    run = read_run(path)
    write_tables(run, path)
    build_report(run, path)


@contextmanager
def _served_into(
    study: Study,
    folder: RunFolder,
    machinery: Machinery,
    *,
    only_family: str | None = None,
    borrowed: Borrowed | None = None,
) -> Iterator[Served]:
    """Prepare and serve a study, with the artefacts in the folder's journal and manifest."""
    if borrowed is not None:
        served = serve_borrowed(study, borrowed, machinery)
        _write_down(study, folder, served.families, {"server": borrowed.manifest()})
        yield served
        return
    environment = ensure_server_environment(machinery.progress)
    families = prepare(
        study,
        repository=machinery.repository,
        progress=machinery.progress,
        only_family=only_family,
    )
    own = {"environment": {"server_environment": environment.digest}}
    _write_down(study, folder, families, own)
    log_file = folder.path / "logs" / "triton.log"
    with serve(families, environment, machinery, log_file=log_file) as served:
        yield served


def _write_down(
    study: Study,
    folder: RunFolder,
    families: Sequence[PreparedFamily],
    server: Mapping[str, Mapping[str, Any]],
) -> None:
    for family in families:
        for variant in family.variants:
            folder.journal.add_variant(variant)
    folder.write_manifest(describe_run(study, folder.path, families, server))

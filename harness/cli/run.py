"""harness run: the whole job on the user's study."""

from __future__ import annotations

from harness.cli import session
from harness.cli.console import ProgressDisplay
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CpusGenerator,
    CpusServer,
    Out,
    Repository,
    Resume,
    StudyFile,
)
from harness.study_file import load_study


def run(
    study_file: StudyFile,
    out: Out = None,
    resume: Resume = False,
    repository: Repository = DEFAULT_REPOSITORY,
    cpus_server: CpusServer = None,
    cpus_generator: CpusGenerator = None,
    as_json: AsJson = False,
) -> int:
    """Export, serve, score, sweep, decide, report."""
    study = load_study(study_file)
    with ProgressDisplay() as progress:
        machinery = session.machinery(progress, repository, cpus_server, cpus_generator)
        folder = session.open_folder(study, out, resume=resume)
        return session.run_to_verdict(
            study, folder, machinery, command=f"harness run {study_file}", as_json=as_json
        )

"""harness run: the whole job on the user's study."""

from __future__ import annotations

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
from harness.cli.session import RunOptions, run_to_verdict
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
    options = RunOptions(out, resume, repository, as_json, cpus_server, cpus_generator)
    return run_to_verdict(load_study(study_file), options)

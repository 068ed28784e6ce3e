"""harness run: the whole job on the user's study."""

from __future__ import annotations

from harness.cli.options import StudyFile, with_option_groups
from harness.cli.session import RunOptions, run_to_verdict
from harness.study.file import load_study


@with_option_groups
def run(study_file: StudyFile, options: RunOptions) -> int:
    """Run a whole study: export, serve, score, sweep, decide, report."""
    return run_to_verdict(load_study(study_file), options)

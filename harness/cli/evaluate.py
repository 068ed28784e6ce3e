"""harness evaluate: the quality of what is served, without any load."""

from __future__ import annotations

from harness.cli.console import ProgressDisplay, output, print_json, print_line
from harness.cli.options import DEFAULT_REPOSITORY, AsJson, Out, Repository, Resume, StudyFile
from harness.cli.session import open_folder
from harness.pipeline.machinery import Machinery
from harness.pipeline.run import score_study
from harness.report.terminal import losses_table, pairs_table, quality_table
from harness.runs import read_run
from harness.study_file import load_study


def evaluate(
    study_file: StudyFile,
    out: Out = None,
    resume: Resume = False,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Export, serve and score every variant through the endpoint, beside its teacher."""
    study = load_study(study_file)
    with ProgressDisplay() as progress, open_folder(study, out, resume=resume) as folder:
        machinery = Machinery(repository, progress=progress)
        score_study(study, folder, machinery)
    run = read_run(folder.path)
    if as_json:
        print_json(
            {
                "run": str(folder.path),
                "quality": run.scores,
                "pairs": run.pairs,
                "losses": run.losses,
            }
        )
        return
    output.print(quality_table(run))
    output.print(pairs_table(run))
    if any(entry.chain for entry in run.losses):
        output.print(losses_table(run))
    print_line(f"run: {folder.path}")

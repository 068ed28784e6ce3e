"""harness evaluate: the quality of what is served, without any load."""

from __future__ import annotations

from harness.cli.console import ProgressDisplay, output, print_json, print_line
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsIs,
    AsJson,
    CaFile,
    Header,
    Insecure,
    MetricsUrl,
    ModelNames,
    Out,
    Repository,
    Resume,
    StudyFile,
    Url,
)
from harness.cli.remote import RemoteOptions
from harness.cli.session import open_folder
from harness.pipeline.machinery import Machinery
from harness.pipeline.run import score_study
from harness.report.terminal import quality_table
from harness.runs import read_run
from harness.study_file import load_study


def evaluate(
    study_file: StudyFile,
    url: Url = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    metrics_url: MetricsUrl = None,
    model_name: ModelNames = None,
    as_is: AsIs = False,
    out: Out = None,
    resume: Resume = False,
    repository: Repository = DEFAULT_REPOSITORY,
    as_json: AsJson = False,
) -> None:
    """Export, serve and score every variant through the endpoint, beside its teacher."""
    study = load_study(study_file)
    remote = RemoteOptions(
        url, header or (), ca_file, insecure, metrics_url, model_name or (), as_is
    )
    with (
        ProgressDisplay() as progress,
        remote.borrowing(study) as borrowed,
        open_folder(study, out, borrowed, resume=resume) as folder,
    ):
        machinery = Machinery(repository, progress=progress)
        score_study(borrowed.study if borrowed else study, folder, machinery, borrowed)
    run = read_run(folder.path)
    if as_json:
        print_json({"run": str(folder.path), "quality": run.scores})
        return
    output.print(quality_table(run))
    print_line(f"run: {folder.path}")

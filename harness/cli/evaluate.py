"""harness evaluate: the quality of what is served, without any load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, say
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
    Track,
    Url,
)
from harness.cli.remote import RemoteOptions
from harness.cli.session import keep_what_there_is, open_folder, tell_trackers
from harness.errors import HarnessError
from harness.pipeline.lm_evaluation import (
    TaskEvaluation,
    check_language_models,
    families_without_answer,
)
from harness.pipeline.machinery import Machinery
from harness.pipeline.run import score_study
from harness.quality.lm_tasks import TaskRequest, load_tasks
from harness.report.terminal_quality import losses_table, pairs_table, quality_table
from harness.runs import read_run
from harness.study import Study
from harness.study_file import load_study
from harness.tracking.sinks import check_trackers


def evaluate(
    study_file: StudyFile,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="lm-evaluation-harness tasks for the language models: names, patterns or YAML "
            "files, as in mnli,wikitext.",
            show_default=False,
        ),
    ] = None,
    include_path: Annotated[
        list[Path] | None,
        typer.Option(help="Folder with task files; may be given again.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="First documents of each lm-eval task.", show_default=False),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(min=0, help="Examples in the prompt, as lm-eval has it.", show_default=False),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask everything, whatever was answered before.")
    ] = False,
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
    track: Track = None,
    as_json: AsJson = False,
) -> None:
    """Export, serve and score every variant through the endpoint, beside its teacher."""
    trackers = tuple(track or ())
    check_trackers(trackers)
    study = load_study(study_file)
    request = TaskRequest(_names(tasks), tuple(include_path or ()), limit, num_fewshot)
    evaluation = _evaluation(study, request, use_cache=not no_cache)
    remote = RemoteOptions(
        url, header or (), ca_file, insecure, metrics_url, model_name or (), as_is
    )
    with (
        ProgressDisplay() as progress,
        remote.borrowing(study) as borrowed,
        open_folder(study, out, borrowed, resume=resume) as folder,
    ):
        machinery = Machinery(repository, progress=progress)
        asked = borrowed.study if borrowed else study
        try:
            score_study(asked, folder, machinery, borrowed=borrowed, evaluation=evaluation)
        except (KeyboardInterrupt, HarnessError):
            keep_what_there_is(folder)
            raise
    run = read_run(folder.path)
    tell_trackers(folder.path, trackers)
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
    print_blocks(
        quality_table(run),
        pairs_table(run),
        *([losses_table(run)] if any(entry.chain for entry in run.losses) else []),
    )
    print_line(f"run: {folder.path}")


def _names(tasks: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (tasks or "").split(",") if name.strip())


def _evaluation(study: Study, request: TaskRequest, *, use_cache: bool) -> TaskEvaluation | None:
    """What lm-eval is to ask, loaded and checked; None where no task is named."""
    if not request.names:
        return None
    check_language_models(study, ())
    for family in families_without_answer(study):
        say(
            f"family {family}: sequence classifiers do not answer lm-eval tasks, which ask a "
            "causal language model for likelihoods; they are scored on the study's own data"
        )
    loaded = load_tasks(request)
    check_language_models(study, loaded)
    return TaskEvaluation(loaded, use_cache)

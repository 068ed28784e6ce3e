"""harness evaluate: the quality of what is served, without any load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, say, warn
from harness.cli.external import ExternalStudyOptions
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    Repository,
    StudyFile,
    read_study,
    with_option_groups,
)
from harness.cli.session import FolderOptions, kept_when_cut_short, open_folder, tell_trackers
from harness.cli.typed import refuse_without, typed_options
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK, UsageError
from harness.tracking.trackers import check_trackers

if TYPE_CHECKING:
    from harness.flow.inputs import StudyInputs
    from harness.flow.lm_plan import TaskEvaluation
    from harness.quality.lm_eval.tasks import TaskRequest
    from harness.runs.folder import StoredRun
    from harness.study import Study


@dataclass(frozen=True)
class TaskOptions:
    """What lm-eval is to ask the models."""

    tasks: Annotated[
        str | None,
        typer.Option(
            help="lm-evaluation-harness tasks, as names, patterns or YAML files: mnli,wikitext. "
            "Classifiers answer those that choose among classes.",
            show_default=False,
        ),
    ] = None
    include_paths: Annotated[
        list[Path],
        typer.Option(
            "--include-path", help="Folder with task files; may be repeated.", show_default=False
        ),
    ] = field(default_factory=list)
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use only the first N documents of each lm-eval task.",
            show_default=False,
        ),
    ] = None
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            min=0, help="Examples in the prompt; default: the task's own.", show_default=False
        ),
    ] = None
    apply_chat_template: Annotated[
        bool,
        typer.Option(
            "--apply-chat-template",
            help="Put each lm-eval prompt into the chat template of the model's own tokenizer.",
        ),
    ] = False
    fewshot_as_multiturn: Annotated[
        bool,
        typer.Option(
            "--fewshot-as-multiturn",
            help="With --apply-chat-template: examples are turns of the conversation.",
        ),
    ] = False
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Do not reuse answers from earlier runs."),
    ] = False

    def request(self) -> TaskRequest:
        """The tasks as lm-eval's own loader takes them.

        Raises:
            UsageError: options that say nothing without each other.
        """
        from harness.quality.lm_eval.tasks import Chat, TaskRequest

        if self.fewshot_as_multiturn and not self.apply_chat_template:
            raise UsageError(
                "--fewshot-as-multiturn is of conversations",
                next_step="add --apply-chat-template, or leave it out",
            )
        names = tuple(filter(None, (name.strip() for name in (self.tasks or "").split(","))))
        if self.apply_chat_template and not names:
            raise UsageError(
                "--apply-chat-template is of lm-eval's tasks",
                next_step="name them (--tasks), or set chat_template in the study's own task",
            )
        chat = Chat(self.fewshot_as_multiturn) if self.apply_chat_template else None
        return TaskRequest(names, tuple(self.include_paths), self.limit, self.num_fewshot, chat)


@with_option_groups
def evaluate(
    context: typer.Context,
    study_file: StudyFile,
    asked: TaskOptions,
    there: ExternalStudyOptions,
    kept: FolderOptions,
    repository: Repository = DEFAULT_REPOSITORY,
) -> int:
    """Export, serve and score every variant through the endpoint, compared with its teacher.

    A variant that cannot be exported or served is left out, with a warning. The exit code is 5 if
    that leaves a family's teacher without any of its students.
    """
    of_tasks = ("--include-path", "--limit", "--num-fewshot", "--no-cache")
    refuse_without(typed_options(context), "--tasks", of_tasks, "--tasks mnli")
    study = read_study(study_file)
    check_trackers(kept.trackers)
    from harness.flow.inputs import StudyInputs
    from harness.flow.options import RunSettings
    from harness.flow.run import score_study
    from harness.report.family_results import families_of
    from harness.report.selection import lost_its_students
    from harness.runs.folder import read_run

    inputs = StudyInputs()
    evaluation = _evaluation(study, asked, inputs, weights=there.exports(study))
    with (
        ProgressDisplay() as progress,
        there.external_study(study) as external,
        open_folder(study, kept.out, external, resume=kept.resume) as folder,
    ):
        settings = RunSettings(repository, progress=progress, warn=warn, inputs=inputs)
        scored = external.study if external else study
        with kept_when_cut_short(folder):
            score_study(scored, folder, settings, external=external, evaluation=evaluation)
    run = read_run(folder.path)
    tell_trackers(folder.path, kept.trackers)
    _print_scores(run, folder.path, as_json=kept.as_json)
    return EXIT_ENVIRONMENT if any(map(lost_its_students, families_of(run))) else EXIT_OK


def _print_scores(run: StoredRun, path: Path, *, as_json: bool) -> None:
    from harness.report.tables.quality import known_before
    from harness.report.terminal.run import (
        has_warnings,
        losses_table,
        pairs_table,
        quality_table,
        warning_lines,
    )

    if as_json:
        found = {"quality": run.scores, "pairs": run.pairs, "losses": run.losses}
        found |= {"failed": run.failed, "relabellings": run.relabellings}
        print_json({"run": str(path), **found})
        return
    print_blocks(
        quality_table(run),
        *([pairs_table(run)] if run.pairs else []),
        *([losses_table(run)] if any(entry.chain for entry in run.losses) else []),
        *([warning_lines(run)] if has_warnings(run) else []),
    )
    for known in known_before(run.tasks):
        print_line(f"{known} (--no-cache asks again)")
    print_line(f"run: {path}")


def _evaluation(
    study: Study, asked: TaskOptions, inputs: StudyInputs, *, weights: bool
) -> TaskEvaluation | None:
    """Check the study's inputs and what lm-eval is to ask; None where no task is named.

    Raises:
        StudyError: with every problem of checkpoints, data and tasks.
        UsageError: nobody in the study answers tasks.
        DataError: a task that cannot be loaded.
    """
    from harness.flow.input_checks import check_inputs
    from harness.flow.lm_plan import check_somebody_answers, plan_evaluation
    from harness.quality.lm_eval.tasks import load_tasks

    request = asked.request()
    if not request.names:
        check_inputs(study, inputs, weights=weights)
        return None
    check_somebody_answers(study)
    loaded = load_tasks(request)
    check_inputs(study, inputs, weights=weights)
    planned = plan_evaluation(study, loaded, inputs, use_cache=not asked.no_cache)
    for note in planned.notes:
        say(note)
    return planned

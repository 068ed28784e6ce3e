"""What run, demo and sweep share: open the run folder, run, say how it ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, say
from harness.cli.external import ExternalStudyOptions, check_own_server_options
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    RUNS,
    AsJson,
    CpuOptions,
    GeneratorOptions,
    Out,
    Repository,
    Resume,
    Verbose,
    make_settings,
)
from harness.cli.telemetry import TelemetryOptions, watched
from harness.errors import (
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
    HarnessError,
    RunFolderError,
)
from harness.tracking.trackers import Tracker, check_trackers
from harness.types import Decision
from harness.types.card import CardPlan
from harness.words.numbers import things

if TYPE_CHECKING:
    from harness.flow.conclusion import Conclusion
    from harness.flow.plan import PlanQuestion
    from harness.flow.run import External
    from harness.runs.folder import RunFolder, StoredRun
    from harness.study import Study

NoSaturation = Annotated[
    bool,
    typer.Option(
        "--no-saturation",
        help="Do not measure latency over rate after the verdict (the study's saturation_shares).",
    ),
]
EXIT_CODES = {
    Decision.PASS: EXIT_OK,
    Decision.FAIL: EXIT_OBJECTIVE_NOT_MET,
    Decision.UNDECIDED: EXIT_UNDECIDED,
    Decision.INVALID: EXIT_UNDECIDED,
}


@dataclass(frozen=True)
class FolderOptions:
    """Where a run is kept, and which trackers get it."""

    out: Out = None
    resume: Resume = False
    trackers: Annotated[
        list[Tracker],
        typer.Option(
            "--track",
            help="Also send the complete run to this tracker; may be repeated.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    as_json: AsJson = False


@dataclass(frozen=True)
class RunOptions:
    """What a run's commands have in common."""

    there: ExternalStudyOptions = field(default_factory=ExternalStudyOptions)
    folder: FolderOptions = field(default_factory=FolderOptions)
    repository: Repository = DEFAULT_REPOSITORY
    generators: GeneratorOptions = field(default_factory=GeneratorOptions)
    cpus: CpuOptions = field(default_factory=CpuOptions)
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)
    no_saturation: NoSaturation = False
    verbose: Verbose = False


def run_to_verdict(
    study: Study,
    options: RunOptions,
    card: CardPlan | None = None,
    question: PlanQuestion | None = None,
) -> int:
    """Run the whole study and print how it ended.

    Args:
        study: what is run.
        options: how.
        card: ends the run with a report card.
        question: ends it with a plan that answers this, and with the decision page.

    Returns:
        The exit code of its verdict.
    """
    kept, there = options.folder, options.there
    check_own_server_options(
        remote=there.remote.url is not None,
        cpus_server=options.cpus.cpus_server,
        server_ports=options.telemetry.server_ports,
    )
    check_trackers(kept.trackers)
    from harness.flow.conclusion import conclude_run
    from harness.flow.input_checks import check_driven, check_inputs
    from harness.flow.pricing import priced_study
    from harness.flow.run import run_study
    from harness.runs.folder import read_run, require_new

    study = priced_study(study, external=there.remote.url is not None)
    if kept.out is not None and not kept.resume:
        require_new(kept.out)  # before the inputs are read, which takes its time
    with ProgressDisplay() as progress:
        settings = make_settings(
            options.repository, options.generators, options.cpus, progress=progress
        )
        settings = replace(settings, saturation=not options.no_saturation)
        check_driven(study, streams=True)
        check_inputs(study, settings.inputs, weights=there.exports(study))
        with (
            watched(settings, options.telemetry) as settings,
            there.external_study(study) as external,
            open_folder(study, kept.out, external, resume=kept.resume) as folder,
        ):
            asked = external.study if external else study
            with kept_when_cut_short(folder):
                run_study(asked, folder, settings, external=external, card=card)
        concluded = conclude_run(folder.path, question, progress) if question else None
    run = read_run(folder.path)
    print_outcome(run, folder.path, concluded, as_json=kept.as_json, verbose=options.verbose)
    tell_trackers(folder.path, kept.trackers)
    return EXIT_CODES[run.decision]


def open_folder(
    study: Study, out: Path | None, external: External | None = None, *, resume: bool
) -> RunFolder:
    """A new run folder, or the one to continue.

    Args:
        study: as its file has it, its inputs checked.
        out: where; by default a new place, or the study's latest run.
        external: its models on an external server.
        resume: continue a run.

    Raises:
        UsageError: the embedded server cannot serve it.
        RunFolderError: the folder is taken, or is not a run of this study on this server.
    """
    from harness.flow.input_checks import check_embedded
    from harness.flow.manifest import new_manifest
    from harness.runs.folder import RunFolder, latest_run, new_run_path, read_manifest

    asked = external.study if external else study
    if external is None:
        check_embedded(study)
    if not resume:
        manifest = new_manifest(asked) | ({"server": external.manifest()} if external else {})
        return RunFolder.create(out or new_run_path(RUNS, asked), manifest)
    folder = RunFolder.resume(out or latest_run(RUNS, asked), asked)
    before = read_manifest(folder.path).get("server", {}).get("url")
    now = external.url if external else None
    if before != now:
        raise RunFolderError(
            f"{folder.path} was measured on {before or 'the embedded server'}, not on "
            f"{now or 'the embedded server'}",
            next_step="start a new run without --resume",
        )
    return folder


def print_outcome(
    run: StoredRun,
    path: Path,
    concluded: Conclusion | None = None,
    *,
    as_json: bool,
    verbose: bool,
) -> None:
    """Print how a run ended.

    For a person: the verdict, one line per variant and the report's path, after the long tables
    where `verbose` asks for them. For a machine: one JSON object.
    """
    from harness.report.terminal.capacity import plan_table
    from harness.report.terminal.roles import roles_tables
    from harness.report.terminal.run import (
        card_table,
        cold_start_table,
        losses_table,
        verdict_summary,
        verdict_table,
    )
    from harness.runs.folder import verdict_document

    if as_json:
        document = verdict_document(run.verdicts)
        found: dict[str, object] = {
            "pairs": run.pairs,
            "losses": run.losses,
            "failed": run.failed,
            "relabellings": run.relabellings,
        }
        if concluded is not None:
            found |= {"plan": concluded.plan_file, "decision_page": concluded.decision.html}
        print_json({"run": str(path), **document, **found})
        return
    if verbose:
        print_blocks(
            *([card_table(run)] if run.card else []),
            *([losses_table(run)] if any(entry.chain for entry in run.losses) else []),
            *([cold_start_table(run)] if run.cold_starts else []),
        )
    print_blocks(verdict_summary(run), verdict_table(run))
    if (roles := roles_tables(run)) is not None:
        print_blocks(roles)
    if concluded is not None and concluded.plan is not None:
        print_blocks(plan_table(concluded.plan))
    print_line(f"report: {path / 'report.html'}")
    if concluded is not None:
        print_line(f"plan: {concluded.plan_file or f'none: {concluded.why_no_plan}'}")
        print_line(f"decision page: {concluded.decision.html}")


def tell_trackers(path: Path, trackers: Sequence[Tracker]) -> None:
    """Send a complete run to its trackers; one that fails prints a line and changes nothing."""
    from harness.tracking.record import track

    for tracker in trackers:
        try:
            say(f"sent to {tracker}: {track(path, tracker)}")
        except HarnessError as error:
            say(f"warning: {error}\nnext: {error.next_step}")


@contextmanager
def kept_when_cut_short(folder: RunFolder) -> Iterator[None]:
    """Where the block fails or is interrupted, write the finished part and say how to go on."""
    try:
        yield
    except (KeyboardInterrupt, HarnessError):
        _keep_what_there_is(folder)
        raise


def _keep_what_there_is(folder: RunFolder) -> None:
    """Tables and report of the finished part, and how to go on."""
    from harness.flow.run import write_results

    journal = folder.journal
    try:
        write_results(folder.path)
    except HarnessError as error:
        say(f"the tables could not be written: {error}")
    scores = things(len(journal.quality), "score")
    tasks = things(len(journal.tasks), "lm-eval task")
    trials = things(len(journal.trials), "trial")
    say(
        f"kept: {scores}, {tasks} and {trials} in {folder.path}\n"
        f"continue with: {resume_command(sys.argv[1:], folder.path)}"
    )


def resume_command(arguments: Sequence[str], path: Path) -> str:
    """The command line that continues a run: as it was called, on the run's folder."""
    from harness.flow.manifest import without_secrets

    kept = []
    rest = iter(without_secrets(arguments))
    for argument in rest:
        if argument == "--out":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--out="):
            kept.append(argument)
    return shlex.join(["harness", *kept, "--out", str(path), "--resume"])

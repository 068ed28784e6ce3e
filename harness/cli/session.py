"""What run, demo and sweep share: open the run folder, run, say how it ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.card import CardPlan
from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, say
from harness.cli.options import RUNS, parse_cpus
from harness.cli.remote import OWN_SERVER, RemoteOptions, check_own_server_options
from harness.cli.telemetry import TelemetryOptions, watched
from harness.errors import (
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
    HarnessError,
    RunFolderError,
)
from harness.load.transports.opening import GrpcImplementation
from harness.pipeline.borrowed import Borrowed
from harness.pipeline.inputs import check_embedded, check_inputs
from harness.pipeline.machinery import Machinery, ProgressSink
from harness.pipeline.manifest import new_manifest, without_secrets
from harness.pipeline.run import run_study, write_results
from harness.report.terminal import cold_start_table, verdict_summary, verdict_table
from harness.report.terminal_card import card_table
from harness.report.terminal_quality import losses_table
from harness.runs import (
    RunFolder,
    StoredRun,
    latest_run,
    new_run_path,
    read_manifest,
    read_run,
    verdict_document,
)
from harness.study import Study
from harness.tracking.sinks import Tracker, check_trackers, track
from harness.types import Decision

EXIT_CODES = {
    Decision.PASS: EXIT_OK,
    Decision.FAIL: EXIT_OBJECTIVE_NOT_MET,
    Decision.UNDECIDED: EXIT_UNDECIDED,
}


@dataclass(frozen=True)
class GeneratorOptions:
    """How the load is generated."""

    workers: int | None = None
    transport: GrpcImplementation = GrpcImplementation.NATIVE
    records: bool = False


@dataclass(frozen=True)
class CpuOptions:
    """Which cores server and generators get, as they stand on the command line."""

    server: str | None = None
    generator: str | None = None


@dataclass(frozen=True)
class RunOptions:
    """What a run's commands have in common on the command line."""

    out: Path | None
    resume: bool
    repository: Path
    as_json: bool
    generators: GeneratorOptions = GeneratorOptions()
    cpus: CpuOptions = CpuOptions()
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)
    trackers: tuple[Tracker, ...] = ()
    card: CardPlan | None = None
    """Ends the run with a report card."""
    remote: RemoteOptions = OWN_SERVER


def run_to_verdict(study: Study, options: RunOptions) -> int:
    """Run the whole study and print how it ended; returns the exit code of its verdict."""
    check_trackers(options.trackers)
    check_own_server_options(
        remote=options.remote.url is not None,
        cpus_server=options.cpus.server,
        server_ports=options.telemetry.server_ports,
    )
    with ProgressDisplay() as progress:
        machinery = make_machinery(
            options.repository, options.generators, options.cpus, progress=progress
        )
        with (
            watched(machinery, options.telemetry) as machinery,
            options.remote.borrowing(study) as borrowed,
            open_folder(study, options.out, borrowed, resume=options.resume) as folder,
        ):
            asked = borrowed.study if borrowed else study
            try:
                run_study(asked, folder, machinery, borrowed=borrowed, card=options.card)
            except (KeyboardInterrupt, HarnessError):
                keep_what_there_is(folder)
                raise
    run = read_run(folder.path)
    print_outcome(run, folder.path, as_json=options.as_json)
    tell_trackers(folder.path, options.trackers)
    return EXIT_CODES[run.decision]


def make_machinery(
    repository: Path, generators: GeneratorOptions, cpus: CpuOptions, *, progress: ProgressSink
) -> Machinery:
    """What the options say of it.

    Raises:
        UsageError: no CPU list, or cores that this process may not use.
    """
    return Machinery(
        repository=repository,
        cpus_server=parse_cpus(cpus.server),
        cpus_generator=parse_cpus(cpus.generator),
        workers=generators.workers,
        grpc=generators.transport,
        keep_records=generators.records,
        progress=progress,
    )


def open_folder(
    study: Study, out: Path | None, borrowed: Borrowed | None = None, *, resume: bool
) -> RunFolder:
    """A new run folder, or the one to go on with; nothing is made if the study's inputs are wrong.

    Args:
        study: as its file has it.
        out: where; by default a new place, or the study's latest run.
        borrowed: its models on a server of somebody else's.
        resume: go on with a run.

    Raises:
        StudyError: with every problem of checkpoints and data.
        UsageError: the embedded server cannot serve it.
        RunFolderError: the folder is taken, or is no run of this study on this server.
    """
    asked = borrowed.study if borrowed else study
    if borrowed is None:
        check_embedded(study)
    if not resume:
        check_inputs(asked)
        manifest = new_manifest(asked) | ({"server": borrowed.manifest()} if borrowed else {})
        return RunFolder.create(out or new_run_path(RUNS, asked), manifest)
    folder = RunFolder.resume(out or latest_run(RUNS, asked), asked)
    before = read_manifest(folder.path).get("server", {}).get("url")
    now = borrowed.opened.address.url if borrowed else None
    if before != now:
        raise RunFolderError(
            f"{folder.path} was measured on {before or 'a server of its own'}, not on "
            f"{now or 'a server of its own'}",
            next_step="start a new run without --resume",
        )
    return folder


def print_outcome(run: StoredRun, path: Path, *, as_json: bool) -> None:
    """Print the verdict for a person, or for a machine."""
    if as_json:
        document = verdict_document(run.verdicts)
        print_json({"run": str(path), **document, "pairs": run.pairs, "losses": run.losses})
        return
    # The verdict last: it is what stays in sight.
    print_blocks(
        *([card_table(run)] if run.card else []),
        *([losses_table(run)] if any(entry.chain for entry in run.losses) else []),
        *([cold_start_table(run)] if run.cold_starts else []),
        verdict_table(run),
        verdict_summary(run),
    )
    print_line(f"report: {path / 'report.html'}")


def tell_trackers(path: Path, trackers: Sequence[Tracker]) -> None:
    """Tell a complete run; a tracker that fails is a line, and changes nothing else."""
    for tracker in trackers:
        try:
            say(f"tracked: {tracker}: {track(path, tracker)}")
        except HarnessError as error:
            say(f"warning: {error}\nnext: {error.next_step}")


def keep_what_there_is(folder: RunFolder) -> None:
    """Tables and report of the finished part, and how to go on."""
    journal = folder.journal
    try:
        write_results(folder.path)
    except HarnessError as error:
        say(f"the tables could not be written: {error}")
    say(
        f"kept: {len(journal.quality)} scores, {len(journal.tasks)} lm-eval tasks and "
        f"{len(journal.trials)} trials in {folder.path}\n"
        f"go on with: {resume_command(sys.argv[1:], folder.path)}"
    )


def resume_command(arguments: Sequence[str], path: Path) -> str:
    """The command line that goes on with a run: as it was called, on the run's folder."""
    kept = []
    rest = iter(without_secrets(arguments))
    for argument in rest:
        if argument == "--out":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--out="):
            kept.append(argument)
    return shlex.join(["harness", *kept, "--out", str(path), "--resume"])

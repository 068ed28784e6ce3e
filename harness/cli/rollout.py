"""harness rollout: a student takes over the teacher's traffic in stages, or is taken back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.console import ProgressDisplay, print_blocks, print_json, print_line, say, warn
from harness.cli.options import (
    DEFAULT_REPOSITORY,
    AsJson,
    CpusServer,
    Repository,
    RunPath,
    parse_cpus,
    parse_share,
    with_option_groups,
)
from harness.cli.session import EXIT_CODES
from harness.cli.typed import refuse_without, typed_options
from harness.planning.rollout.asked import parse_own, parse_stages
from harness.types.rollout import RolloutMode, RolloutTraffic

if TYPE_CHECKING:
    from harness.flow.rollout.job import RolloutRequest
    from harness.telemetry.prometheus.client import Prometheus


@dataclass(frozen=True)
class RolloutPlanOptions:
    """What the student is held to, stage by stage."""

    student: Annotated[
        str, typer.Option(help="Variant that takes over; default: the recommended one.")
    ] = ""
    teacher: Annotated[
        str, typer.Option(help="Variant that serves now; default: the teacher's first.")
    ] = ""
    mode: Annotated[
        RolloutMode,
        typer.Option(
            help="canary: each request goes to one model; mirror: what the student answers goes to "
            "the teacher too, and answers are compared; shadow: the teacher answers everything."
        ),
    ] = RolloutMode.MIRROR
    stages: Annotated[str, typer.Option(help="The student's share, stage by stage.")] = (
        "5%,25%,50%,100%"
    )
    slo: Annotated[
        str | None,
        typer.Option(
            help="Objective whose clauses are the guardrails; default: the run's.",
            show_default=False,
        ),
    ] = None
    agreement: Annotated[
        str | None,
        typer.Option(help="Least share of answers that are the teacher's.", show_default=False),
    ] = None
    own: Annotated[
        list[str],
        typer.Option(
            help="Guardrail on two counters: 'NAME < 2%; bad: PROMQL; all: PROMQL'; may be "
            "repeated. No series is no data: write 'sum(x) or vector(0)' for a counter that "
            "begins with its first increase.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    prometheus: Annotated[
        str | None,
        typer.Option(help="Where --own is counted: http://HOST:9090.", show_default=False),
    ] = None
    error: Annotated[
        str,
        typer.Option(
            help="Probability that a student beyond a limit is ever promoted, and that one within "
            "all limits is ever rolled back."
        ),
    ] = "5%"


@dataclass(frozen=True)
class RolloutTrafficOptions:
    """Options for the traffic of a rollout."""

    requests: Annotated[int, typer.Option(min=1, help="Requests of a look.")] = 500
    looks: Annotated[
        int, typer.Option(min=1, help="Looks after which the rollout ends undecided.")
    ] = 500
    in_flight: Annotated[int, typer.Option(min=1, max=256, help="Requests in flight.")] = 8
    users: Annotated[
        int, typer.Option(min=0, help="Users that send requests; 0: each request is another's.")
    ] = 0
    split: Annotated[
        Literal["router", "client"],
        typer.Option(help="What splits the traffic: a Triton model in front, or the client."),
    ] = "router"
    pause: Annotated[
        float,
        typer.Option(min=0, help="Seconds after a look's requests before --own is counted."),
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Seed by which rows and users are drawn.")] = 0


@with_option_groups
def rollout(
    context: typer.Context,
    run_folder: RunPath,
    *,
    plan: RolloutPlanOptions,
    traffic: RolloutTrafficOptions,
    repository: Repository = DEFAULT_REPOSITORY,
    cpus_server: CpusServer = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run's latest rollout.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Let a student take over in stages: promoted, held or rolled back by evidence at every look.

    Teacher and student are served beside each other, behind a Triton model that splits the traffic
    by key; the requests are the run's scored rows. Exit code: 0 the student has taken over, 3 it
    was rolled back, 4 undecided.
    """
    own = "--own 'NAME < 2%; bad: PROMQL; all: PROMQL'"
    refuse_without(typed_options(context), "--own", ("--prometheus", "--pause"), own)
    request = _request(plan, traffic)
    prometheus = _prometheus(plan.prometheus)
    from harness.flow.manifest import command_line
    from harness.flow.options import RunSettings
    from harness.flow.rollout.job import roll_out
    from harness.flow.run import write_results
    from harness.report.rollout.words import outcome_words
    from harness.report.terminal.rollout import changes_table, planned_lines

    with ProgressDisplay() as progress:
        settings = RunSettings(
            repository,
            parse_cpus(cpus_server),
            progress=progress,
            warn=warn,
            prometheus=prometheus,
        )
        try:
            record, path = roll_out(run_folder, request, settings, resume=resume)
        except KeyboardInterrupt:
            arguments = [one for one in sys.argv[1:] if one != "--resume"]
            say(f"go on with: {command_line(arguments)} --resume")
            raise
    write_results(run_folder)
    if as_json:
        print_json(record)
    else:
        print_blocks(changes_table(record))
        for line in planned_lines(record):
            print_line(line)
        print_line(outcome_words(record))
        say(f"rollout: {path}\nreport: {run_folder / 'report.html'}#rollout")
    return EXIT_CODES[record.decision]


def _request(plan: RolloutPlanOptions, traffic: RolloutTrafficOptions) -> RolloutRequest:
    """What was asked for.

    Raises:
        UsageError: an option that cannot be read.
    """
    from harness.flow.rollout.job import RolloutRequest
    from harness.study.objective import parse_objective

    return RolloutRequest(
        traffic=RolloutTraffic(
            requests=traffic.requests,
            in_flight=traffic.in_flight,
            users=traffic.users,
            seed=traffic.seed,
            through_router=traffic.split == "router",
            pause_s=traffic.pause,
        ),
        stages=parse_stages(plan.stages),
        mode=plan.mode,
        error=parse_share(plan.error, "--error", usual="5%"),
        most_looks=traffic.looks,
        slo=parse_objective(plan.slo) if plan.slo is not None else None,
        agreement=parse_share(plan.agreement, "--agreement") if plan.agreement else None,
        own=tuple(parse_own(one) for one in plan.own),
        student=plan.student,
        teacher=plan.teacher,
    )


def _prometheus(url: str | None) -> Prometheus | None:
    """The Prometheus, found to answer.

    Raises:
        UsageError: it does not.
    """
    from harness.telemetry.prometheus.client import parse_prometheus

    if url is None:
        return None
    found = parse_prometheus(url)
    found.check()
    return found

"""harness doctor: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness.cli.console import ProgressDisplay, output, print_json
from harness.cli.options import AsJson, cpu_list
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK, EnvironmentFailure, ServerEnvironmentError
from harness.system import machine
from harness.system.storage import cache_root
from harness.words.numbers import number, things, whole

NEEDED_GIB = 4
GENERATOR_SHARE = 4
"""One of this many cores goes to the load generators, which need far less than the server."""
BUSY_SHARE = 0.25
"""Load average a core from which on the machine counts as busy."""
EXTRAS = {"export": "torch", "quality": "sklearn"}


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    subject: str
    state: str
    """ok, missing, note."""
    detail: str
    mend: str = ""


def doctor(
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Install the embedded server's environment now.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show what this machine has, what is missing, and how to get it."""
    from harness.serving.embedded.environment import ensure_server_environment

    if prepare:
        with ProgressDisplay() as progress:
            ensure_server_environment(progress)
    findings = examine()
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        output.print(_table(findings))
    return EXIT_ENVIRONMENT if any(f.state == "missing" for f in findings) else EXIT_OK


def examine() -> list[Check]:
    """Look at everything the main job needs."""
    facts = machine.describe_machine()
    findings = [
        Check("python", "ok", facts["python"]),
        Check(
            "machine", "ok",
            f"{things(facts['usable_cores'], 'core')}, {facts['memory_gib']} GiB, {facts['cpu']}",
        ),
        Check(
            "GPU", "ok" if facts["gpus"] else "note",
            ", ".join(facts["gpus"]) or "none: the embedded server runs on the CPU",
        ),
    ]  # fmt: skip
    for extra, package in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        findings.append(
            Check(
                f"extra [{extra}]",
                "ok" if there else "missing",
                f"{package} is {'installed' if there else 'not installed'}",
                "" if there else f"pip install 'triton-distillation-harness[{extra}]'",
            )
        )
    return [*findings, _tensorrt(), _pinning(), _other_load(), _disk(), _server()]


def _tensorrt() -> Check:
    """Whether plans can be built here."""
    from harness.export.tensorrt import plan_home

    try:
        home = plan_home()
    except EnvironmentFailure as error:
        return Check("TensorRT", "note", str(error), error.next_step)
    return Check("TensorRT", "ok", f"{home.tensorrt}, for {home.gpu} ({home.compute_capability})")


def _pinning() -> Check:
    """Whether server and generators can be kept apart, and how."""
    subject = "pinning"
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:  # noqa: PLR2004  (one for each side)
        return Check(
            subject, "note",
            "not possible on one core: server and load generator take turns on it, so latency "
            "holds the generator's time too, and throughput is less than the server's own",
            "a machine with two cores, or --url to a server on another one",
        )  # fmt: skip
    try:
        os.sched_setaffinity(0, usable)
    except OSError as error:
        return Check(subject, "note", f"this machine does not allow it: {error}")
    for_generator = max(1, len(usable) // GENERATOR_SHARE)
    server, generator = usable[:-for_generator], usable[-for_generator:]
    return Check(
        subject, "ok",
        f"possible: cores {cpu_list(usable)} may be used; apart, neither side's work shows in the "
        "other's numbers",
        f"--cpus-server {cpu_list(server)} --cpus-generator {cpu_list(generator)}",
    )  # fmt: skip


def _other_load() -> Check:
    """Whether something else has kept the machine busy over the last minute."""
    average, cores = os.getloadavg()[0], os.cpu_count() or 1
    words = f"load average {number(average)} on {cores} cores"
    if average < BUSY_SHARE * cores:
        return Check("other work", "ok", words)
    return Check(
        "other work", "note",
        f"{words}: something else is running and would disturb the measurements",
        "stop it (see top), or wait until the load average has fallen",
    )  # fmt: skip


def _disk() -> Check:
    root = cache_root()
    parent = next(path for path in (root, *root.parents) if path.exists())
    free_gib = shutil.disk_usage(parent).free / 2**30
    enough = free_gib >= NEEDED_GIB
    return Check(
        "disk", "ok" if enough else "missing", f"{whole(free_gib)} GiB free at {root}",
        "" if enough else f"free {NEEDED_GIB} GiB, or point HARNESS_CACHE_DIR elsewhere",
    )  # fmt: skip


def _server() -> Check:
    from harness.serving.embedded.environment import find_server_environment

    try:
        environment = find_server_environment()
    except ServerEnvironmentError as error:
        return Check("embedded Triton", "missing", str(error), error.next_step)
    if environment is None:
        return Check(
            "embedded Triton", "note", "not installed yet (installed on first use)",
            "harness doctor --prepare",
        )  # fmt: skip
    return Check("embedded Triton", "ok", str(environment.tritonserver))


def _table(findings: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "subject", "what was found", "how to fix it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = {"ok": "green", "missing": "bold red"}.get(finding.state, "yellow")
        state = f"[{style}]{finding.state}[/]"
        table.add_row(state, *map(escape, (finding.subject, finding.detail, finding.mend)))
    return table

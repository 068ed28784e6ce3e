"""harness worker: a load generator for a load that is driven from another machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from harness.cli.console import say
from harness.load.generators.master_endpoint import join_token, parse_allowed, parse_endpoint
from harness.load.generators.process import WORKER


def worker(
    join: Annotated[
        list[str],
        typer.Option(
            metavar="HOST[:PORT]",
            help="Where a master listens; may be repeated: the first that answers is joined. Port "
            "5557 unless given.",
            show_default=False,
        ),
    ],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Send load to this address only; may be repeated. Default: wherever the master "
            "says.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Leave when the master is gone; default: wait for one.")
    ] = False,
) -> int:
    """Generate load for a harness load, run or sweep that runs on another machine with --listen.

    It needs the base install alone: what is sent, and what must come back, comes from the master.
    Both need the same secret in the environment variable HARNESS_JOIN_TOKEN, unless they are on
    one machine.
    """
    endpoints = [parse_endpoint(one, "--join") for one in join]
    join_token(endpoints)
    arguments = [f"--join={one}" for one in endpoints]
    for one in allow or ():
        parse_allowed(one)
        arguments.append(f"--allow={one}")
    if once:
        arguments.append("--once")
    say(f"worker of harness, process {os.getpid()}")
    sys.stdout.flush()
    # The same process goes on as a worker: the harness itself never imports Locust.
    os.execv(sys.executable, [sys.executable, "-m", WORKER, *arguments])  # noqa: S606

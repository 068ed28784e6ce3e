"""What the processes that the harness starts have in common: pipes, cores, the log."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import BinaryIO

from gevent.fileobject import FileObjectPosix


def reserve_standard_output() -> BinaryIO:
    """Keep standard output for answers: what anything else prints goes to the log.

    Cooperative, because a parent that is slow to read must not hold everything up.
    """
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answers: BinaryIO = FileObjectPosix(own, "wb", buffering=0)
    return answers


def log_to_standard_error() -> None:
    """With the time of every line."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def stay_on(cpus: str) -> None:
    """Run on these CPUs only: threads that are there already as well as those to come.

    Args:
        cpus: their numbers, with commas.
    """
    numbers = {int(cpu) for cpu in cpus.split(",")}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), numbers)

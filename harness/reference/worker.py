"""A training process: `python -m harness.reference.worker PARENT`, a `Job` on standard input.

A separate process, because torch's thread count and random state belong to a process, and two
families that train side by side with one thread each use two cores better than one after the
other with two.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from typing import NoReturn, TextIO

from harness.errors import EXIT_INTERRUPTED, HarnessError
from harness.reference.processes import Advanced, Failed, Job
from harness.reference.units import BuildUnit, all_units, make_folder
from harness.system.parents import die_with

MESSAGE_INTERVAL_S = 0.25


def run_job(job: Job, messages: TextIO) -> None:
    """Makes the job's units and tells the progress."""
    units = all_units(job.root, job.recipes, seed=job.seed)
    for name in job.units:
        unit = units[name]
        voice = _Voice(unit, messages)
        make_folder(job.root / name, partial(unit.write, advance=voice))
        voice.flush()


class _Voice:
    """Gathers a unit's small steps into a few lines per second."""

    def __init__(self, unit: BuildUnit, messages: TextIO) -> None:
        self._unit = unit.name
        self._messages = messages
        self._cost_ms = 0.0
        self.flush()

    def __call__(self, cost_ms: float) -> None:
        self._cost_ms += cost_ms
        if time.monotonic() - self._told > MESSAGE_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Send what has gathered."""
        _send(self._messages, Advanced(self._unit, self._cost_ms))
        self._cost_ms = 0.0
        self._told = time.monotonic()


def _claim_standard_output() -> TextIO:
    """The pipe to the parent; what libraries print goes to the log instead."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return messages


def _send(messages: TextIO, message: Advanced | Failed) -> None:
    messages.write(message.to_json() + "\n")
    messages.flush()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the job of standard input; its errors go out as a message."""
    die_with(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, _interrupt)
    messages = _claim_standard_output()
    try:
        run_job(Job.from_json(sys.stdin.read()), messages)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HarnessError as error:
        _send(messages, Failed(type(error).__name__, str(error), error.next_step))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

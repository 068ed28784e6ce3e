"""A training process: `python -m harness.reference.worker`, a `Job` on standard input.

A process of its own, because torch's thread count and random state belong to a process, and two
families that train side by side with one thread each use two cores better than one after the
other with two.
"""

from __future__ import annotations

import signal
import sys
import time
from functools import partial
from typing import NoReturn

from harness.errors import EXIT_INTERRUPTED, HarnessError
from harness.reference.job import Advanced, Failed, Job
from harness.reference.store import make_folder
from harness.reference.units import Unit, all_units

MESSAGE_INTERVAL_S = 0.25


def run_job(job: Job) -> None:
    """Makes the job's units and tells the progress on standard output."""
    units = all_units(job.root, job.recipes, seed=job.seed)
    for name in job.units:
        unit = units[name]
        voice = _Voice(unit)
        make_folder(job.root / name, partial(unit.write, advance=voice))
        voice.flush()


class _Voice:
    """Gathers a unit's small steps into a few lines a second."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit.name
        self._cost_ms = 0.0
        self.flush()

    def __call__(self, cost_ms: float) -> None:
        self._cost_ms += cost_ms
        if time.monotonic() - self._told > MESSAGE_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Says what has gathered; a parent that is gone ends this process through the pipe."""
        print(Advanced(self._unit, self._cost_ms).to_json(), flush=True)  # noqa: T201  (the pipe)
        self._cost_ms = 0.0
        self._told = time.monotonic()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Runs the job of standard input; its errors go out as a message."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run_job(Job.from_json(sys.stdin.read()))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except HarnessError as error:
        failed = Failed(type(error).__name__, str(error), error.next_step)
        print(failed.to_json(), flush=True)  # noqa: T201  (the pipe)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

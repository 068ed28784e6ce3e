"""Training processes: what they are told, what they say back, and that none is left behind."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
from harness import errors
from harness.errors import EnvironmentFailure, HarnessError
from harness.reference.recipes import Recipe
from harness.types import Role


@dataclass(frozen=True)
class Job:
    """Units to be made by one process, in order, under the store `root`."""

    root: Path
    seed: int
    units: tuple[str, ...]
    recipes: tuple[Recipe, ...]

    def to_json(self) -> str:
        """The order as JSON, as the process reads it from standard input."""
        return json.dumps(asdict(self) | {"root": str(self.root)})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        recipes = tuple(
            Recipe(**{**recipe, "role": Role(recipe["role"])}) for recipe in fields["recipes"]
        )
        return cls(Path(fields["root"]), fields["seed"], tuple(fields["units"]), recipes)


@dataclass(frozen=True)
class Advanced:
    """Work done on a unit since the last message, on the recipes' scale."""

    unit: str
    cost_ms: float

    def to_json(self) -> str:
        """The message as one line of JSON."""
        return json.dumps({"unit": self.unit, "cost_ms": self.cost_ms})


@dataclass(frozen=True)
class Failed:
    """The harness's error that ended the process."""

    kind: str
    message: str
    next_step: str

    def to_json(self) -> str:
        """The message as one line of JSON."""
        return json.dumps({"failed": asdict(self)})

    def to_error(self) -> HarnessError:
        """The error, as the process raised it."""
        kind = getattr(errors, self.kind, EnvironmentFailure)
        error: HarnessError = kind.__new__(kind)
        HarnessError.__init__(error, self.message, next_step=self.next_step)
        return error


def read_message(line: str) -> Advanced | Failed:
    """The message of one line."""
    fields: Mapping[str, object] = json.loads(line)
    if "failed" in fields:
        failed = fields["failed"]
        assert isinstance(failed, dict)  # noqa: S101  (what Failed.to_json wrote)
        return Failed(**failed)
    return Advanced(str(fields["unit"]), float(str(fields["cost_ms"])))


WORKER = "harness.reference.worker"
STOP_TIMEOUT_S = 10.0
_LOG_LINES = 8


def run_jobs(jobs: Sequence[Job], tell: Callable[[Advanced], None]) -> None:
    """Runs all jobs side by side until the last is done; the first failure stops the others.

    Args:
        jobs: One process each.
        tell: Hears of every advance, in this thread.

    Raises:
        HarnessError: what a process raised.
        EnvironmentFailure: a process ended without a word; the message has its last lines.
    """
    lines: queue.Queue[tuple[_Process, str | None]] = queue.Queue()
    processes: list[_Process] = []
    try:
        processes.extend(_Process(job, lines) for job in jobs)
        running = len(processes)
        while running:
            process, line = lines.get()
            if line is None:
                process.expect_success()
                running -= 1
                continue
            message = read_message(line)
            if not isinstance(message, Advanced):
                raise message.to_error()
            tell(message)
    finally:
        for process in processes:
            process.stop()


class _Process:
    """One training process and the thread that listens to it."""

    def __init__(self, job: Job, lines: queue.Queue[tuple[_Process, str | None]]) -> None:
        self._log = job.root / f"training-{job.units[0]}.log"
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
            )
        assert self._process.stdin is not None  # noqa: S101  (a pipe, as asked)
        with self._process.stdin as standard_input:
            standard_input.write(job.to_json())
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    def _listen(self, lines: queue.Queue[tuple[_Process, str | None]]) -> None:
        assert self._process.stdout is not None  # noqa: S101  (a pipe, as asked)
        for line in self._process.stdout:
            lines.put((self, line))
        lines.put((self, None))

    def expect_success(self) -> None:
        """Raises EnvironmentFailure when the process ended with anything but 0."""
        status = self._process.wait()
        if status != 0:
            tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise EnvironmentFailure(
                "a training process of the reference models ended with status "
                f"{status}:\n" + "\n".join(tail[-_LOG_LINES:]),
                next_step=f"run again, finished models are kept; the whole log is {self._log}",
            )

    def stop(self) -> None:
        """Ends the process, by force if it does not listen."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """The caller's, with this very `harness` importable and one thread for every library."""
    paths = [str(Path(harness.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }

"""Resident Locust processes that the harness starts: the switchboard, and generators of its own.

The harness itself never imports Locust, which patches the standard library of the process it is
imported in. A process stays up over many trials, because starting one takes seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from harness.errors import GeneratorError
from harness.load.generators.generator import Generator, OrderLine
from harness.load.generators.master_endpoint import TOKEN_VARIABLE, MasterEndpoint

SWITCHBOARD = "harness_locust.switchboard"
WORKER = "harness_locust.worker_process"
START_TIMEOUT_S = 60.0
"""Importing Locust takes 2 s; several times that where the machine is busy."""
STOP_TIMEOUT_S = 3.0
LAST_LINES = 12
_started = count()


@dataclass(frozen=True)
class ProcessHome:
    """What the processes of one switchboard have in common."""

    log_dir: Path
    cpus: tuple[int, ...]
    """The only CPUs they may run on; empty for all."""
    endpoint: MasterEndpoint
    """Where the switchboard listens."""
    token: str
    """By which one joins; in their environment alone."""


class GeneratorProcess(Generator):
    """A generator that is a child of this process; what it prints goes to its log file.

    Args:
        index: its number, for messages and the log's name.
        switchboard: that it joins.
        home: how.
    """

    def __init__(self, index: int, switchboard: OrderLine, home: ProcessHome) -> None:
        super().__init__(index, switchboard, f"load generator {index}")
        self.label = f"{index}-{next(_started)}"
        """By which it is known when it joins."""
        self.log_file = home.log_dir / f"generator-{index}.log"
        arguments = ["--join", str(home.endpoint), "--label", self.label, "--once"]
        self._process = start_process(WORKER, arguments, self.log_file, home)
        self.pid = self._process.pid
        self._ends = os.pidfd_open(self.pid)

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def fileno(self) -> int:
        """A file descriptor that is readable when the process has ended."""
        return self._ends

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            GeneratorError: it died.
        """
        if not self.alive:
            raise self.failure(f"died: {how_it_ended(self._process.returncode)}")

    def failure(self, what: str) -> GeneratorError:
        """An error that names the process and quotes the end of its log."""
        return failure_of(f"{self.name} (process {self.pid}) {what}", self.log_file)

    def kill(self) -> None:
        """End it at once, with all it started."""
        if self.alive:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._ends >= 0:
            ends, self._ends = self._ends, -1
            os.close(ends)

    def stop(self) -> None:
        """End it in order; killed if it does not."""
        with suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT_S)
        self.kill()


def start_process(
    module: str,
    arguments: Sequence[str],
    log_file: Path,
    home: ProcessHome,
    *,
    pipes: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a Python of this very harness, installed or not.

    Args:
        module: that it runs.
        arguments: of it; this process's id and the CPUs are added.
        log_file: takes what it prints; a restarted process appends.
        home: where it belongs.
        pipes: whether its standard input and output are pipes.
    """
    # -P: whatever lies in the folder that somebody is in.
    command = [sys.executable, "-P", "-m", module, *arguments, "--parent", str(os.getpid())]
    if home.cpus:
        command += ["--cpus", ",".join(str(cpu) for cpu in home.cpus)]
    package_root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(filter(None, [str(package_root), os.environ.get("PYTHONPATH")]))
    token = {TOKEN_VARIABLE: home.token}
    inherited = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else log,
            stderr=log,
            # Nothing here multiplies matrices; numpy would keep a thread a core for it.
            env={**inherited, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **token},
            # Ctrl-C reaches the whole foreground group: who stops, and when, is decided here.
            start_new_session=True,
        )


def failure_of(what: str, log_file: Path) -> GeneratorError:
    """An error that quotes the end of a log."""
    log = log_file.read_text(errors="replace").splitlines()[-LAST_LINES:]
    quoted = "".join(f"\n  | {line}" for line in log)
    return GeneratorError(f"{what}{quoted}", next_step=f"its whole log is {log_file}")


def how_it_ended(status: int | None) -> str:
    """A process's exit status in words."""
    if status is None:
        return "it closed its answers"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"

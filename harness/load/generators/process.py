"""One resident Locust process, seen from the harness: started, spoken to, ended.

The harness itself never imports Locust, which patches the standard library of the process it is
imported in. A process stays up over many trials, because starting one takes seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path

from harness.errors import GeneratorError
from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    Order,
    decode_answer,
    encode_order,
)

SESSION = "harness_locust.session"
START_TIMEOUT_S = 60.0
"""Importing Locust takes 2 s; several times that where the machine is busy."""
STOP_TIMEOUT_S = 3.0
LAST_LINES = 12
_READ_BYTES = 1 << 20


class GeneratorProcess:
    """A Locust process: orders in, answers out, everything else in its log file.

    Args:
        index: its number, for messages and the log's name.
        log_dir: where its log goes; a restarted process appends.
        cpus: the only CPUs it may run on.
    """

    def __init__(self, index: int, log_dir: Path, cpus: Sequence[int] | None) -> None:
        self.index = index
        self.log_file = log_dir / f"generator-{index}.log"
        self._cpus = cpus
        self._received = b""
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Process identifier."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def fileno(self) -> int:
        """File descriptor of its answers, so that several processes can be waited for at once."""
        assert self._process.stdout is not None  # noqa: S101  (it was opened as a pipe)
        return self._process.stdout.fileno()

    def send(self, order: Order) -> None:
        """Give an order.

        Raises:
            GeneratorError: it is dead.
        """
        assert self._process.stdin is not None  # noqa: S101  (it was opened as a pipe)
        try:
            self._process.stdin.write(encode_order(order))
            self._process.stdin.flush()
        except OSError as error:
            raise self.failure("cannot be reached") from error

    def receive(self) -> None:
        """Read what has come; `take_answer` has it once it is whole.

        Raises:
            GeneratorError: it died, or said that it failed.
        """
        piece = os.read(self.fileno(), _READ_BYTES)
        if not piece:
            self._process.wait(STOP_TIMEOUT_S)
            raise self.failure(f"died: {_how_it_ended(self._process.returncode)}")
        self._received += piece

    def take_answer(self) -> GeneratorAnswer | None:
        """The next answer, if it has come.

        Raises:
            GeneratorError: it says that it failed.
        """
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return None
        self._received = rest
        answer = decode_answer(line)
        if isinstance(answer, GeneratorFailed):
            raise self.failure(f"failed: {answer.message}")
        return answer

    def failure(self, what: str) -> GeneratorError:
        """An error that names the process and quotes the end of its log."""
        log = self.log_file.read_text(errors="replace").splitlines()[-LAST_LINES:]
        quoted = "".join(f"\n  | {line}" for line in log)
        return GeneratorError(
            f"load generator {self.index} (process {self.pid}) {what}{quoted}",
            next_step=f"its whole log is {self.log_file}",
        )

    def kill(self) -> None:
        """End it at once, with all it started."""
        if self.alive:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """End it in order: it leaves when its orders end; killed if it does not."""
        assert self._process.stdin is not None  # noqa: S101  (it was opened as a pipe)
        try:
            self._process.stdin.close()
            self._process.wait(STOP_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            pass  # dead or deaf: killed either way
        finally:
            self.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", SESSION, "--parent", str(os.getpid())]
        if self._cpus:
            command += ["--cpus", ",".join(str(cpu) for cpu in self._cpus)]
        # The very harness that speaks to it, installed or not.
        package_root = Path(__file__).resolve().parents[3]
        path = os.pathsep.join(filter(None, [str(package_root), os.environ.get("PYTHONPATH")]))
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Nothing here multiplies matrices; numpy would keep a thread a core for it.
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                # Ctrl-C reaches the whole foreground group: who stops, and when, is decided here.
                start_new_session=True,
            )

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # an order that nobody will read any more
                    pipe.close()


def gather(processes: Sequence[GeneratorProcess], *, deadline_ns: int) -> list[GeneratorAnswer]:
    """Wait for one answer of each process, in their order.

    Args:
        processes: those that were given an order.
        deadline_ns: CLOCK_MONOTONIC.

    Raises:
        GeneratorError: one died, failed, or had not answered by the deadline.
    """
    answers: dict[int, GeneratorAnswer] = {}
    while len(answers) < len(processes):
        waiting = [process for process in processes if process.index not in answers]
        if time.monotonic_ns() >= deadline_ns:
            raise waiting[0].failure("hangs: it does not answer")
        answers.update(take_answers(waiting, until_ns=deadline_ns, most=1))
    return [answers[process.index] for process in processes]


def take_answers(
    processes: Sequence[GeneratorProcess], *, until_ns: int, most: int | None = None
) -> list[tuple[int, GeneratorAnswer]]:
    """What has come of these processes, by their index; waits until something has, or the time.

    Args:
        processes: those that are listened to.
        until_ns: CLOCK_MONOTONIC.
        most: answers of each process; the rest stays for the next call.

    Raises:
        GeneratorError: one died or failed.
    """
    taken = _taken(processes, most)
    remaining_s = (until_ns - time.monotonic_ns()) / 1e9
    if not taken and remaining_s > 0:
        _receive(processes, timeout_s=remaining_s)
        taken = _taken(processes, most)
    return taken


def _taken(
    processes: Sequence[GeneratorProcess], most: int | None
) -> list[tuple[int, GeneratorAnswer]]:
    taken: list[tuple[int, GeneratorAnswer]] = []
    for process in processes:
        for _ in count() if most is None else range(most):
            if (answer := process.take_answer()) is None:
                break
            taken.append((process.index, answer))
    return taken


def _receive(processes: Sequence[GeneratorProcess], *, timeout_s: float) -> None:
    """Take in what comes first; return when something came or the time is over."""
    by_fileno = {process.fileno(): process for process in processes}
    for fileno in wait(list(by_fileno), timeout_s):
        assert isinstance(fileno, int)  # noqa: S101  (wait returns what it was given)
        by_fileno[fileno].receive()


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "it closed its answers"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"

"""The embedded server's process: started, watched, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from harness.errors import ServerError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_LOG_LINES = 12


class ServerProcess:
    """A started server.

    The kernel sends the parent-death signal that `launcher.py` asks for when the *thread* that
    started the child ends. So each server has its own thread, which starts it and waits. It leaves
    the ended process unreaped until `stop` or `kill`: before that the kernel gives its number to
    no other process, so the group that is killed by it is the server's own.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        python: Path,
        environment: Mapping[str, str],
        log_file: Path,
        cpus: Sequence[int] | None = None,
    ) -> None:
        pinned = ",".join(map(str, cpus)) if cpus else "-"
        launcher = [str(python), "-I", "-S", str(_LAUNCHER), str(os.getpid()), pinned]
        self._command = [*launcher, *command]
        self._environment = dict(environment)
        self.log_file = log_file
        self._exit_code: int | None = None
        started: Future[subprocess.Popen[bytes]] = Future()
        self._waiter = threading.Thread(
            target=self._start_and_wait, args=(started,), name="server-process", daemon=True
        )
        self._waiter.start()
        try:
            self._process = started.result()
        except OSError as error:
            raise ServerError(
                f"the server cannot be started: {error}",
                next_step=f"look at {python} and {log_file.parent}",
            ) from error

    def _start_and_wait(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            with self.log_file.open("ab") as log:
                # A separate session: Ctrl-C in the terminal is for the harness to handle.
                process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert end is not None  # noqa: S101  (None is WNOHANG's)
        self._exit_code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    @property
    def pid(self) -> int:
        """The server's process, and the number of its process group."""
        return self._process.pid

    def exit_status(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        code = self._exit_code
        if code is None:
            return None
        return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"

    def last_log_lines(self) -> str:
        """The last lines of the log that are not empty."""
        with suppress(OSError), self.log_file.open(encoding="utf-8", errors="replace") as log:
            return "".join(
                deque((line for line in log if line.strip()), maxlen=_LOG_LINES)
            ).rstrip()
        return "(the log cannot be read)"

    def stop(self, grace_s: float) -> None:
        """SIGTERM; after the grace, or when it ended in disorder, SIGKILL to its whole group.

        To end before it was asked is disorder, whatever its exit status: nobody then ended the
        processes that it had started.
        """
        if not self.stopped and self.exit_status() is None:
            os.kill(self.pid, signal.SIGTERM)
            self._waiter.join(grace_s)
            if self._exit_code == 0:
                self._process.wait()
        self.kill()

    def kill(self) -> None:
        """SIGKILL to its whole group, once: what was killed or stopped before is left alone."""
        if not self.stopped:
            os.killpg(self.pid, signal.SIGKILL)
            self._waiter.join()
            self._process.wait()

    @property
    def stopped(self) -> bool:
        """Whether `stop` or `kill` has ended it; one that died by itself waits for them."""
        return self._process.returncode is not None


def isolated_environment(python: Path, library_path: str) -> dict[str, str]:
    """This process's environment without the variables that would mislead the stub's Python.

    A `PYTHONPATH` of the harness's would give the stub numpy 2, with which Triton answers empty
    tensors. The stub finds its packages by the first `python3` on PATH.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("PYTHON") and key != "VIRTUAL_ENV"
    }
    libraries = [library_path, kept.get("LD_LIBRARY_PATH", "")]
    return {
        **kept,
        "PATH": f"{python.parent}:{kept.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }

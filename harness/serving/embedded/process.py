"""One child process that ends with the harness, whatever ends the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from harness.errors import ServerError

_LAUNCHER = Path(__file__).with_name("launcher.py")


class ServerProcess:
    """A started server.

    The kernel sends the parent-death signal that `launcher.py` asks for when the *thread* that
    started the child ends. So each server has its own thread, which starts it and waits.
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
        self._log_file = log_file
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
            with self._log_file.open("ab") as log:
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
        process.wait()

    @property
    def pid(self) -> int:
        """The server's process, and the number of its process group."""
        return self._process.pid

    def exit_status(self) -> str | None:
        """None while it runs, else how it ended, in words."""
        code = self._process.poll()
        if code is None:
            return None
        return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"

    def stop(self, grace_s: float) -> None:
        """SIGTERM; after the grace, or when it ended in disorder, SIGKILL to its whole group.

        To end before it was asked is disorder, whatever its exit status: nobody then ended the
        processes that it had started.
        """
        ended_by_itself = self._process.poll() is not None
        self._process.terminate()
        self._waiter.join(grace_s)
        if ended_by_itself or self._process.poll() != 0:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._waiter.join()


def isolated_environment(python: Path, library_path: str) -> dict[str, str]:
    """This process's environment variables without what would lead the stub's Python astray.

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

"""A client that runs as a child process, within hard limits of time and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from harness.errors import EnvironmentFailure

MEMORY_LIMIT_BYTES = 4 * 2**30
"""Of address space. perf_analyzer has been seen to take 13 GB and to return nothing."""

_WORDS = 400


class PeerError(EnvironmentFailure):
    """A peer cannot be had here, or failed; its contender is skipped with this line."""


class ClientProcess:
    """A child process from the start of the `with` to its end, where it is killed if it still runs.

    Args:
        command: The program and its arguments.
        variables: Added to this process's environment.
        memory_bytes: The most address space it may have; past it, its allocations fail.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        memory_bytes: int = MEMORY_LIMIT_BYTES,
    ) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(variables or {})}
        self._memory_bytes = memory_bytes

    def __enter__(self) -> Self:
        # A file takes any amount of output; a pipe that nobody reads would stop the client.
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        limits = (self._memory_bytes, self._memory_bytes)
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, limits)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()

    @property
    def pid(self) -> int:
        """Of the client."""
        return self._process.pid

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            PeerError: it ended; with its last words.
        """
        if self._process.poll() is not None:
            raise PeerError(self._ended())

    def wait(self, timeout_s: float) -> str:
        """Wait until it ends by itself; returns all its output.

        Raises:
            PeerError: it failed, or did not end in time.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"{self._name}: not done in {timeout_s:g} s") from error
        if code != 0:
            raise PeerError(self._ended())
        return self._said()

    @property
    def _name(self) -> str:
        return os.path.basename(self._command[0])  # noqa: PTH119  (a name, not a path)

    def _ended(self) -> str:
        words = " ".join(self._said()[-_WORDS:].split())
        return f"{self._name} ended with status {self._process.returncode}: {words}"

    def _said(self) -> str:
        self._output.seek(0)
        return self._output.read()

"""A model in its own fresh process, and the orders that are carried out there.

Processes are forked from one that has the libraries imported (`multiprocessing`'s forkserver), so
what a loading costs in time and memory is the model's, and one model's threads and allocator never
meet another's. Only one of them works at a time.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psutil

from harness.errors import EnvironmentFailure
from harness.profiling.subjects import Opened, Subject

STOP_TIMEOUT_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Opening:
    """What loading a model cost: seconds, and the memory before it."""

    load_s: float
    memory_before_bytes: int
    """Resident memory before the model was loaded."""


@dataclass(frozen=True)
class _Failure:
    reason: str


def preload(*modules: str) -> None:
    """Name what is imported before the first process is forked; later calls change nothing."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", *modules])


def start_forkserver() -> None:
    """Start the process that measuring processes are forked from.

    Returns when it has imported what `preload` named.
    """
    process = multiprocessing.get_context("forkserver").Process(target=gc.collect, daemon=True)
    process.start()
    process.join()


class Worker:
    """A subject in its own process; a context manager.

    Raises:
        EnvironmentFailure: the model cannot be loaded there, or the process died.
    """

    def __init__(self, subject: Subject, threads: int) -> None:
        self.subject = subject
        context = multiprocessing.get_context("forkserver")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(subject, threads, theirs), daemon=True, name=subject.name
        )
        self._process.start()
        theirs.close()
        try:
            self.opening: Opening = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def do(
        self, order: Callable[Concatenate[Opened, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Carry out a function on the loaded model, over there.

        Args:
            order: a function of a module; its first argument is the opened model.
            args: its other arguments.
            kwargs: and those by name.

        Raises:
            EnvironmentFailure: it raised, or the process died.
        """
        try:
            self._connection.send((order, args, kwargs))
        except OSError as error:
            raise self._lost() from error
        answer: T = self._answer()
        return answer

    def close(self) -> None:
        """End the process; closing twice is fine."""
        self._connection.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(answer, _Failure):
            raise EnvironmentFailure(
                f"{self.subject.name} in {self.subject.runtime}: {answer.reason}",
                next_step="see whether memory is short, or leave the model out of the study",
            )
        return answer

    def _lost(self) -> EnvironmentFailure:
        self._process.join(STOP_TIMEOUT_S)
        return EnvironmentFailure(
            f"the process that measured {self.subject.name} in {self.subject.runtime} died "
            f"(exit code {self._process.exitcode})",
            next_step="the kernel may have killed it for using too much memory: see dmesg",
        )


def resident_bytes(_: Opened | None = None) -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _serve(subject: Subject, threads: int, connection: Connection) -> None:
    """The process: load, then carry out orders until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    try:
        subject.prepare(threads)
        gc.collect()
        gc.freeze()
        before_bytes = resident_bytes()
        start = time.perf_counter()
        opened = subject.open()
        connection.send(Opening(time.perf_counter() - start, before_bytes))
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent says it)
        connection.send(_Failure(f"cannot be loaded: {error}"))
        return
    while True:
        try:
            order, args, kwargs = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = order(opened, *args, **kwargs)
        except Exception as error:  # noqa: BLE001
            answer = _Failure(f"{order.__name__}: {error}")
        connection.send(answer)

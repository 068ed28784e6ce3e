"""The harness's side of its switchboard: one pipe through which all load generators are reached.

The switchboard is a process over Locust's master (`harness_locust/switchboard.py`). The generators
are children of this process that join it, or were started elsewhere and join it. A child's end is
seen at once, by its process; that of another when its connection ends or it is not heard of.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

from harness.errors import GeneratorError
from harness.load.generators.clocks import ClockOffset
from harness.load.generators.generator import Generator, JoinedWorker
from harness.load.generators.master_endpoint import MasterEndpoint, join_token, own_endpoint
from harness.load.generators.messages import Order, Prepare
from harness.load.generators.notices import (
    COMMANDS,
    Answered,
    Back,
    ClockKnown,
    Command,
    Dismiss,
    Give,
    Gone,
    Joined,
    Notice,
    RecordsKept,
    Told,
    UnreadableAnswerError,
    decode_notice,
    files_of,
)
from harness.load.generators.process import (
    STOP_TIMEOUT_S,
    SWITCHBOARD,
    GeneratorProcess,
    ProcessHome,
    failure_of,
    how_it_ended,
    start_process,
)

RECORDS_WITHIN_S = 120.0
"""For a worker's records to arrive, or more of them."""
_READ_BYTES = 1 << 20


class Switchboard:
    """The process, and whoever has joined it.

    Args:
        log_dir: it writes `switchboard.log` there, and each generator of its own
            `generator-<n>.log`.
        cpus: the only CPUs that it and its own generators may run on.
        endpoint: where workers that others start join; None for generators of its own alone.
        tell: takes a line that a person should read.

    Raises:
        UsageError: others can reach the endpoint, and there is no token in the environment.
    """

    def __init__(
        self,
        log_dir: Path,
        cpus: Sequence[int] | None,
        *,
        endpoint: MasterEndpoint | None,
        tell: Callable[[str], None],
    ) -> None:
        token = join_token([endpoint]).decode() if endpoint else secrets.token_hex(32)
        self.home = ProcessHome(log_dir, tuple(cpus or ()), endpoint or own_endpoint(), token)
        self.own: list[GeneratorProcess] = []
        """The generators that this process has started."""
        self.tell = tell
        self._records_awaited: dict[str, str] = {}
        """Loads whose records are on their way here, by the key of the generator."""
        self._records_problem = ""
        self._generators: dict[str, Generator] = {}
        self._received = b""
        self._log_file = log_dir / "switchboard.log"
        self._process = start_process(
            SWITCHBOARD,
            ["--listen", str(self.home.endpoint)],
            self._log_file,
            self.home,
            pipes=True,
        )
        commands, answers = self._process.stdin, self._process.stdout
        assert commands is not None and answers is not None  # noqa: S101, PT018  (they are pipes)
        self._commands, self._answers = commands, answers

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def joined(self) -> list[JoinedWorker]:
        """The workers that others have started and that are there, in the order they came in."""
        return [
            one for one in self._generators.values() if isinstance(one, JoinedWorker) and one.alive
        ]

    def revive(self, count: int) -> list[GeneratorProcess]:
        """The first so many generators of its own; those that are gone are started again."""
        for index in range(count):
            if index == len(self.own):
                self.own.append(GeneratorProcess(index, self, self.home))
            elif not self.own[index].alive:
                self.own[index].kill()
                self._generators.pop(self.own[index].key, None)
                self.own[index] = GeneratorProcess(index, self, self.home)
        return self.own[:count]

    def give(self, generator: Generator, order: Order) -> None:
        """Send an order to a generator.

        Raises:
            GeneratorError: the switchboard is dead.
        """
        if isinstance(order, Prepare):
            self._records_problem = ""  # of a load that failed
        elsewhere = isinstance(generator, JoinedWorker)
        if elsewhere and isinstance(order, Prepare) and order.records is not None:
            self._records_awaited[generator.key] = order.load
        files = files_of(order) if elsewhere else ()
        self._command(Give(generator.key, generator.load, order, files))

    def dismiss(self, generator: Generator) -> None:
        """Have a generator end its load."""
        self._records_awaited.pop(generator.key, None)
        with suppress(GeneratorError):
            self._command(Dismiss(generator.key, generator.load))

    def receive(self, listening: Sequence[Generator] = (), *, timeout_s: float) -> None:
        """Take in what comes; return when something came, or the time is over.

        Raises:
            GeneratorError: the switchboard died, or one of those that are listened to.
        """
        own = [one for one in listening if isinstance(one, GeneratorProcess)]
        pipe = self._answers.fileno()
        ready = wait([pipe, *(one.fileno() for one in own)], timeout_s)
        if pipe in ready:
            self._read(pipe)
        for one in own:
            if one.fileno() in ready:
                one.check()
        for other in listening:
            if isinstance(other, JoinedWorker) and other.gone:
                raise other.failure(f"is gone: {other.gone}")

    def close(self) -> None:
        """End it and the generators of its own; closing twice is fine."""
        while self.own:
            self.own.pop().stop()
        with suppress(BrokenPipeError):
            self._commands.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def await_records(self) -> str:
        """Wait for the records that were written elsewhere, which may take longer than the load.

        Returns:
            Why not all of them are here; empty where they are.
        """
        awaited, deadline_s = 0, 0.0
        while self._records_awaited:
            now_s = time.monotonic()
            if len(self._records_awaited) != awaited:
                awaited, deadline_s = len(self._records_awaited), now_s + RECORDS_WITHIN_S
            if now_s >= deadline_s:
                self._records_problem = f"the records of {awaited} workers did not arrive"
                self._records_awaited.clear()
            else:
                self.receive(timeout_s=deadline_s - now_s)
        problem, self._records_problem = self._records_problem, ""
        return problem

    def _command(self, command: Command) -> None:
        try:
            self._commands.write(COMMANDS.dump_json(command) + b"\n")
            self._commands.flush()
        except (OSError, ValueError) as error:
            raise self._failure() from error

    def _read(self, pipe: int) -> None:
        piece = os.read(pipe, _READ_BYTES)
        if not piece:
            raise self._failure()
        *lines, self._received = (self._received + piece).split(b"\n")
        for line in lines:
            try:
                self._take(decode_notice(line))
            except UnreadableAnswerError as error:
                generator = self._generators.get(str(error))
                if generator is not None:
                    raise generator.failure("sends what is no answer") from error

    def _take(self, notice: Notice) -> None:
        if isinstance(notice, Joined):
            self._admit(notice)
            return
        if isinstance(notice, Told):
            self.tell(notice.line)
            return
        generator = self._generators.get(notice.worker)
        if generator is None:
            return
        if isinstance(notice, Answered):
            generator.take(notice.load, notice.answer)
        elif isinstance(notice, ClockKnown):
            generator.clock_read(
                ClockOffset(notice.offset_ns, notice.error_ns), notice.round_trip_ns
            )
        elif isinstance(notice, RecordsKept):
            self._note_records(generator, notice)
        elif isinstance(generator, JoinedWorker):
            self._note_presence(generator, notice)

    def _admit(self, notice: Joined) -> None:
        for one in self.own:
            if one.label == notice.greeting.label:
                self._generators[notice.worker] = one
                one.joined(notice.worker)
                return
        index = sum(isinstance(one, JoinedWorker) for one in self._generators.values())
        new = JoinedWorker(index, self, notice.worker, notice.greeting)
        self._generators[notice.worker] = new
        self.tell(f"{new.name} has joined ({notice.greeting.cores} cores)")

    def _note_presence(self, worker: JoinedWorker, notice: Gone | Back) -> None:
        worker.gone = notice.why if isinstance(notice, Gone) else ""
        if worker.gone and self._records_awaited.pop(worker.key, ""):
            self._records_problem = f"{worker.name} is gone: its records did not come"
        said = f"gone: {worker.gone}" if worker.gone else "back"
        self.tell(f"{worker.name} is {said}")

    def _note_records(self, generator: Generator, notice: RecordsKept) -> None:
        if self._records_awaited.get(generator.key) == notice.load:
            del self._records_awaited[generator.key]
            if notice.problem:
                self._records_problem = f"{generator.name}: {notice.problem}"

    def _failure(self) -> GeneratorError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        ended = how_it_ended(self._process.returncode)
        return failure_of(f"the load generators' switchboard died: {ended}", self._log_file)

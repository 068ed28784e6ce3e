"""Who runs the users: this process by itself, or the workers of a master (`hub_worker.py`).

A worker's users are started by Locust; what they send, and when, the hub tells them (`hub.py`), in
the orders of every load.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner

from harness.errors import EXIT_USAGE, EnvironmentFailure, HarnessError, UsageError
from harness.load.generators.clocks import SAME_CLOCK, ClockOffset
from harness.load.generators.messages import (
    ANSWERS,
    GeneratorFailed,
    LoadEnded,
    LoadProgress,
    Order,
    Prepare,
    Ready,
    StopLoad,
)
from harness.load.generators.notices import Known, RecordsKept, files_of
from harness.load.generators.pool import drain_s
from harness_locust.hub import LoadHub
from harness_locust.load_part import LoadPart
from harness_locust.orders import ProcessRole, measure_order, prepare_order, with_role
from harness_locust.plan import Plan
from harness_locust.results import Results

if TYPE_CHECKING:
    from harness_locust.conductor import Conductor

PREPARE_TIMEOUT_S = 60.0
BACK_WITHIN_S = 10.0
"""At the end, a worker that Locust calls missing is waited for so long after its last word."""
JOINED_WITHIN_S = 5.0
LOOK_EVERY_S = 0.1
SOON_S = 1.0
"""Records that take longer to come are told of."""
ANNOUNCED_WITHIN_S = 60.0
"""A worker that has drained says within that time that its records are whole; then they are asked
for piece by piece, each of which has a limit of its own."""
NS = 1_000_000_000

logger = logging.getLogger("harness")


class LocalFleet:
    """A fleet of one: this process runs the users."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._part: LoadPart | None = None

    def check(self, plan: Plan) -> None:
        """One process can do any plan."""

    def start(self, conductor: Conductor, plan: Plan, results: Results) -> None:
        """Make the traffic ready for the users."""
        take = partial(conductor.take, "this process")
        with TemporaryDirectory() as folder:
            order = prepare_order(plan, ProcessRole(results.test), Path(folder))
            self._part = LoadPart(self._environment, order, take)
            self._part.prepare()
        results.start_ns = time.monotonic_ns()
        self._part.begin(measure_order(plan, results.start_ns))

    def all_run(self) -> bool:
        """Locust has started them one after another by the time it says so."""
        return True

    def drain(self, at_ns: int) -> None:
        """End the load and wait for what is in flight."""
        part = self._part  # two may stop a test, and each waits for its end
        if part is not None:
            part.stop(StopLoad(at_ns))
            part.join()
            part.end()
            self._part = None

    def collect_records(self) -> None:
        """This process has written them where they belong."""


@dataclass
class _Participant:
    """A worker that has a part in the test."""

    late: bool = False
    ready: bool = False
    clock: ClockOffset | None = None
    """Its clock; known once it was told when the test starts."""
    drained: bool = False
    failed: bool = False
    """It has told that it takes no part any more."""
    records_kept: bool = False
    """The master has the records of its requests, or has said why not."""
    gone: bool = False
    """Locust's master calls it missing, or has forgotten it."""


class WorkerFleet:
    """The workers of a master."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._conductor: Conductor | None = None
        self._plan: Plan | None = None
        self._test = ""
        """The test that prepares or runs and is not drained yet; empty for none."""
        self._order: Prepare | None = None
        """The first worker's, of which the others' differ by their parts."""
        self._start_ns = 0
        """Start of that test; 0 while it prepares."""
        self._ends = False
        """Whether its end was asked for: nobody begins any more."""
        self._participants: dict[str, _Participant] = {}
        self._problem: HarnessError | None = None
        self._folder = TemporaryDirectory(prefix="harness-page-")
        """What workers ask for and no file of the test's is."""
        self._hub = LoadHub(runner, self)

    def check(self, plan: Plan) -> None:
        """Refuse an open loop of which a worker would have no part."""
        workers = self._runner.worker_count
        if plan.is_open_loop and plan.workload.concurrency < workers:
            raise UsageError(
                f"--max-in-flight {plan.workload.concurrency} for {workers} workers",
                next_step="every worker needs at least one",
            )

    def start(self, conductor: Conductor, plan: Plan, results: Results) -> None:
        """Have every worker make ready, before Locust tells it to start users.

        The start is one instant, which each worker is told on its own clock: Locust's own message
        reaches workers one after another, and up to half a second later.
        """
        self._conductor, self._problem, self._start_ns = conductor, None, 0
        self._ends = False
        self._participants = {}
        _wait(lambda: all(map(self._has_joined, self._active())), JOINED_WITHIN_S)
        active = list(filter(self._has_joined, self._active()))
        first = ProcessRole(results.test, 0, max(1, len(active)))
        self._order = prepare_order(plan, first, Path(self._folder.name))
        self._plan, self._test = plan, results.test
        self._participants = {one: _Participant() for one in active}
        for place, key in enumerate(active):
            self._prepare(key, plan, ProcessRole(results.test, place, len(active)))
        try:
            _wait(lambda: self._problem is not None or not self._unready(), PREPARE_TIMEOUT_S)
            problem: HarnessError | None = self._problem  # a message may have brought it meanwhile
            if problem is not None:
                raise problem
        except BaseException:  # somebody who presses "stop" has Locust kill this
            self._plan, self._test = None, ""
            for key in active:
                self._hub.dismiss(key, results.test)
            raise
        for key in self._unready():
            logger.error("%s is not ready in time: it starts late", self._name(key))
        results.start_ns = self._start_ns = time.monotonic_ns()
        for key, state in self._participants.items():
            if state.ready:
                self._let_begin(key, plan, results)
        gevent.spawn(self._watch, results.test)

    def all_run(self) -> bool:
        """Whether every user of every worker has started, as far as it can be waited for."""
        if any(one.gone for one in self._participants.values()):
            return True
        return self._runner.user_count >= self._runner.target_user_count

    def drain(self, at_ns: int) -> None:
        """End the load on all workers, and wait for their last reports."""
        if self._plan is None:
            return
        self._ends = True
        for key, state in list(self._participants.items()):
            self._give(key, StopLoad((state.clock or SAME_CLOCK).there(at_ns)))
        longest_s = drain_s(self._plan.workload, self._plan.request_timeout_s)
        _wait(lambda: not self._awaited(), longest_s + (at_ns - time.monotonic_ns()) / NS)
        for key in list(self._participants):
            self._note_end(key)
        self._plan = None

    def collect_records(self) -> None:
        """Wait for the records that workers still send, as long as these are there."""
        if self._order is not None and self._order.records is not None:
            _wait(lambda: not self._sending(), SOON_S)
            if late := self._sending():
                logger.info("waiting for the records of %s", ", ".join(map(self._name, late)))
            _wait(lambda: not self._silent(), ANNOUNCED_WITHIN_S)
            _wait(lambda: set(self._sending()) <= set(self._silent()), math.inf)
            for key, state in self._participants.items():
                if state.drained and not state.records_kept:
                    self._lack_records(key, "its records did not come")
        self._test, self._order = "", None

    def told(self, notice: Known) -> None:
        """Who comes and who goes Locust tells; one offset of a clock holds for a whole test."""
        if not isinstance(notice, RecordsKept):
            return
        if notice.problem:
            self._lack_records(notice.worker, notice.problem)
        if notice.load == self._test and notice.worker in self._participants:
            self._participants[notice.worker].records_kept = True

    def answered(self, worker: str, load: str, answer: bytes) -> None:
        """What a worker says to an order."""
        said, state = ANSWERS.validate_json(answer), self._participants.get(worker)
        if isinstance(said, LoadProgress):
            clock = (state and state.clock) or SAME_CLOCK
            if self._conductor is not None:
                self._conductor.take(self._name(worker), clock.told(said))
        elif state is None or load != self._test:
            return
        elif isinstance(said, Ready):
            state.ready = True
            results = self._conductor and self._conductor.results
            if self._start_ns and self._plan and results and not self._ends:
                self._let_begin(worker, self._plan, results)
        elif isinstance(said, LoadEnded):
            state.drained = True
            if said.records_problem:
                self._lack_records(worker, said.records_problem)
        else:
            state.failed = True
            self._note_problem(worker, said)

    def _lack_records(self, key: str, problem: str) -> None:
        if self._conductor is not None:
            self._conductor.note_records_problem(self._name(key), problem)

    def _note_problem(self, key: str, answer: GeneratorFailed) -> None:
        kind = UsageError if answer.exit_code == EXIT_USAGE else EnvironmentFailure
        problem = kind(f"{self._name(key)}: {answer.message}", next_step=answer.next_step)
        if self._start_ns:
            logger.error("%s", problem)
            self._note_lost(key, lost=True)
        self._problem = self._problem or problem

    def _has_joined(self, key: str) -> bool:
        member = self._hub.workers.get(key)
        return member is not None and member.ready

    def _active(self) -> list[str]:
        """Workers that Locust will start users on."""
        clients = self._runner.clients
        return [one.id for one in (*clients.ready, *clients.running, *clients.spawning)]

    def _unready(self) -> list[str]:
        return [
            key
            for key, state in list(self._participants.items())
            if not state.ready and not self._is_gone(key)
        ]

    def _awaited(self) -> list[str]:
        """The processes whose last report may still arrive."""
        return [
            key
            for key, state in list(self._participants.items())
            if not state.drained and not state.failed and not self._is_given_up(key)
        ]

    def _sending(self) -> list[str]:
        """The processes whose records may still arrive."""
        return [
            key
            for key, state in list(self._participants.items())
            if state.drained and not (state.records_kept or state.failed or self._is_given_up(key))
        ]

    def _silent(self) -> list[str]:
        """Those of them that have not said yet that their records are whole."""
        members = self._hub.workers
        return [key for key in self._sending() if self._test in members[key].records]

    def _is_gone(self, key: str) -> bool:
        client = self._runner.clients.get(key)
        return client is None or client.state == STATE_MISSING

    def _is_given_up(self, key: str) -> bool:
        member = self._hub.workers.get(key)
        if member is None or key not in self._runner.clients:
            return True
        silent_ns = time.monotonic_ns() - member.heard_ns
        return self._is_gone(key) and silent_ns > BACK_WITHIN_S * NS

    def _prepare(self, key: str, plan: Plan, role: ProcessRole) -> None:
        assert self._order is not None  # noqa: S101  (start made it)
        self._give(key, with_role(self._order, plan, role))

    def _give(self, key: str, order: Order) -> None:
        self._hub.give(key, self._test, order, files_of(order))

    def _name(self, key: str) -> str:
        """Short, and the same all the time that the master lives."""
        runner: Any = self._runner
        index = runner.get_worker_index(key)
        return f"worker {index} on {key.rpartition('_')[0]}"

    def _let_begin(self, key: str, plan: Plan, results: Results) -> None:
        """Tell a worker when the test has started, or will."""
        state, name, member = self._participants[key], self._name(key), self._hub.workers.get(key)
        if member is None:  # it has left meanwhile
            return
        state.clock = member.clock.at(time.monotonic_ns())
        results.worker(name).clock_error_s = state.clock.error_ns / NS
        if state.clock is not SAME_CLOCK:
            logger.info("the clock of %s is known to %.1f ms", name, state.clock.error_ns / 1e6)
        self._give(key, measure_order(plan, state.clock.there(self._start_ns)))

    def _watch(self, test: str) -> None:
        """See at once who comes and who goes: the master goes on with the others."""
        while self._test == test and self._plan is not None:
            for key, state in list(self._participants.items()):
                if state.gone != self._is_gone(key):
                    state.gone = not state.gone
                    self._note_gone(key, gone=state.gone)
            for key in self._active():
                if self._has_joined(key) and key not in self._participants and not self._ends:
                    place = len(self._participants)
                    self._participants[key] = _Participant(late=True)
                    self._prepare(key, self._plan, ProcessRole(test, place, place + 1, late=True))
            gevent.sleep(LOOK_EVERY_S)

    def _note_gone(self, key: str, *, gone: bool) -> None:
        name = self._name(key)
        if gone:
            logger.warning("%s is gone; the test goes on, and what it had reported is kept", name)
        else:
            logger.warning("%s is back", name)
        self._note_lost(key, lost=gone or self._participants[key].failed)

    def _note_lost(self, key: str, *, lost: bool) -> None:
        if self._conductor is not None and self._conductor.results is not None:
            self._conductor.results.worker(self._name(key)).lost = lost

    def _note_end(self, key: str) -> None:
        """A worker whose last report is not there is lost, whatever else it may do."""
        state, name = self._participants[key], self._name(key)
        if self._conductor is None or self._conductor.results is None:
            return
        results = self._conductor.results
        if state.clock is None and state.late and not state.failed:
            return  # it came, and the test was over before it had begun
        lost = not (state.drained and results.attendance.ended(name))
        results.worker(name).lost = lost
        if lost and not state.failed:
            logger.error("%s: no last report in time", name)


def _wait(true: Callable[[], bool], longest_s: float) -> None:
    """Wait until the condition is true, at most `longest_s`."""
    deadline_s = time.monotonic() + longest_s
    while not true() and time.monotonic() < deadline_s:
        gevent.sleep(0.01)

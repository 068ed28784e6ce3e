"""Who runs the users: this process by itself, or the workers of a master (`worker.py`).

A worker's users are started by Locust; beside Locust's own messages there are these:

- `harness_hello`, from a worker: it understands the messages that follow.
- `harness_role`, to a worker: which part it has of the test that is about to start, or runs.
- `harness_ready`, from a worker: it has read and encoded its payloads.
- `harness_problem`, from a worker: why it cannot take part.
- `harness_clock`, to a worker and back: what its clock shows.
- `harness_begin`, to a worker: when the test starts, on that worker's clock.
- `harness_report`, from a worker: additions, every second, numbered.
- `harness_drain`, to a worker: from when on it sends nothing; then it reports for the last time.
- `harness_drained`, from a worker: that report went before this.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sized
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner

from harness.errors import EXIT_USAGE, EnvironmentFailure, HarnessError, UsageError
from harness.load.generators.clocks import (
    SAME_CLOCK,
    ClockOffset,
    Exchange,
    offset_of,
    this_machine,
)
from harness.load.generators.messages import StopLoad, decode_answer
from harness_locust.load_part import LoadPart
from harness_locust.orders import ProcessRole, measure_order, prepare_order
from harness_locust.plan import Plan
from harness_locust.results import Results

if TYPE_CHECKING:
    from harness_locust.conductor import Conductor

PREPARE_TIMEOUT_S = 60.0
GRACE_S = 5.0
"""Seconds beyond the request timeout in which every worker has drained."""
BACK_WITHIN_S = 10.0
"""At the end, a worker that Locust calls missing is waited for so long after its last word."""
HELLO_WITHIN_S = 5.0
CLOCK_QUESTIONS = 8
"""Questions to a worker on another machine; the fastest of them tell how well its clock is
known."""
CLOCK_WITHIN_S = 1.0
LOOK_EVERY_S = 0.1
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
        if self._part is not None:
            self._part.stop(StopLoad(at_ns))
            self._part.join()
            self._part.end()
            self._part = None


@dataclass
class _Participant:
    """A worker that has a part in the test."""

    late: bool = False
    ready: bool = False
    clock: ClockOffset | None = None
    """Its clock; known once it was told when the test starts."""
    drained: bool = False
    gone: bool = False
    """Locust's master calls it missing, or has forgotten it."""
    exchanges: list[Exchange] = field(default_factory=list)
    same_machine: bool = False


class WorkerFleet:
    """The workers of a master."""

    def __init__(self, environment: Environment, runner: MasterRunner) -> None:
        self._environment, self._runner = environment, runner
        self._conductor: Conductor | None = None
        self._plan: Plan | None = None
        self._test = ""
        """The test that prepares or runs and is not drained yet; empty for none."""
        self._start_ns = 0
        """Start of that test; 0 while it prepares."""
        self._greeted: set[str] = set()
        """Client ids of the workers that understand us."""
        self._participants: dict[str, _Participant] = {}
        self._heard_ns: dict[str, int] = {}
        self._problem: HarnessError | None = None
        for name, listener in {
            "hello": self._on_hello,
            "ready": self._on_ready,
            "drained": self._on_drained,
            "problem": self._on_problem,
            "clock": self._on_clock,
            "report": self._on_report,
        }.items():
            runner.register_message(f"harness_{name}", listener)

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
        self._conductor, self._plan, self._test = conductor, plan, results.test
        self._problem, self._start_ns, self._participants = None, 0, {}
        _wait(lambda: self._greeted.issuperset(self._active()), HELLO_WITHIN_S)
        active = [one for one in self._active() if one in self._greeted]
        self._participants = {one: _Participant() for one in active}
        for place, client_id in enumerate(active):
            self._tell(client_id, ProcessRole(results.test, place, len(active)))
        _wait(lambda: self._problem is not None or not self._unready(), PREPARE_TIMEOUT_S)
        problem: HarnessError | None = self._problem  # a message may have brought it meanwhile
        if problem is not None:
            self._plan, self._test = None, ""
            raise problem
        for client_id in self._unready():
            logger.error("%s is not ready in time: it starts late", self._name(client_id))
        ready = [one for one, state in self._participants.items() if state.ready]
        self._compare_clocks(ready)
        results.start_ns = self._start_ns = time.monotonic_ns()
        for client_id in ready:
            self._let_begin(client_id, results)
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
        for client_id, state in list(self._participants.items()):
            clock = state.clock or SAME_CLOCK
            message = {"test": self._test, "at_ns": clock.there(at_ns)}
            self._runner.send_message("harness_drain", message, client_id)
        longest_s = self._plan.request_timeout_s + GRACE_S
        _wait(lambda: not self._awaited(), longest_s + (at_ns - time.monotonic_ns()) / NS)
        for client_id in list(self._participants):
            self._note_end(client_id)
        self._plan, self._test = None, ""

    def _active(self) -> list[str]:
        """Workers that Locust will start users on."""
        clients = self._runner.clients
        return [one.id for one in (*clients.ready, *clients.running, *clients.spawning)]

    def _unready(self) -> list[str]:
        return [
            client_id
            for client_id, state in list(self._participants.items())
            if not state.ready and not self._is_gone(client_id)
        ]

    def _awaited(self) -> list[str]:
        """The processes whose last report may still arrive."""
        return [
            client_id
            for client_id, state in list(self._participants.items())
            if not state.drained and not self._is_given_up(client_id)
        ]

    def _is_gone(self, client_id: str) -> bool:
        client = self._runner.clients.get(client_id)
        return client is None or client.state == STATE_MISSING

    def _is_given_up(self, client_id: str) -> bool:
        silent_ns = time.monotonic_ns() - self._heard_ns.get(client_id, 0)
        forgotten = client_id not in self._runner.clients
        return forgotten or (self._is_gone(client_id) and silent_ns > BACK_WITHIN_S * NS)

    def _tell(self, client_id: str, role: ProcessRole) -> None:
        options = self._environment.parsed_options
        message = {
            "role": asdict(role),
            "host": self._environment.host,
            "options": vars(options) if options is not None else {},
        }
        self._runner.send_message("harness_role", message, client_id)

    def _name(self, client_id: str) -> str:
        """Short, and the same all the time that the master lives."""
        runner: Any = self._runner
        index = runner.get_worker_index(client_id)
        return f"worker {index} on {client_id.rpartition('_')[0]}"

    def _compare_clocks(self, clients: Collection[str]) -> None:
        """Ask each what its clock shows: one on this machine once, another several times."""
        for question in range(1, CLOCK_QUESTIONS + 1):
            asked = [
                client_id
                for client_id in clients
                if question == 1 or not self._participants[client_id].same_machine
            ]
            for client_id in asked:
                message = {"test": self._test, "asked_ns": time.monotonic_ns()}
                self._runner.send_message("harness_clock", message, client_id)
            answers = [self._participants[client_id].exchanges for client_id in asked]
            _wait(partial(_all_have, answers, question), CLOCK_WITHIN_S)

    def _let_begin(self, client_id: str, results: Results) -> None:
        """Tell a worker when the test has started, or will."""
        state, name = self._participants[client_id], self._name(client_id)
        if not state.exchanges:
            logger.error("%s does not report its clock and is left out", name)
            return
        state.clock = offset_of(state.exchanges, same_machine=state.same_machine)
        results.worker(name).clock_error_s = state.clock.error_ns / NS
        if state.clock is not SAME_CLOCK:
            logger.info("the clock of %s is known to %.1f ms", name, state.clock.error_ns / 1e6)
        message = {"test": self._test, "start_ns": state.clock.there(self._start_ns)}
        self._runner.send_message("harness_begin", message, client_id)

    def _let_begin_late(self, client_id: str, test: str) -> None:
        self._compare_clocks([client_id])
        if self._conductor is not None and self._conductor.results and self._test == test:
            self._let_begin(client_id, self._conductor.results)

    def _watch(self, test: str) -> None:
        """See at once who comes and who goes: the master goes on with the others."""
        while self._test == test:
            for client_id, state in list(self._participants.items()):
                if state.gone != self._is_gone(client_id):
                    state.gone = not state.gone
                    self._note_gone(client_id, gone=state.gone)
            for client_id in self._active():
                if client_id in self._greeted and client_id not in self._participants:
                    place = len(self._participants)
                    self._participants[client_id] = _Participant(late=True)
                    self._tell(client_id, ProcessRole(test, place, place + 1, late=True))
            gevent.sleep(LOOK_EVERY_S)

    def _note_gone(self, client_id: str, *, gone: bool) -> None:
        name = self._name(client_id)
        if gone:
            logger.warning("%s is gone; the test goes on, and what it had reported is kept", name)
        else:
            logger.warning("%s is back", name)
        if self._conductor is not None and self._conductor.results is not None:
            self._conductor.results.worker(name).lost = gone

    def _note_end(self, client_id: str) -> None:
        """A worker whose last report is not there is lost, whatever else it may do."""
        state, name = self._participants[client_id], self._name(client_id)
        if self._conductor is None or self._conductor.results is None:
            return
        results = self._conductor.results
        if state.clock is None and state.late:
            return  # it came, and the test was over before it had begun
        lost = not (state.drained and results.attendance.ended(name))
        results.worker(name).lost = lost
        if lost:
            logger.error("%s: no last report in time", name)

    def _on_hello(self, msg: Any, **_: Any) -> None:
        self._greeted.add(msg.node_id)

    def _on_ready(self, msg: Any, **_: Any) -> None:
        if (state := self._state_of(msg)) is None:
            return
        state.ready = True
        if self._start_ns:
            gevent.spawn(self._let_begin_late, msg.node_id, self._test)

    def _on_clock(self, msg: Any, **_: Any) -> None:
        answered_ns = time.monotonic_ns()
        if (state := self._state_of(msg)) is None:
            return
        state.same_machine = bool(msg.data["machine"]) and msg.data["machine"] == this_machine()
        exchange = Exchange(msg.data["asked_ns"], msg.data["shown_ns"], answered_ns)
        state.exchanges.append(exchange)

    def _on_drained(self, msg: Any, **_: Any) -> None:
        if (state := self._state_of(msg)) is not None:
            state.drained = True

    def _on_report(self, msg: Any, **_: Any) -> None:
        self._heard_ns[msg.node_id] = time.monotonic_ns()
        if self._conductor is not None:
            state = self._participants.get(msg.node_id)
            clock = (state and state.clock) or SAME_CLOCK
            for line in msg.data["reports"].splitlines():
                self._conductor.take(self._name(msg.node_id), clock.told(decode_answer(line)))

    def _on_problem(self, msg: Any, **_: Any) -> None:
        said = f"{self._name(msg.node_id)}: {msg.data['message']}"
        kind = UsageError if msg.data["exit_code"] == EXIT_USAGE else EnvironmentFailure
        problem = kind(said, next_step=msg.data["next_step"])
        if self._start_ns:
            logger.error("%s", problem)
        self._problem = self._problem or problem

    def _state_of(self, msg: Any) -> _Participant | None:
        """The state of a message's sender; None where it is not about the running test."""
        self._heard_ns[msg.node_id] = time.monotonic_ns()
        return self._participants.get(msg.node_id) if msg.data["test"] == self._test else None


def _all_have(answers: Iterable[Sized], count: int) -> bool:
    return all(len(one) >= count for one in answers)


def _wait(true: Callable[[], bool], longest_s: float) -> None:
    """Wait until the condition is true, at most `longest_s`."""
    deadline_s = time.monotonic() + longest_s
    while not true() and time.monotonic() < deadline_s:
        gevent.sleep(0.01)

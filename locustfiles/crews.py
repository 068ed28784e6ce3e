"""Who runs the users: this process by itself, or the workers of a master.

A worker's users are started by Locust; beside Locust's own messages there are these:

- `harness_role`, to a worker: which part it has of the test that is about to start.
- `harness_ready`, from a worker: it has read and encoded its payloads.
- `harness_problem`, from a worker: why it cannot take part.
- `harness_drain`, to all: send nothing more, report for the last time.
- `harness_drained`, from a worker: that report went before this.

Reports travel with Locust's own (`report_to_master`), as additions.
"""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gevent
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from harness.errors import EXIT_USAGE, EnvironmentFailure, HarnessError, UsageError
from plan import Plan, make_plan
from process_load import REPORT_EVERY_S, ProcessLoad, Role
from results import Results, WorkerReport, decode_reports, encode_reports

if TYPE_CHECKING:
    from conductor import Conductor

KEY = "harness"
"""Of our part of Locust's report."""
PREPARE_TIMEOUT_S = 60.0
GRACE_S = 5.0
"""Beyond the request timeout, in which every worker has drained."""

logger = logging.getLogger("harness")


class LocalCrew:
    """This process runs the users."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._load: ProcessLoad | None = None

    def check(self, plan: Plan) -> None:
        """One process can do any plan."""

    def start(self, conductor: Conductor, plan: Plan, results: Results) -> None:
        """Make ready for users."""
        self._load = ProcessLoad(
            self._environment,
            plan,
            Role(results.test),
            lambda report: conductor.take("this process", report),
        )
        self._load.start()

    def drain(self) -> None:
        """End the load."""
        if self._load is not None:
            self._load.drain()
            self._load.finish()
            self._load = None


class WorkerCrew:
    """The workers of a master."""

    def __init__(self, environment: Environment, runner: MasterRunner) -> None:
        self._environment, self._runner = environment, runner
        self._conductor: Conductor | None = None
        self._plan: Plan | None = None
        self._test = ""
        self._start_ns = 0
        self._aboard: set[str] = set()
        """Client ids of the workers in the test."""
        self._answered: set[str] = set()
        """Those that have done what they were last asked for."""
        self._problem: HarnessError | None = None
        events: Any = environment.events  # Locust's hooks are untyped
        events.worker_report.add_listener(self._on_report)
        events.worker_connect.add_listener(self._on_connect)
        runner.register_message("harness_ready", self._on_answer)
        runner.register_message("harness_drained", self._on_answer)
        runner.register_message("harness_problem", self._on_problem)

    def check(self, plan: Plan) -> None:
        """Refuse an open loop of which a worker would have no part."""
        workers = self._runner.worker_count
        if plan.is_open_loop and plan.workload.concurrency < workers:
            raise UsageError(
                f"--max-in-flight {plan.workload.concurrency} for {workers} workers",
                next_step="every worker needs at least one",
            )

    def start(self, conductor: Conductor, plan: Plan, results: Results) -> None:
        """Have every worker make ready, before Locust tells it to start users."""
        self._conductor, self._plan, self._test = conductor, plan, results.test
        self._problem = None
        clients = self._runner.clients
        ready = [one.id for one in (*clients.ready, *clients.running, *clients.spawning)]
        self._aboard, self._answered = set(ready), set()
        for place, client_id in enumerate(ready):
            self._tell(client_id, Role(results.test, place, len(ready)))
        for client_id in self._wait_for_answers(PREPARE_TIMEOUT_S):
            logger.error("%s is not ready in time: it may start late", self._name(client_id))
        problem: HarnessError | None = self._problem  # a message may have brought it meanwhile
        if problem is not None:
            self._plan, self._test = None, ""
            raise problem
        self._start_ns = time.monotonic_ns()
        gevent.spawn(self._watch, results.test)

    def drain(self) -> None:
        """End the load on all workers, and wait for their last reports."""
        if self._plan is None:
            return
        self._answered = set()
        self._runner.send_message("harness_drain", {"test": self._test})
        for client_id in self._wait_for_answers(self._plan.request_timeout_s + GRACE_S):
            logger.error("%s: no last report in time", self._name(client_id))
        self._plan, self._test = None, ""

    def _wait_for_answers(self, longest_s: float) -> set[str]:
        """Those that have not answered by then, and are not gone either."""
        deadline_s = time.monotonic() + longest_s
        while waiting := {one for one in self._aboard - self._answered if not self._is_gone(one)}:
            if time.monotonic() > deadline_s or self._problem is not None:
                return waiting
            gevent.sleep(0.02)
        return set()

    def _is_gone(self, client_id: str) -> bool:
        client = self._runner.clients.get(client_id)
        return client is None or client.state == STATE_MISSING

    def _tell(self, client_id: str, role: Role) -> None:
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

    def _watch(self, test: str) -> None:
        """Say at once when a worker has gone: the master goes on with the others."""
        lost: set[str] = set()
        while self._test == test:
            for client_id in sorted(one for one in self._aboard - lost if self._is_gone(one)):
                lost.add(client_id)
                self._note_lost(client_id)
            gevent.sleep(REPORT_EVERY_S)

    def _note_lost(self, client_id: str) -> None:
        name = self._name(client_id)
        logger.warning("%s is gone; the test goes on, and what it had reported stays", name)
        if self._conductor is not None and self._conductor.results is not None:
            self._conductor.results.worker(name).lost = True

    def _on_connect(self, client_id: str, **_: Any) -> None:
        """A worker that comes late: its slices begin where the test is by now."""
        if self._conductor is None or not self._conductor.running or not self._test:
            return
        elapsed_s = (time.monotonic_ns() - self._start_ns) / 1e9
        place = len(self._aboard)
        self._aboard.add(client_id)
        self._tell(client_id, Role(self._test, place, place + 1, elapsed_s))

    def _on_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        if self._conductor is None or KEY not in data:
            return
        for report in decode_reports(data[KEY]):
            self._conductor.take(self._name(client_id), report)

    def _on_answer(self, msg: Any, **_: Any) -> None:
        if msg.data["test"] == self._test:
            self._answered.add(msg.node_id)

    def _on_problem(self, msg: Any, **_: Any) -> None:
        said = f"{self._name(msg.node_id)}: {msg.data['message']}"
        kind = UsageError if msg.data["exit_code"] == EXIT_USAGE else EnvironmentFailure
        self._problem = self._problem or kind(said, next_step=msg.data["next_step"])


class Worker:
    """One worker's side of it."""

    def __init__(self, environment: Environment, runner: WorkerRunner) -> None:
        self._environment, self._runner = environment, runner
        self._load: ProcessLoad | None = None
        self._preparing: gevent.Greenlet | None = None
        self._outbox: list[WorkerReport] = []
        events: Any = environment.events  # Locust's hooks are untyped
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(self._on_test_stopping)
        events.report_to_master.add_listener(self._on_report_to_master)
        runner.register_message("harness_role", self._on_role)
        runner.register_message("harness_drain", self._on_drain, concurrent=True)

    def _on_role(self, msg: Any, **_: Any) -> None:
        """Beside, so that Locust's messages are answered meanwhile."""
        self._preparing = gevent.spawn(self._prepare, msg.data)

    def _prepare(self, message: dict[str, Any]) -> None:
        self._end_load()
        role = Role(**message["role"])
        try:
            plan = make_plan(Namespace(**message["options"]), message["host"])
            self._load = ProcessLoad(self._environment, plan, role, self._outbox.append)
        except HarnessError as error:
            logger.error("%s", error)
            problem = {
                "message": str(error),
                "next_step": error.next_step,
                "exit_code": error.exit_code,
            }
            self._runner.send_message("harness_problem", problem)
        else:
            self._runner.send_message("harness_ready", {"test": role.test})

    def _on_test_start(self, **_: Any) -> None:
        if self._preparing is not None:
            self._preparing.join()
        if self._load is None:
            logger.error("no part in this test: the master's log says why")
            return
        self._load.start()

    def _on_drain(self, msg: Any, **_: Any) -> None:
        self._end_load()
        data: dict[str, Any] = {}
        events: Any = self._environment.events
        events.report_to_master.fire(client_id=self._runner.client_id, data=data)
        self._runner.send_message("stats", data)
        self._runner.send_message("harness_drained", msg.data)

    def _on_test_stopping(self, **_: Any) -> None:
        """Locust stops the users; the master has asked for this before, unless it is gone."""
        self._end_load()

    def _end_load(self) -> None:
        if self._load is not None:
            load, self._load = self._load, None
            load.drain()
            load.finish()

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        if self._outbox:
            data[KEY] = encode_reports(self._outbox)
            self._outbox.clear()

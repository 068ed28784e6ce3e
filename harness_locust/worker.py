"""A worker's side of a test: what its master tells it, and what it tells its master.

`fleets.py` is the other side, and names the messages.
"""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from locust import argument_parser, runners
from locust.env import Environment
from locust.exception import RPCError
from locust.runners import WorkerRunner

from harness.errors import GeneratorError, HarnessError
from harness.load.generators.clocks import this_machine
from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    LoadEnded,
    LoadProgress,
    StopLoad,
    encode_answer,
)
from harness_locust.load_part import LoadPart
from harness_locust.orders import ProcessRole, measure_order, prepare_order
from harness_locust.plan import Plan, make_plan
from harness_locust.results import REPORT_EVERY_S
from harness_locust.triton_users import TritonUser

HELLO_EVERY_S = 2.0
USERS_WAIT_S = 60.0
"""Seconds that users wait for the traffic that they are to send."""

logger = logging.getLogger("harness")


class LocustWorker:
    """One worker's side of it."""

    def __init__(self, environment: Environment, runner: WorkerRunner) -> None:
        self._environment, self._runner = environment, runner
        self._part: LoadPart | None = None
        self._plan: Plan | None = None
        self._ready_for = ""
        """The test that `_part` is of."""
        self._known = False
        """The master has given it a part: it has understood the greeting."""
        self._ends = BoundedSemaphore()
        """One load ends before the next is made."""
        self._outbox: list[LoadProgress] = []
        """What could not be sent yet."""
        events: Any = environment.events  # Locust's hooks are untyped
        events.test_stopping.add_listener(self._on_test_stopping)
        runner.register_message("harness_role", self._on_role)
        runner.register_message("harness_clock", self._on_clock)
        runner.register_message("harness_begin", self._on_begin)
        runner.register_message("harness_drain", self._on_drain, concurrent=True)
        TritonUser.patience_s = USERS_WAIT_S
        spare_the_users()
        gevent.spawn(self._greet)

    def _greet(self) -> None:
        """Greet the master until it answers: one that is still starting does not understand yet."""
        while not self._known:
            with suppress(RPCError):
                self._runner.send_message("harness_hello", {})
            gevent.sleep(HELLO_EVERY_S)

    def _on_role(self, msg: Any, **_: Any) -> None:
        """Take a role in a greenlet of its own, so that Locust's messages are answered."""
        self._known = True
        gevent.spawn(self._prepare, msg.data)

    def _prepare(self, message: dict[str, Any]) -> None:
        self._end_load(0)
        role = ProcessRole(**message["role"])
        try:
            self._plan = make_plan(Namespace(**message["options"]), message["host"])
            with TemporaryDirectory() as folder:
                order = prepare_order(self._plan, role, Path(folder))
                self._part = LoadPart(self._environment, order, self._take)
                self._part.prepare()
        except HarnessError as error:
            self._end_load(0)
            self._report_problem(error)
        else:
            self._ready_for = role.test
            self._runner.send_message("harness_ready", {"test": role.test})

    def _report_problem(self, error: HarnessError) -> None:
        logger.error("%s", error)
        self._runner.send_message(
            "harness_problem",
            {
                "message": str(error),
                "next_step": error.next_step,
                "exit_code": error.exit_code,
            },
        )

    def _on_clock(self, msg: Any, **_: Any) -> None:
        shown = {"shown_ns": time.monotonic_ns(), "machine": this_machine()}
        self._runner.send_message("harness_clock", msg.data | shown)

    def _on_begin(self, msg: Any, **_: Any) -> None:
        if self._part is not None and self._plan and self._ready_for == msg.data["test"]:
            self._part.begin(measure_order(self._plan, msg.data["start_ns"]))

    def _on_drain(self, msg: Any, **_: Any) -> None:
        if self._ready_for == msg.data["test"]:
            self._end_load(msg.data["at_ns"])
        data: dict[str, Any] = {}
        events: Any = self._environment.events
        events.report_to_master.fire(client_id=self._runner.client_id, data=data)
        self._runner.send_message("stats", data)
        self._runner.send_message("harness_drained", {"test": msg.data["test"]})

    def _on_test_stopping(self, **_: Any) -> None:
        """Locust stops the users; the master has asked for this before, unless it is gone."""
        self._end_load(0)

    def _end_load(self, at_ns: int) -> None:
        with self._ends:
            if self._part is not None:
                part, self._part = self._part, None
                part.stop(StopLoad(at_ns))
                part.join()
                part.end()

    def _take(self, answer: GeneratorAnswer) -> None:
        if isinstance(answer, LoadProgress):
            self._send(answer)
        elif isinstance(answer, LoadEnded) and answer.records_problem:
            logger.error("%s", answer.records_problem)
        elif isinstance(answer, GeneratorFailed):
            self._report_problem(GeneratorError(answer.message))

    def _send(self, report: LoadProgress) -> None:
        """Send at once; what a broken connection does not take goes with the next message."""
        self._outbox.append(report)
        try:
            reports = b"".join(map(encode_answer, self._outbox))
            self._runner.send_message("harness_report", {"reports": reports})
        except RPCError as error:
            logger.error("a report could not be sent, and is kept: %s", error)
        else:
            self._outbox.clear()


def spare_the_users() -> None:
    """Have Locust do twice what it does often and slowly, in this process.

    For each of its hundred options a worker makes Locust's whole parser again, whenever it is told
    of users: half a second in which no user runs. Its statistics go to the master every three
    seconds, and the page moves no faster.
    """
    module: Any = argument_parser
    module.default_args_dict = cache(module.default_args_dict)
    runners.WORKER_REPORT_INTERVAL = REPORT_EVERY_S

"""One Locust-driven test after another, in the process that people look at.

That is the only process, or the master of several. It plans a test, has a fleet run it, sums what
comes back, and says how it went.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import gevent
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING

from harness.errors import GeneratorError, HarnessError, ObjectiveError, StorageError, UsageError
from harness.load.generators.attendance import note_late
from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    LoadEnded,
    LoadProgress,
)
from harness_locust.plan import Plan, make_plan
from harness_locust.preflight import check_plan
from harness_locust.results import (
    DRAINING,
    MEASURED,
    RAMP_UP,
    Results,
    edge_after,
    edge_before,
)
from harness_locust.summary import as_document, as_text, write_document
from harness_locust.triton_users import USERS, TritonOpenLoopUser, TritonUser
from harness_locust.user_shapes import shape_of

STOP_LEAD_S = 0.05
"""A load ends a moment later, at a slice's edge: every process must have heard of it by then."""

logger = logging.getLogger("harness")


class Fleet(Protocol):
    """Whoever runs the users: this process, or the workers of a master."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that this fleet cannot carry out (UsageError)."""

    def start(self, conductor: Conductor, plan: Plan, results: Results) -> None:
        """Make ready for users, and name the test's start; HarnessError where that cannot be."""

    def all_run(self) -> bool:
        """Whether all users that Locust has started run by now."""

    def drain(self, at_ns: int) -> None:
        """End the load at an instant of this process's clock; on return all of it was reported."""

    def collect_records(self) -> None:
        """Called after `drain`: on return the records are where they were asked for."""


class Watcher:
    """Whoever wants to know how a test goes overrides what it wants to hear; none may take long."""

    def test_begins(self, plan: Plan) -> None:
        """Called before a test sends its first request."""

    def test_began(self, plan: Plan, results: Results) -> None:
        """Called when the clock of a test has started."""

    def reported(self, worker: str, report: LoadProgress) -> None:
        """Called when a process has reported, and its report is in the results."""

    def results_replaced(self, results: Results) -> None:
        """Called when the test's numbers are counted anew from here on."""

    def users_run(self, users: int, *, ramp_up: bool) -> None:
        """Called when so many users of a closed loop run: at first, and after each change.

        Args:
            users: how many.
            ramp_up: nothing is measured yet.
        """

    def phase_changed(self) -> None:
        """Called when it has been decided at what time another phase of the test begins."""

    def test_ended(self) -> None:
        """Called when the test is over, and all of it was reported."""

    def session_ended(self) -> None:
        """No test runs any more; Locust settles on its exit code next."""


class Conductor:
    """Answers Locust's events.

    Args:
        environment: of Locust, with its runner.
        fleet: runs the users.
    """

    def __init__(self, environment: Environment, fleet: Fleet) -> None:
        self.environment = environment
        self.plan: Plan | None = None
        """Plan of the current or last test."""
        self.results: Results | None = None
        self.watchers: list[Watcher] = []
        self._next: Plan | None = None
        self._fleet = fleet
        self._offered = tuple(environment.user_classes)
        """User classes that the command line did not leave out."""
        self._start_ns = self._drained_ns = self._end_ns = 0
        self._stopping = False
        """Whether the end was asked for: no phase begins any more."""
        self._finishing: gevent.Greenlet | None = None
        """What is done of a test that is over; whoever stops it waits for that, and may be killed
        meanwhile, as Locust does with a shape that stops a test when somebody else stops it too."""
        events: Any = environment.events  # Locust's hooks are untyped
        events.test_start.add_listener(self._on_test_start)
        events.spawning_complete.add_listener(self._on_spawning_complete)
        events.test_stopping.add_listener(self._on_test_stopping)
        events.test_stop.add_listener(self._on_test_stop)
        events.reset_stats.add_listener(self._on_reset_stats)
        events.quitting.add_listener(self._on_quitting)
        events.quit.add_listener(self._on_quit)

    @property
    def options(self) -> Namespace:
        """What was typed, or filled into the page's form."""
        options: Namespace | None = self.environment.parsed_options
        assert options is not None  # noqa: S101  (Locust's command has read them)
        return options

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of the current or last test."""
        return ((self._end_ns or time.monotonic_ns()) - self._start_ns) / 1e9

    @property
    def running(self) -> bool:
        """Whether users are being started or run."""
        runner = self.environment.runner
        return runner is not None and runner.state in {STATE_SPAWNING, STATE_RUNNING}

    def prepare(self, options: Namespace, host: str | None) -> None:
        """Plan the next test, check that it can work, and have Locust run the right users.

        Raises:
            HarnessError: what is wrong with it; then Locust is left as it was.
        """
        plan = make_plan(options, host)
        user = TritonOpenLoopUser if plan.is_open_loop else USERS[plan.workload.protocol]
        self._check_offered(user, plan)
        check_plan(plan)
        self._fleet.check(plan)
        self._next = plan
        # Locust keeps the last form's where this one has none, and workers are told what it keeps.
        self.options.run_time = options.run_time
        self.environment.user_classes[:] = [user]
        self.environment.shape_class = shape_of(
            self.environment.runner, self.options, plan, self.begin_phase
        )

    def prepare_or_exit(self) -> None:
        """Prepare a test that nobody can correct on a page: a mistake is one line, and exit 2."""
        with exiting_on_mistakes(self):
            self.prepare(self.options, self.environment.host)

    def begin_phase(self, name: str, in_s: float) -> float:
        """Begin a phase of the running test; without a test this does nothing.

        Returns:
            Seconds until it begins: phases do at the edges of slices.
        """
        if self.results is None or self._end_ns or self._stopping:
            return 0.0
        now_s = self.elapsed_s
        self._begin_at(self.results, name, now_s + in_s)
        return edge_after(now_s + in_s) - now_s

    def take(self, worker: str, answer: GeneratorAnswer) -> None:
        """Take in what a process told of the running test."""
        if isinstance(answer, LoadEnded) and answer.records_problem:
            self.note_records_problem(worker, answer.records_problem)
        elif isinstance(answer, GeneratorFailed):
            self.fail(worker, answer.message, GeneratorError.exit_code)
        elif not isinstance(answer, LoadProgress):
            return
        elif self.results is None:
            note_late(worker, answer)
        elif self.results.add(worker, answer):
            for one in self.watchers:
                one.reported(worker, answer)

    def note_records_problem(self, worker: str, problem: str) -> None:
        """Records that were asked for are not where they belong: an error at the command's end."""
        logger.error("%s: %s", worker, problem)
        self.environment.process_exit_code = StorageError.exit_code

    def fail(self, worker: str, message: str, exit_code: int) -> None:
        """A process cannot take part: say so where people look, and end the test."""
        logger.error("%s: %s", worker, message)
        runner = self.environment.runner
        if runner is None:
            return
        runner.log_exception(worker, message, message)
        if self.options.headless:
            self.environment.process_exit_code = exit_code
            gevent.spawn(runner.quit)
        else:
            gevent.spawn(runner.stop)

    def _check_offered(self, user: type[TritonUser], plan: Plan) -> None:
        if user in self._offered:
            return
        names = ", ".join(one.__name__ for one in self._offered)
        asked = "an open loop" if plan.is_open_loop else f"--host {plan.host}"
        raise UsageError(
            f"{names} is not the user for {asked}: that is {user.__name__}",
            next_step="leave the user's name out: the host's scheme and --rate choose it",
        )

    def _on_test_start(self, **_: Any) -> None:
        self._join_finishing()
        try:
            if self._next is None:  # Locust's keys come without a form
                self.prepare(self.options, self.environment.host)
            self.plan, self._next = self._next, None
            assert self.plan is not None  # noqa: S101  (prepare made it)
            name = f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"
            self.results = Results(name)
            self._start_ns, self._end_ns, self._stopping = time.monotonic_ns(), 0, False
            self._drained_ns = 0
            for one in self.watchers:
                one.test_begins(self.plan)
            self._fleet.start(self, self.plan, self.results)
            self._start_ns = self.results.start_ns
        except gevent.GreenletExit:  # "stop" was pressed meanwhile: there was no test
            self._call_off()
            raise
        except HarnessError as error:
            self.results = None
            self.fail("this process", one_line(error), error.exit_code)
            if not self.options.headless:
                self._call_off()
                # Or Locust would go on to start users for whom there is no load, and say "running".
                raise gevent.GreenletExit from error
            return
        if self.environment.shape_class is not None:
            self.environment.shape_class.reset_time()  # type: ignore[no-untyped-call]  # Locust's
        for one in self.watchers:
            one.test_began(self.plan, self.results)
        if self.plan.is_open_loop:
            self._begin_measured(self.plan, self.results, self.plan.lead_s)

    def _call_off(self) -> None:
        """There is no test, and nobody to start.

        Locust has already decided whom: it would start them in the next test, whose users differ.
        """
        self.results = None
        runner: Any = self.environment.runner
        runner._users_dispatcher = None

    def _on_spawning_complete(self, user_count: int, **_: Any) -> None:
        """All users run, as many as were asked for last; of workers Locust waits for a second only.

        Somebody may have changed their number: on the page, or by a key.
        """
        plan, results = self.plan, self.results
        if plan is not None and results is not None and not plan.is_open_loop and not plan.sweep:
            for one in self.watchers:
                one.users_run(user_count, ramp_up=self._ramps_up(results))
            gevent.spawn(self._begin_when_all_run, plan, results.test)

    def _begin_when_all_run(self, plan: Plan, test: str) -> None:
        while not self._fleet.all_run():
            gevent.sleep(0.02)
            if self._stopping or self.results is None or self.results.test != test:
                return
        results = self.results
        if results is not None and results.test == test and self._ramps_up(results):
            self._begin_measured(plan, results, self.elapsed_s)

    def _ramps_up(self, results: Results) -> bool:
        return not self._stopping and results.phase_at(self.elapsed_s) == RAMP_UP

    def _begin_at(self, results: Results, name: str, at_s: float) -> None:
        results.begin(name, at_s)
        for one in self.watchers:
            one.phase_changed()

    def _begin_measured(self, plan: Plan, results: Results, at_s: float) -> None:
        """Until its end where that is known: Locust's own comes up to a second later."""
        self._begin_at(results, MEASURED, at_s)
        if plan.end_s is not None:
            # A slice in which the load ends is not measured: it would be counted in full.
            end_s = max(edge_before(plan.end_s), edge_after(at_s))
            self._begin_at(results, DRAINING, end_s)

    def _on_test_stopping(self, **_: Any) -> None:
        """The load goes on until the edge of a slice, where what is measured ends."""
        self._stopping = True
        end_s = edge_after(self.elapsed_s + STOP_LEAD_S)
        if self.results is not None and self.results.phase_at(end_s) != DRAINING:
            self._begin_at(self.results, DRAINING, end_s)
        self._fleet.drain(self._start_ns + round(end_s * 1e9))
        self._drained_ns = self._drained_ns or time.monotonic_ns()

    def _on_test_stop(self, **_: Any) -> None:
        if self.plan is not None and self.results is not None and not self._end_ns:
            self._end_ns = self._drained_ns
            self._finishing = gevent.spawn(self._finish, self.plan, self.results)
        self._join_finishing()

    def _join_finishing(self) -> None:
        if self._finishing is not None:
            self._finishing.get()

    def _finish(self, plan: Plan, results: Results) -> None:
        results.attendance.over = True
        for one in self.watchers:
            one.test_ended()
        if self.options.autostart:
            # Locust's own timer of --autostart begins only after a test with a shape: it would
            # stop the next one.
            self.options.run_time = None
        if plan.histograms is not None:
            self._write(plan, results, plan.histograms)
        self._fleet.collect_records()

    def _write(self, plan: Plan, results: Results, path: Path) -> None:
        try:
            written = write_document(path, as_document(plan, results, self.elapsed_s))
            logger.info("the HDR histograms are in %s", written)
        except HarnessError as error:
            logger.error("%s", one_line(error))
            self.environment.process_exit_code = error.exit_code

    def _on_reset_stats(self, **_: Any) -> None:
        if self.results is None or self._end_ns or not self.results.start_ns:
            return
        self.results = fresh = self.results.continued(self.elapsed_s)
        for one in self.watchers:
            one.results_replaced(fresh)

    def _on_quitting(self, **_: Any) -> None:
        """End the test before Locust settles on its exit code: Ctrl-C finds the test still running.

        Its failures and its verdict are known only when all of it was reported.
        """
        if self.running and self.environment.runner is not None:
            self.environment.runner.stop()
        self._join_finishing()
        for one in self.watchers:
            one.session_ended()

    def _on_quit(self, **_: Any) -> None:
        """After Locust's own tables; standard output is the JSON's where that was asked for."""
        if self.results is None:
            return
        out = sys.stderr if self.options.json else sys.stdout
        print(as_text(self.results, self.elapsed_s), file=out, flush=True)


@contextmanager
def exiting_on_mistakes(conductor: Conductor) -> Iterator[None]:
    """A mistake in what was asked for is one line, and the end of the process."""
    try:
        yield
    except HarnessError as error:
        logger.error("%s", one_line(error))
        if conductor.environment.runner is not None:
            conductor.environment.runner.quit()  # workers that wait would wait for long
        raise SystemExit(error.exit_code) from error


def one_line(error: HarnessError) -> str:
    """What is wrong, and what to do; without the caret of a parser, which needs lines."""
    lines = [" ".join(one.split()) for one in str(error).splitlines()]
    if isinstance(error, ObjectiveError):
        lines[1:3] = []  # the text again, and the caret
        said = "; ".join(lines)
    else:
        said = " ".join(lines)
    return "; ".join(filter(None, [said, error.next_step]))

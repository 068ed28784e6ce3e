"""Watches a running test for its verdict: the server's counters, and looks at the evidence.

In the process that people look at, in one greenlet of its own. Whoever looks at a running test
whenever he likes, and stops when he likes the answer, errs more often than the interval says. So
the evidence is judged at looks that were fixed before (`harness.analysis.steady_state`), each
window about twice the one before, and once more at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil

import gevent
from gevent.event import Event

from harness import hdr
from harness.analysis.steady_state import LookSchedule, seconds_needed
from harness.flow.external.trial import assess_load
from harness.flow.results import BegunTrial, ServerSide, without_durations
from harness.load.transports.opening import answers_are_stamped
from harness.planning.assessment import Assessment
from harness.system.storage import utc_now
from harness.types import (
    Decision,
    LoadMode,
    LoadResult,
    ServerMetrics,
    Trial,
    Workload,
)
from harness.types.trials import numbered_repeat
from harness.words.numbers import things
from harness_locust.conductor import Conductor, Watcher
from harness_locust.judgement import troubles_of
from harness_locust.plan import Plan
from harness_locust.results import TRANSIENT, PhaseResult, Results
from harness_locust.server_poll import ServerPoll
from harness_locust.user_shapes import users_of_step

EVERY_S = 1.0
FIRST_LOOK_S = 5.0
BOOKED_WITHIN_S = 0.1
"""Seconds after its last answer: a server counts a request when it has sent the answer."""
LONGEST_S = 3600.0
"""The last look of a test that runs until somebody stops it."""

logger = logging.getLogger("harness")


@dataclass
class Watched:
    """One test of this session: what was asked, and what it has shown."""

    number: int
    plan: Plan
    results: Results
    users: int
    poll: ServerPoll
    started_utc: str = field(default_factory=utc_now)
    verdicts: dict[str, Assessment] = field(default_factory=dict)
    """By phase, the verdict of its latest look, or of its end."""
    looked_s: float = 0.0
    """Length of the window at the latest look."""
    next_look_s: float | None = None
    counted_from_s: float = 0.0
    """When the statistics were reset, from the test's start."""
    asked_users: int = 0
    """How many were asked for when these began."""
    changed_users: int | None = None
    """How many they became within the measurement; None where they are as many all the time."""
    ended_s: float | None = None
    """When the test was over, from its start; None while it runs."""
    judged: bool = False
    """Whether all that it has shown was read and judged, after its end."""

    @property
    def phase(self) -> str:
        """The phase whose verdict is shown: the latest that has one."""
        return next(reversed(self.verdicts), "")

    def needed_s(self) -> float | None:
        """How long a window the latest verdict would need; None where nothing is foretold."""
        verdict = self.verdicts.get(self.phase)
        if verdict is None or verdict.decision is not Decision.UNDECIDED:
            return None
        needed = [
            seconds_needed(verdict.result.duration_s, one.evidence_factor)
            for one in verdict.findings
            if one.decision is Decision.UNDECIDED
        ]
        known = [one for one in needed if one is not None]
        return max(known) if known and len(known) == len(needed) else None


class ServingWatch(Watcher):
    """Follows the conductor's tests, one after another.

    Args:
        conductor: tells when a test begins, changes its phase, and ends.
    """

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._wake = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._poll: ServerPoll | None = None
        """The poll of the server for the current test."""
        self.current: Watched | None = None
        """The test that runs, or the last."""
        conductor.watchers.append(self)

    def test_begins(self, plan: Plan) -> None:
        """Read the server's counters as they are at the test's start: before anything is sent."""
        self._poll = ServerPoll(plan)
        try:
            self._poll.read(lambda: 0.0)
        except Exception:
            # What shows a test must not keep it from starting.
            logger.exception("the server's counters could not be read at the start")

    def test_began(self, plan: Plan, results: Results) -> None:
        """Go on to read the server's counters."""
        number = self.current.number + 1 if self.current else 1
        poll, users = self._poll or ServerPoll(plan), self._asked_users
        self.current = Watched(number, plan, results, users, poll, asked_users=users)
        self._wake.clear()
        self._greenlet = gevent.spawn(self._watch, self.current)

    def results_replaced(self, results: Results) -> None:
        """Somebody pressed reset: what was seen before does not count any more."""
        if self.current is not None:
            self.current.results = results
            # What is counted from here on is of as many users as there are now.
            self._note_edit(self.current)
            self.current.users = self.current.changed_users or self.current.users
            self.current.asked_users, self.current.changed_users = self._asked_users, None
            self.current.counted_from_s = self._elapsed_s()
            self.current.verdicts.clear()
            self.current.looked_s, self.current.next_look_s = 0.0, None

    def users_run(self, users: int, *, ramp_up: bool) -> None:
        """Nothing is counted yet while they ramp up; later, two loads are in one measurement."""
        watched = self.current
        if watched is None:
            return
        if ramp_up:
            watched.users, watched.asked_users = users, self._asked_users
        elif users != watched.users and watched.plan.users_shape is None:
            watched.changed_users = users

    @property
    def _asked_users(self) -> int:
        """What was typed, or stands in the page's form."""
        return self._conductor.options.num_users or 1

    def _note_edit(self, watched: Watched) -> None:
        """The form may ask for another number before as many run."""
        plan = watched.plan
        of_one_number = not (plan.is_open_loop or plan.sweep or plan.users_shape)
        if of_one_number and self._asked_users != watched.asked_users:
            watched.changed_users = self._asked_users

    def phase_changed(self) -> None:
        """Read the counters at the phase's edge, not up to a second beside it."""
        self._wake.set()

    def test_ended(self) -> None:
        """Read for the last time, and judge what the whole test has shown."""
        watched = self.current
        if watched is None or watched.ended_s is not None:
            return
        self._note_edit(watched)  # before the form is filled in for the next test
        now_s = self._conductor.elapsed_s
        watched.ended_s = now_s
        if self._greenlet is not None:
            self._greenlet.kill()
        try:
            gevent.sleep(BOOKED_WITHIN_S)
            watched.poll.read(self._elapsed_s)
            watched.poll.close()
            phases = [one for one in watched.results.phases(now_s) if one.name not in TRANSIENT]
            for phase in phases:
                self._judge(watched, phase, phase.start_s + phase.duration_s)
        finally:
            watched.judged = True

    def _elapsed_s(self) -> float:
        return self._conductor.elapsed_s

    def _watch(self, watched: Watched) -> None:
        while watched.ended_s is None:
            watched.poll.read(self._elapsed_s)
            now_s = self._elapsed_s()
            try:
                self._look(watched, now_s)
            except Exception:
                # What shows a test must not end it.
                logger.exception("the verdict so far could not be made")
                return
            edge_s = watched.results.next_edge_s(now_s)
            self._wake.wait(timeout=max(0.01, min(EVERY_S, edge_s - self._conductor.elapsed_s)))
            self._wake.clear()

    def _look(self, watched: Watched, now_s: float) -> None:
        """Judge the phase that runs, where a look is due."""
        phases = watched.results.phases(now_s)
        phase = phases[-1] if phases else None
        if phase is None or phase.name in TRANSIENT:
            return
        if phase.name not in watched.verdicts and watched.looked_s and watched.plan.sweep:
            watched.looked_s = 0.0
        complete_s = min(now_s, watched.results.settled_s)
        schedule = _schedule(watched.plan)
        watched.next_look_s = schedule.next_look(watched.looked_s)
        seen_s = complete_s - phase.start_s
        if watched.next_look_s is not None and seen_s >= watched.next_look_s:
            self._note_edit(watched)
            self._judge(watched, phase, complete_s)
            watched.looked_s = max(one for one in schedule.looks if one <= seen_s)
            watched.next_look_s = schedule.next_look(watched.looked_s)

    def _judge(self, watched: Watched, phase: PhaseResult, until_s: float) -> None:
        plan, results = watched.plan, watched.results
        end_s = min(until_s, phase.start_s + phase.duration_s)
        load = load_of(watched, phase, end_s)
        window_s = window_of(watched, phase, load)
        trial = _trial(watched, phase, load.duration_s)
        assessment = assess_load(
            BegunTrial(trial, "", watched.started_utc),
            load,
            plan.slo,
            workload=_judged_workload(plan, trial),
            served=ServerSide(_server_between(watched, *window_s, load), watched.poll.host),
            confidence=_schedule(plan).confidence_per_look,
            spoilt="; ".join(
                [*troubles_of(results, until_s), *_mixed(watched), *_uncounted(watched)]
            ),
        )
        if assessment is not None:
            watched.verdicts[phase.name] = assessment


def load_of(watched: Watched, phase: PhaseResult, end_s: float) -> LoadResult:
    """The load of one phase, with what came before it as its warm-up."""
    plan, results = watched.plan, watched.results
    before = [one for one in results.phases(end_s) if one.start_s < phase.start_s]
    load = results.history.load(
        before[-1].start_s if before else phase.start_s, phase.start_s, end_s,
        [one.health for one in results.workers],
    )  # fmt: skip
    stamped = answers_are_stamped(plan.workload.protocol, plan.target, plan.grpc)
    return replace(load, first_failure=results.attendance.first_failure, answers_stamped=stamped)


def window_of(watched: Watched, phase: PhaseResult, load: LoadResult) -> tuple[float, float]:
    """When a phase's measurement began and ended, in seconds of the test.

    In a long test the slices that are kept are wide, and the window ends at their edges, within
    the phase: what the server counted is taken between the same edges.
    """
    before = [one for one in watched.results.phases(phase.start_s) if one.start_s < phase.start_s]
    first_s = before[-1].start_s if before else phase.start_s
    zero_s = int(first_s / load.slice_s) * load.slice_s
    return zero_s + load.window_start_ns / 1e9, zero_s + load.window_end_ns / 1e9


def _server_between(
    watched: Watched, start_s: float, end_s: float, load: LoadResult
) -> ServerMetrics:
    """What the server counted in a window; without its count where the poll missed an edge.

    The client's count and the server's are compared only where both speak of the same time, and
    what may have passed between an edge and its reading is allowed for.
    """
    counters = watched.poll.counters
    server = counters.total(start_s, end_s)
    if watched.plan.workload.generation is not None:
        return without_durations(server)
    if not counters.cut_at(start_s) or not counters.cut_at(end_s):
        return replace(server, requests=None)
    apart_s = counters.nearest_s(start_s) + counters.nearest_s(end_s)
    passed = apart_s * load.completed / load.duration_s if load.duration_s else 0.0
    return replace(server, requests_uncertainty=server.requests_uncertainty + ceil(passed))


def _mixed(watched: Watched) -> Iterator[str]:
    """Whether what was counted is of two loads: no number of users has such latencies."""
    if watched.changed_users is not None:
        yield (
            f"{things(watched.users, 'user')} became {watched.changed_users:,} while the test was "
            "measured: reset the statistics, or start a test of as many"
        )


def _uncounted(watched: Watched) -> Iterator[str]:
    """How much a lost process may have done that no report tells: what the server counted more."""
    if watched.ended_s is None or not any(one.lost for one in watched.results.workers):
        return
    counted = watched.poll.counters.total(watched.counted_from_s).requests
    seen = watched.results.everything()
    known = hdr.total(seen.ok.response) + sum(seen.failures.values())
    if counted is not None and counted > known:
        yield f"the server answered {counted:,} requests, and {known:,} of them are counted here"


def confidence_of(plan: Plan) -> float:
    """Confidence of each look's interval, so that all together err in one test of twenty."""
    return _schedule(plan).confidence_per_look


def _schedule(plan: Plan) -> LookSchedule:
    longest_s = plan.run_time_s or LONGEST_S
    if plan.sweep:
        longest_s = plan.step_time_s
    return LookSchedule(min(FIRST_LOOK_S, longest_s), longest_s)


def _trial(watched: Watched, phase: PhaseResult, duration_s: float) -> Trial:
    plan = watched.plan
    workload = replace(plan.workload, duration_s=duration_s)
    if workload.load_mode is LoadMode.CLOSED:
        users = users_of_step(phase.name) or watched.users
        workload = replace(workload, concurrency=users)
    return Trial(
        plan.model, plan.model, watched.poll.serving, workload,
        stage="load", repeat=numbered_repeat(watched.number - 1),
    )  # fmt: skip


def _judged_workload(plan: Plan, trial: Trial) -> Workload:
    """Users that come and go by a shape are not compared with one number of them."""
    if plan.users_shape is None:
        return trial.workload
    arrivals = replace(trial.workload.arrivals, shape=plan.users_shape)
    return replace(trial.workload, concurrency=1, arrivals=arrivals)

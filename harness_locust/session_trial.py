"""One trial as a resident process lives it: users connect, run the load together, and leave.

The users are those of `triton_users.py`; only their task is replaced, by one that stays in a tight
loop for the whole trial. A task per request would cost as much again as the request itself.
"""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psutil
from gevent.event import AsyncResult, Event
from locust.env import Environment
from locust.exception import StopUser

from harness.load.engine.closed_loop import FOREVER_NS
from harness.load.engine.open_loop import OpenLoop, Timer
from harness.load.engine.recorder import Recorder
from harness.load.generators.messages import LoadEnded, LoadProgress, Measure, Prepare
from harness.load.requests.generation import read_requests
from harness.load.requests.traffic import (
    EncodedTraffic,
    Place,
    make_stream_traffic,
    make_traffic,
)
from harness.load.schedule.arrivals import arrival_times_ns
from harness.load.transports.contract import RequestFailure
from harness.load.transports.opening import stream_opener, transport_opener
from harness.types import GrpcImplementation, LoadMode
from harness_locust.locust_counts import LocustCounts
from harness_locust.loop_lag import LoopLag
from harness_locust.record_files import open_records
from harness_locust.triton_users import (
    USERS,
    TritonUser,
    make_grpc_yield,
    read_waiter,
    run_open_loop,
)

REPORT_EVERY_S = 0.1
QUIET_NS = 4_000_000
"""What a report takes on a slow machine: an arrival that falls due meanwhile goes out late."""
WAIT_FOR_QUIET_S = 0.02
"""How long a report is put off at most; a load without such pauses has no use for them."""

logger = logging.getLogger("harness.session")


class SessionTrial:
    """The users of one trial in this process, and what they saw."""

    def __init__(self, order: Prepare) -> None:
        self._order = order
        self._connected = 0
        self._all_connected = Event()
        self._begin = AsyncResult()
        """The recorder and the first instant, once the harness has named it."""
        self._problem = ""
        if order.grpc is GrpcImplementation.GRPCIO:
            make_grpc_yield()
        workload = order.workload
        self._traffic = traffic_of(order)
        self._traffic.next_user = order.first_user
        self.ending = self._traffic.ending
        self._open = workload.load_mode is LoadMode.OPEN
        self._users = 1 if self._open else order.share
        # Now and not at the start: importing pyarrow takes a second, reading a trace may as well.
        self._writer = open_records(order.records)
        self._arrivals = self._open and arrival_times_ns(
            workload.arrivals, rate_per_s=workload.rate_per_s, seed=workload.seed
        )
        user = self._user_class()
        self._environment = Environment(user_classes=[user], host=order.target.authority)
        hook: Any = self._environment.events.user_error  # Locust's hooks are untyped
        hook.add_listener(self._note_problem)
        self._runner = self._environment.create_local_runner()
        self._method = user.request_type
        self._settled: list[Callable[[], int]] = []
        """A closed loop's or the open loop's word on what has ended, one per user."""
        self._next_arrival_ns: Callable[[], int] = lambda: FOREVER_NS
        self._process = psutil.Process()

    def prepare(self) -> None:
        """Start the users; return when each has tried to connect."""
        self._runner.start(self._users, spawn_rate=self._users)
        self._all_connected.wait()
        self._raise_problem()
        # A collection of everything stops all users for 50 ms: once, now, and nothing that is here
        # already is looked at again while they run.
        gc.collect()
        gc.freeze()

    def measure(self, order: Measure) -> Iterator[LoadProgress | LoadEnded]:
        """Run the load and report on it; ends when every request in flight has ended.

        Every request has a timeout, so the drain ends; beyond that the harness keeps the clock.
        """
        self.ending.at_ns = order.end_ns
        counts = LocustCounts(self._environment, self._method, self._order.model)
        listeners = [counts.add, *([self._writer.add] if self._writer else [])]
        recorder = Recorder(
            order.start_ns,
            order.slice_ns,
            listeners=listeners,
            keep_ids=self._writer is not None,
            bounds=self._order.bounds,
        )
        lag = LoopLag()
        self._begin.set((order.start_ns, recorder))
        users = self._runner.user_greenlets
        over = False
        with lag:
            while not over:
                users.join(timeout=REPORT_EVERY_S)
                self._raise_problem()
                self._wait_for_quiet()
                # Asked once, before the report: the last users may end while it is made or sent,
                # and what they did is then in the next.
                over = not len(users)
                yield self._progress(recorder, lag, over=over)
        problem = self._writer.close() if self._writer else ""
        yield LoadEnded(recorder.first_failure, recorder.first_failure_ns, problem)

    def end(self) -> None:
        """Stop what still runs, in order, and drop Locust's greenlets of this trial."""
        self._runner.quit()
        if self._writer is not None:
            self._writer.close()
        gc.unfreeze()  # or what this trial leaves in cycles would stay for ever

    def _progress(self, recorder: Recorder, lag: LoopLag, *, over: bool) -> LoadProgress:
        now_ns = time.monotonic_ns()
        # Before `take`: what ends in between is reported all the same, only not vouched for.
        settled_ns = min([now_ns, *(settled() for settled in self._settled)])
        complete_ns = max(now_ns, self.ending.at_ns) if over else settled_ns
        return LoadProgress(
            at_ns=now_ns,
            complete_before_ns=complete_ns,
            slices=tuple(recorder.take()),
            cpu_s=time.process_time(),
            loop_lag=lag.take(),
            memory_bytes=self._process.memory_info().rss,
        )

    def _wait_for_quiet(self) -> None:
        """Put a report off until no arrival of an open loop falls due while it is made."""
        last_ns = time.monotonic_ns() + int(WAIT_FOR_QUIET_S * 1e9)
        while 0 <= self._next_arrival_ns() - (now_ns := time.monotonic_ns()) < QUIET_NS:
            if now_ns > last_ns:
                return
            gevent.sleep(QUIET_NS / 4e9)

    def _user_class(self) -> type[TritonUser]:
        base = USERS[self._order.workload.protocol]
        user: type[TritonUser] = type(f"Measured{base.__name__}", (base,), {})
        user.traffic = self._traffic
        user.tasks = [self._drive_open_loop if self._open else self._drive]
        return user

    def _drive(self, user: TritonUser) -> None:
        """The task of every user of a closed loop: once, from the connection to the end."""
        self._connect(user.transport.connect)
        start_ns, recorder = self._wait_for_begin()
        loop = self._traffic.closed_loop(user.transport, recorder)
        self._settled.append(lambda: loop.scheduled_ns or FOREVER_NS)
        sleep_until(start_ns)
        loop.run(self.ending)
        raise StopUser

    def _drive_open_loop(self, user: TritonUser) -> None:
        """The task of the one user of an open loop: dispatch every arrival of this worker."""
        order = self._order
        place = Place(order.worker, order.workers, order.share)
        self._connect(user.transport.connect)
        start_ns, recorder = self._wait_for_begin()

        def make(timer: Timer) -> OpenLoop:
            loop = self._traffic.open_loop(self._arrivals or (), place, recorder, timer)
            self._settled.append(lambda: loop.settled_before_ns)
            self._next_arrival_ns = lambda: loop.next_ns
            return loop

        run_open_loop(make, start_ns, self.ending)
        raise StopUser

    def _connect(self, connect: Callable[[], None]) -> None:
        """Wait for a connection; the last user to have tried lets the harness know."""
        if self._problem:
            raise StopUser
        try:
            connect()
        except RequestFailure as failure:
            # Its first request tries again and is counted, so this is for the log only.
            logger.warning("a user cannot connect yet: %s", failure)
        self._connected += 1
        if self._connected == self._users:
            self._all_connected.set()

    def _wait_for_begin(self) -> tuple[int, Recorder]:
        begin: tuple[int, Recorder] = self._begin.get()
        return begin

    def _note_problem(self, exception: Exception, **_: Any) -> None:
        """A user raised what no user should: the trial is worth nothing, say why."""
        self._problem = self._problem or "".join(traceback.format_exception(exception))
        self._all_connected.set()

    def _raise_problem(self) -> None:
        if self._problem:
            raise RuntimeError(f"a user failed:\n{self._problem}")


def traffic_of(order: Prepare) -> EncodedTraffic:
    """What the users of an order send."""
    workload, timeout_s = order.workload, order.request_timeout_s
    if workload.generation is not None:
        opener = stream_opener(
            workload.generation,
            workload.protocol,
            order.target,
            timeout_s=timeout_s,
            waiter=read_waiter,
        )
        pool = read_requests(order.payloads)
        return make_stream_traffic(order.model, opener, workload, order.target, pool)
    opener = transport_opener(
        workload.protocol, order.target, timeout_s=timeout_s, grpc=order.grpc, waiter=read_waiter
    )
    return make_traffic(
        order.model, opener, workload, order.payloads,
        outputs=order.outputs, known_answers=order.known_answers,
    )  # fmt: skip


def sleep_until(instant_ns: int) -> None:
    """Let others run until CLOCK_MONOTONIC shows the instant."""
    while (remaining_ns := instant_ns - time.monotonic_ns()) > 0:
        gevent.sleep(remaining_ns / 1e9)

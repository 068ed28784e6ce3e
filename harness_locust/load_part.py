"""One process's part of one load, whoever started the process: `harness`, Locust, or its page.

The users are this part's own, all of them from the first instant, or Locust's, which come and go as
it has them (`Prepare.users_by_locust`). What they send, where it is recorded, how it is reported
and how it ends is the same.
"""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import gevent
import numpy as np
import psutil
from gevent.event import AsyncResult, Event
from gevent.pool import Group
from locust.env import Environment
from locust.exception import StopUser

from harness.load.engine.closed_loop import ClosedLoop, Ending
from harness.load.engine.open_loop import OpenLoop, Timer
from harness.load.engine.recorder import Recorder
from harness.load.generators.messages import (
    GeneratorAnswer,
    GeneratorFailed,
    LoadEnded,
    LoadProgress,
    Measure,
    Prepare,
    StopLoad,
)
from harness.load.requests.generation import read_requests
from harness.load.requests.payloads import EncodedRequest
from harness.load.requests.traffic import (
    EncodedTraffic,
    make_stream_traffic,
    make_traffic,
)
from harness.load.schedule.arrivals import arrival_times_ns
from harness.load.transports.contract import ELEMENTS, RequestFailure, Transport
from harness.load.transports.opening import stream_opener, transport_opener
from harness.types import GrpcImplementation, LoadMode, TensorSpec, WireProtocol
from harness_locust.locust_counts import LocustCounts
from harness_locust.loop_lag import LoopLag
from harness_locust.socket_waiter import GeventWaiter
from harness_locust.triton_users import (
    USERS,
    TritonOpenLoopUser,
    TritonUser,
    look_at_sockets,
    make_grpc_yield,
)

if TYPE_CHECKING:
    from harness.load.records.requests import RecordWriter

QUIET_NS = 4_000_000
"""What a report takes on a slow machine: an arrival that falls due meanwhile goes out late."""
WAIT_FOR_QUIET_S = 0.02
"""How long a report is put off at most; a load without such pauses has no use for them."""
_NS = 1_000_000_000
_RECORDS = "harness.load.records.requests"

logger = logging.getLogger("harness")


class LoadPart:
    """Makes the traffic, hands it to the users, and reports what they saw.

    Args:
        environment: of Locust, for the users and Locust's own statistics.
        order: what is sent, and which part of it by this process; its files are here.
        deliver: takes the reports and the word of the end, in a greenlet of this part.
    """

    def __init__(
        self,
        environment: Environment,
        order: Prepare,
        deliver: Callable[[GeneratorAnswer], None],
    ) -> None:
        self._environment, self._order, self._deliver = environment, order, deliver
        self._failures: Any = environment.events.user_error  # Locust's hooks are untyped
        self._traffic: EncodedTraffic
        self._recorder: Recorder
        self._writer: RecordWriter | None = None
        self._completing: AsyncResult[str] | None = None
        self._ending = Ending()
        self.start_ns = self.arrivals_ns = 0
        """CLOCK_MONOTONIC at the load's start, and at the 0 of an open loop's arrivals."""
        self._open = order.workload.load_mode is LoadMode.OPEN
        self._arrivals_left = self._open and order.share > 0
        """Whether nobody dispatches this process's arrivals yet."""
        self._begun: AsyncResult[bool] = AsyncResult()
        """False where it ends before it begins."""
        self._present: set[TritonUser] = set()
        """Users that wait for the load to begin, or may have a request in flight."""
        self._own_users = Group()
        self._tried = self._users_to_try = 0
        self._all_tried = Event()
        """Every user of its own has tried to connect, or there is a problem."""
        self._problem = ""
        self._dispatcher: OpenLoop | None = None
        self._lag = LoopLag()
        self._process = psutil.Process()
        self._reports = self._reported_ns = 0
        self._reported_cpu_s = 0.0
        self._look = Event()
        """Set where the load may be over."""
        self._over = Event()
        self._reporter: gevent.Greenlet | None = None

    def prepare(self) -> None:
        """Read and encode; users of its own are started, and each has tried to connect.

        Raises:
            HarnessError: the payloads cannot be read here, or the records not be written.
            RuntimeError: a user failed.
        """
        order = self._order
        if order.grpc is GrpcImplementation.GRPCIO:
            make_grpc_yield()
        self._traffic = traffic_of(order)
        self._traffic.next_user = order.first_user
        self._traffic.turns.give_way = look_at_sockets
        # Now and not at the start: importing pyarrow takes a second, reading a trace may as well.
        if order.records is not None:
            # In a thread: a slow machine takes longer than the master waits for a word of it.
            records = gevent.get_hub().threadpool.apply(import_module, (_RECORDS,))
            self._writer = records.RecordWriter(order.records)
        if self._open:
            workload = order.workload
            self._arrivals = arrival_times_ns(
                workload.arrivals, rate_per_s=workload.rate_per_s, seed=workload.seed
            )
        TritonUser.current = self
        TritonUser.arrived.set()
        if not order.users_by_locust:
            self._start_users()
        # A collection of everything stops all users for 50 ms: once, now, and nothing that is here
        # already is looked at again while they run.
        gc.collect()
        gc.freeze()

    def begin(self, order: Measure) -> None:
        """Let the load start; it is reported on until every request in flight at its end has ended.

        Every request has a timeout, so it does end.
        """
        self._ending.at_ns = min(self._ending.at_ns, order.end_ns)
        self._reported_ns = max(order.start_ns, time.monotonic_ns())
        self._reported_cpu_s = time.process_time()
        self.start_ns, self.arrivals_ns = order.start_ns, order.start_ns + order.lead_ns
        self._recorder = self._make_recorder(order)
        self._begun.set(True)
        self._reporter = gevent.spawn(self._report_on, order.report_every_s)

    def stop(self, order: StopLoad) -> None:
        """Schedule nothing from an instant on; what is in flight then is waited for and counted."""
        self._ending.at_ns = min(self._ending.at_ns, order.end_ns)
        for user in tuple(self._present):
            user.leave(order.end_ns)
        if not self._begun.ready():
            self._begun.set(False)
            self._over.set()
        if self._order.users_by_locust:
            self._look.set()

    def join(self) -> None:
        """Wait until the load is over and its end was told."""
        self._over.wait()

    def end(self) -> None:
        """Leave nothing behind, whatever still runs; ending twice is fine.

        Locust's users send nothing from now on, and leave when they have their answers.
        """
        self.stop(StopLoad(0))
        if TritonUser.current is self:
            TritonUser.current = None
            TritonUser.arrived.clear()
        if self._users_to_try:
            self._failures.remove_listener(self._note_problem)
            self._users_to_try = 0
        self._own_users.kill()
        if self._reporter is not None and self._reporter is not gevent.getcurrent():
            self._reporter.kill()
        self._over.set()
        self._complete_records()
        if self._order.workload.protocol is WireProtocol.GRPC:
            from harness.load.transports.grpc.http2_stream import forget_requests

            forget_requests()
        gc.unfreeze()  # or what this load leaves in cycles would stay for ever

    def admit(self, user: TritonUser) -> None:
        """A user takes a place in the load; returns when the load begins.

        Raises:
            StopUser: there is no load to come.
        """
        if self._over.is_set() or self._problem:
            raise StopUser
        user.transport = self._traffic.open_transport()
        user.ending = self._ending if self._open else Ending()
        self._present.add(user)
        if not self._order.users_by_locust:
            self._connect(user.transport)
        if not self._begun.get():
            raise StopUser
        user.ending.at_ns = min(user.ending.at_ns, self._ending.at_ns)

    def dismiss(self, user: TritonUser) -> None:
        """A user that was admitted, or not, goes; what it did is recorded."""
        if user in self._present:
            self._present.remove(user)
            user.transport.close()
            if not self._present:
                self._look.set()

    def has(self, user: TritonUser) -> bool:
        """Whether a user waits for the load to begin, or may have a request in flight."""
        return user in self._present

    def take_arrivals(self) -> bool:
        """Whether the caller is to dispatch this process's arrivals: one user is."""
        left, self._arrivals_left = self._arrivals_left, False
        return left

    def closed_loop(self, transport: Transport) -> ClosedLoop:
        """What an admitted user of a closed loop runs."""
        return self._traffic.closed_loop(transport, self._recorder)

    def open_loop(self, timer: Timer) -> OpenLoop:
        """What the admitted user that has the arrivals runs."""
        order = self._order
        self._dispatcher = self._traffic.open_loop(
            self._arrivals, self._recorder, timer,
            worker=order.worker, workers=order.workers, most_in_flight=order.share,
        )  # fmt: skip
        return self._dispatcher

    def _start_users(self) -> None:
        """All of this part's own users, and wait until each has tried to connect."""
        kind = TritonOpenLoopUser if self._open else USERS[self._order.workload.protocol]
        self._failures.add_listener(self._note_problem)
        self._users_to_try = 1 if self._open else self._order.share
        for _ in range(self._users_to_try):
            kind(self._environment).start(self._own_users)
        self._all_tried.wait()
        self._raise_problem()

    def _connect(self, transport: Transport) -> None:
        """The last user to have tried lets `prepare` return."""
        try:
            transport.connect()
        except RequestFailure as failure:
            # Its first request tries again and is counted, so this is for the log only.
            logger.warning("a user cannot connect yet: %s", failure)
        self._tried += 1
        if self._tried == self._users_to_try:
            self._all_tried.set()

    def _note_problem(self, exception: Exception, **_: Any) -> None:
        """A user raised what no user should: the load is worth nothing, say why."""
        self._problem = self._problem or "".join(traceback.format_exception(exception))
        self._all_tried.set()
        self._look.set()

    def _raise_problem(self) -> None:
        if self._problem:
            raise RuntimeError(f"a user failed:\n{self._problem}")

    def _make_recorder(self, order: Measure) -> Recorder:
        # Locust's statistics are shown where its master has the users, and nowhere else.
        counts = [self._locust_counts().add] if self._order.users_by_locust else []
        return Recorder(
            order.start_ns,
            order.slice_ns,
            listeners=[*counts, *([self._writer.add] if self._writer else [])],
            keep_ids=self._writer is not None,
            bounds=self._order.bounds,
        )

    def _locust_counts(self) -> LocustCounts:
        return LocustCounts(
            self._environment,
            USERS[self._order.workload.protocol].request_type,
            self._order.model,
            bytes_per_row=_bytes_per_row(self._order.outputs, self._traffic.requests),
        )

    def _report_on(self, every_s: float) -> None:
        """From the load's start until all of it is told; whatever goes wrong is told instead."""
        try:
            with self._lag:
                over = False
                # Workers take turns: many reports at one instant would wait for each other.
                wait_s = every_s * (1 + self._order.worker / self._order.workers % 1)
                while not over:
                    # Asked once, before the report: the last users may end while it is made or
                    # sent, and what they did is then in the next.
                    over, wait_s = self._wait_for_report(wait_s), every_s
                    self._raise_problem()
                    self._report(final=over)
            self._deliver(LoadEnded(self._order.load, self._complete_records()))
        except Exception as error:
            logger.error("a load failed", exc_info=error)
            self._deliver(GeneratorFailed(f"{type(error).__name__}: {error}"))
        finally:
            self._over.set()

    def _complete_records(self) -> str:
        """Why the records are lost, empty where they are whole; others are heard meanwhile."""
        if self._writer is None:
            return ""
        if self._completing is None:
            # Millions of rows take seconds: a worker that is silent for so long counts as gone.
            self._completing = gevent.get_hub().threadpool.spawn(self._writer.close)
        return str(self._completing.get())

    def _wait_for_report(self, every_s: float) -> bool:
        """Wait until a report is due; true where it is the last."""
        due_ns = time.monotonic_ns() + int(every_s * _NS)
        while not ((over := self._is_over()) or self._problem):
            now_ns = time.monotonic_ns()
            if now_ns >= due_ns:
                break
            end_ns = self._ending.at_ns
            self._look.wait(((min(due_ns, end_ns) if end_ns > now_ns else due_ns) - now_ns) / _NS)
            self._look.clear()
        self._wait_for_quiet()
        return over

    def _is_over(self) -> bool:
        """Own users are there from the start; of Locust's others may come until the end."""
        ended = not self._order.users_by_locust or time.monotonic_ns() >= self._ending.at_ns
        return ended and not self._present

    def _wait_for_quiet(self) -> None:
        """Put a report off until no arrival of an open loop falls due while it is made."""
        last_ns = time.monotonic_ns() + int(WAIT_FOR_QUIET_S * _NS)
        while self._dispatcher is not None:
            now_ns = time.monotonic_ns()
            if now_ns > last_ns or not 0 <= self._dispatcher.next_ns - now_ns < QUIET_NS:
                return
            gevent.sleep(QUIET_NS / 4e9)

    def _report(self, *, final: bool) -> None:
        now_ns, cpu_s = time.monotonic_ns(), time.process_time()
        # Before `take`: what ends in between is reported all the same, only not vouched for.
        settled_ns = max(now_ns, self._ending.at_ns) if final else self._settled_ns(now_ns)
        report = LoadProgress(
            at_ns=now_ns,
            complete_before_ns=settled_ns,
            slices=tuple(self._recorder.take()),
            cpu_s=cpu_s - self._reported_cpu_s,
            loop_lag=self._lag.take(),
            memory_bytes=self._process.memory_info().rss,
            since_ns=self._reported_ns,
            number=self._reports,
            final=final,
            load=self._order.load,
            first_failure=self._recorder.first_failure,
            first_failure_ns=self._recorder.first_failure_ns,
        )
        self._reports += 1
        self._reported_ns, self._reported_cpu_s = now_ns, cpu_s
        self._deliver(report)

    def _settled_ns(self, now_ns: int) -> int:
        """Everything that fell due before this instant has ended, and is recorded."""
        if self._dispatcher is not None:
            return min(now_ns, self._dispatcher.settled_before_ns)
        loops = [user.loop for user in self._present if user.loop is not None]
        return min([now_ns, *(one.scheduled_ns or now_ns for one in loops)])


def traffic_of(order: Prepare) -> EncodedTraffic:
    """What the users of an order send.

    Raises:
        DataError: the payloads or prompts cannot be read.
    """
    workload, timeout_s = order.workload, order.request_timeout_s
    if workload.generation is not None:
        opener = stream_opener(
            workload.generation,
            workload.protocol,
            order.target,
            timeout_s=timeout_s,
            waiter=GeventWaiter,
        )
        pool = read_requests(order.payloads)
        return make_stream_traffic(
            order.model, opener, workload, order.target, pool,
            worker=order.worker, workers=order.workers,
        )  # fmt: skip
    opener = transport_opener(
        workload.protocol, order.target, timeout_s=timeout_s, grpc=order.grpc, waiter=GeventWaiter
    )
    return make_traffic(
        order.model, opener, workload, order.payloads, inputs=order.inputs,
        outputs=order.outputs, known_answers=order.known_answers,
    )  # fmt: skip


def _bytes_per_row(outputs: Sequence[TensorSpec], requests: Sequence[EncodedRequest]) -> float:
    """About an answer's length for each of its rows; a dynamic size is the request's on average."""
    length = float(np.mean([max(one.lengths, default=1) for one in requests]))
    return sum(
        ELEMENTS[spec.datatype].itemsize * prod(length if size < 0 else size for size in spec.shape)
        for spec in outputs
        if spec.datatype in ELEMENTS
    )

"""One test in one process: what its users send, and what they saw."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import gevent
import numpy as np
import psutil
from gevent.event import Event
from locust.env import Environment

from harness.load.engine.open_loop import OpenLoop, Timer
from harness.load.engine.recorder import Recorder
from harness.load.generators.pool import split_concurrency
from harness.load.requests.payloads import EncodedRequest, read_payloads
from harness.load.requests.traffic import (
    EncodedTraffic,
    Place,
    make_stream_traffic,
    make_traffic,
)
from harness.load.schedule.arrivals import arrival_times_ns
from harness.load.transports.contract import DATATYPES
from harness.load.transports.opening import stream_opener, transport_opener
from harness.study.objective import request_bounds
from harness.types import GrpcImplementation, TensorSpec
from harness_locust.locust_counts import LocustCounts
from harness_locust.loop_lag import LoopLag
from harness_locust.plan import Plan
from harness_locust.preflight import ask_about, ask_for_streams, expected_outputs
from harness_locust.record_files import open_records
from harness_locust.results import REPORT_EVERY_S, SLICE_S, WorkerReport
from harness_locust.triton_users import (
    USERS,
    OpenLoopShare,
    TritonOpenLoopUser,
    TritonUser,
    make_grpc_yield,
    read_waiter,
)

USERS_APART = 100_000
"""More users than a process has: each process's users begin at places of their own."""
_NS = 1_000_000_000
_BYTES = {datatype: np.dtype(name).itemsize for name, datatype in DATATYPES.items()}

logger = logging.getLogger("harness")


@dataclass(frozen=True)
class ProcessRole:
    """Which part of which test a process has."""

    test: str
    worker: int = 0
    workers: int = 1
    late: bool = False
    """Whether it joins a running test, and so has no part in an open loop."""


class ProcessLoad:
    """Makes the traffic, hands it to the user classes, and reports every second.

    Args:
        environment: of Locust.
        plan: the test.
        role: this process's part of it.
        deliver: takes the reports.

    Raises:
        UsageError: the payloads cannot be read here, or the server does not answer from here.
        StorageError: the records cannot be written.
    """

    def __init__(
        self,
        environment: Environment,
        plan: Plan,
        role: ProcessRole,
        deliver: Callable[[WorkerReport], None],
    ) -> None:
        self._environment, self._plan, self._role = environment, plan, role
        self._deliver = deliver
        self._outputs: Sequence[TensorSpec] = ()
        self._traffic = self._make_traffic()
        self._traffic.next_user = role.worker * USERS_APART
        self._writer = open_records(
            plan.records and plan.records / f"{role.test}-worker-{role.worker}.parquet"
        )
        self._lag = LoopLag()
        self._process = psutil.Process()
        self._recorder: Recorder | None = None
        self._open: OpenLoop | None = None
        self._start_ns = self._reported_ns = self._reports = 0
        self._reported_cpu_s = 0.0
        self._over = Event()
        self._ticker = gevent.Greenlet(self._report_on)

    def start(self, start_ns: int) -> None:
        """Users find their traffic from now on.

        Args:
            start_ns: the test's start on this process's CLOCK_MONOTONIC: slices and arrivals count
                from there, in every process from the same instant.
        """
        self._start_ns, self._reported_ns = start_ns, time.monotonic_ns()
        self._reported_cpu_s = time.process_time()
        self._recorder = self._make_recorder()
        self._lag.__enter__()
        self._ticker.start()
        TritonUser.traffic, TritonUser.sink = self._traffic, self._recorder
        if self._plan.end_s is not None:
            self._traffic.ending.at_ns = self._start_ns + int(self._plan.end_s * _NS)
        if self._plan.is_open_loop and not self._role.late:
            first_ns = self._start_ns + int(self._plan.lead_s * _NS)
            make = partial(self._open_loop, self._recorder)
            TritonOpenLoopUser.shares[:] = [OpenLoopShare(make, first_ns)]
        TritonUser.begun.set()

    def drain(self, at_ns: int = 0) -> None:
        """Schedule nothing from an instant on, and wait for what is in flight then.

        Every request has a timeout, so the wait ends.
        """
        self._traffic.ending.at_ns = min(self._traffic.ending.at_ns, at_ns)
        for user in tuple(TritonUser.present):
            user.leave(at_ns)
        while TritonUser.present:
            gevent.sleep(0.01)

    def finish(self) -> None:
        """Report for the last time and complete the records; twice is fine."""
        if self._recorder is None:
            return
        TritonUser.traffic = TritonUser.sink = None
        TritonUser.begun.clear()
        TritonOpenLoopUser.shares.clear()
        # Not killed: it may be in the middle of a report, which holds what nothing else holds.
        self._over.set()
        self._ticker.join()
        self._report(self._recorder, final=True)
        self._recorder = None
        self._lag.__exit__(None, None, None)
        problem = self._writer.close() if self._writer else ""
        if problem:
            logger.error("%s", problem)

    def _make_traffic(self) -> EncodedTraffic:
        plan = self._plan
        if plan.workload.generation is not None:
            return stream_traffic(plan)
        asked = ask_about(plan, read_payloads(plan.payloads))
        self._outputs = expected_outputs(asked.model, plan)
        if plan.grpc is GrpcImplementation.GRPCIO:
            make_grpc_yield()
        opener = transport_opener(
            plan.workload.protocol,
            asked.target,
            timeout_s=plan.request_timeout_s,
            grpc=plan.grpc,
            waiter=read_waiter,
        )
        return make_traffic(
            plan.model, opener, plan.workload, plan.payloads, inputs=asked.model.inputs,
            outputs=self._outputs, known_answers=plan.known_answers,
        )  # fmt: skip

    def _make_recorder(self) -> Recorder:
        counts = LocustCounts(
            self._environment,
            USERS[self._plan.workload.protocol].request_type,
            self._plan.model,
            bytes_per_row=_bytes_per_row(self._outputs, self._traffic.requests),
        )
        listeners = [counts.add, *([self._writer.add] if self._writer else [])]
        return Recorder(
            self._start_ns,
            int(SLICE_S * _NS),
            listeners=listeners,
            keep_ids=self._writer is not None,
            bounds=request_bounds(self._plan.slo),
        )

    def _open_loop(self, recorder: Recorder, timer: Timer) -> OpenLoop:
        workload, role = self._plan.workload, self._role
        share = split_concurrency(workload.concurrency, role.workers)[role.worker]
        arrivals = arrival_times_ns(
            workload.arrivals, rate_per_s=workload.rate_per_s, seed=workload.seed
        )
        place = Place(role.worker, role.workers, share)
        self._open = self._traffic.open_loop(arrivals, place, recorder, timer)
        return self._open

    def _report_on(self) -> None:
        while not self._over.wait(REPORT_EVERY_S) and self._recorder is not None:
            self._report(self._recorder)

    def _settled_ns(self, now_ns: int) -> int:
        """Everything that fell due before this instant has ended, and is recorded."""
        if self._open is not None:
            return min(now_ns, self._open.settled_before_ns)
        return min([now_ns, *(one.loop.scheduled_ns or now_ns for one in TritonUser.present)])

    def _report(self, recorder: Recorder, *, final: bool = False) -> None:
        now_ns, cpu_s = time.monotonic_ns(), time.process_time()
        # Before `take`: what ends in between is reported all the same, only not vouched for.
        settled_ns = self._settled_ns(now_ns)
        report = WorkerReport(
            test=self._role.test,
            elapsed_s=(now_ns - self._start_ns) / _NS,
            interval_s=(now_ns - self._reported_ns) / _NS,
            slices=tuple(recorder.take()),
            cpu_s=cpu_s - self._reported_cpu_s,
            loop_lag=self._lag.take(),
            memory_bytes=self._process.memory_info().rss,
            first_failure=recorder.first_failure,
            settled_s=(settled_ns - self._start_ns) / _NS,
            number=self._reports,
            final=final,
        )
        self._reports += 1
        self._reported_ns, self._reported_cpu_s = now_ns, cpu_s
        self._deliver(report)


def stream_traffic(plan: Plan) -> EncodedTraffic:
    """What the users of a load of streams send.

    Raises:
        UsageError: the server does not answer from here.
        DataError: the prompts cannot be read here.
    """
    known = ask_for_streams(plan)
    opener = stream_opener(
        known,
        plan.workload.protocol,
        plan.target,
        timeout_s=plan.request_timeout_s,
        waiter=read_waiter,
    )
    workload = replace(plan.workload, generation=known)
    return make_stream_traffic(plan.model, opener, workload, plan.target, plan.prompts)


def _bytes_per_row(outputs: Sequence[TensorSpec], requests: Sequence[EncodedRequest]) -> float:
    """About an answer's length for each of its rows; a dynamic size is the request's on average."""
    length = float(np.mean([max(one.lengths, default=1) for one in requests]))
    return sum(
        _BYTES.get(spec.datatype, 0) * prod(length if size < 0 else size for size in spec.shape)
        for spec in outputs
    )

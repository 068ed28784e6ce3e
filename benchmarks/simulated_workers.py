"""Many load-generating workers in one process, which send nothing and report as real ones do.

Each has its own connection to the master, joins by the same door, is the product's own worker
(`harness_locust.hub_worker`) over Locust's own runner, and reports as often and as much as one that
really sends: only the load itself is made up. `scale_out.py` starts some of these processes; it
stops them by ending their standard input, and they then say what they have reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gevent
import numpy as np
from gevent.event import Event
from gevent.fileobject import FileObjectPosix
from locust import runners
from locust.env import Environment

from harness import hdr
from harness.load.generators.master_endpoint import MasterEndpoint, join_token, parse_endpoint
from harness.load.generators.messages import (
    GeneratorAnswer,
    LoadEnded,
    LoadProgress,
    Measure,
    Prepare,
    StopLoad,
)
from harness.types import Latencies, SparseHistogram, TimeSlice
from harness_locust import hub_worker
from harness_locust.guarded_sockets import GuardedClient
from harness_locust.hub_worker import HubWorker, WorkerSettings
from harness_locust.worker_process import make_runner

ENTER_WITHIN_S = 120.0
DRAWN = 64
"""Slices that are drawn ahead, and reported in turn."""
LAG_MS = 0.3
NEVER_S = 1e9
MEMORY_BYTES = 110 << 20
CPU_CORES = 0.2
_NS = 1_000_000_000


class Told:
    """What all workers of this process have told their master."""

    requests = reports = sent_bytes = 0


class SimulatedPart:
    """Stands where `LoadPart` does: a load of made-up answers, reported at the asked cadence."""

    drawn: Sequence[TimeSlice] = ()

    def __init__(
        self, environment: Environment, order: Prepare, deliver: Callable[[GeneratorAnswer], None]
    ) -> None:
        del environment
        self._load, self._deliver = order.load, deliver
        self._turn = order.worker / order.workers
        self._end_ns = 0
        self._over = Event()
        self._reporter: gevent.Greenlet | None = None

    def prepare(self) -> None:
        """There is nothing to read."""

    def begin(self, order: Measure) -> None:
        """Report from the start to the end, as often as asked."""
        self._end_ns = order.end_ns
        self._reporter = gevent.spawn(self._report_on, order)

    def stop(self, order: StopLoad) -> None:
        """Nothing falls due from an instant on."""
        self._end_ns = min(self._end_ns, order.end_ns)

    def join(self) -> None:
        """Wait for the last report."""
        self._over.wait()

    def end(self) -> None:
        """Leave."""
        if self._reporter is not None and self._reporter is not gevent.getcurrent():
            self._reporter.kill()

    def _report_on(self, order: Measure) -> None:
        gevent.sleep(max(0.0, (order.start_ns - time.monotonic_ns()) / _NS))
        done, number, since_ns, over = 0, 0, order.start_ns, False
        every_ns = int(order.report_every_s * _NS)
        wait_ns = int(every_ns * (1 + self._turn))
        while not over:
            due_ns = min(since_ns + wait_ns, self._end_ns)
            wait_ns = every_ns
            gevent.sleep(max(0.0, (due_ns - time.monotonic_ns()) / _NS))
            now_ns = time.monotonic_ns()
            over = now_ns >= self._end_ns
            until = -(-(min(now_ns, self._end_ns) - order.start_ns) // order.slice_ns)
            if not over:
                until -= 1  # the slice that runs is reported when it is over
            slices = tuple(self._slice(index) for index in range(done, until))
            done = max(done, until)
            complete_ns = max(now_ns, self._end_ns) if over else order.start_ns + (
                done * order.slice_ns
            )  # fmt: skip
            self._deliver(
                LoadProgress(
                    at_ns=now_ns,
                    complete_before_ns=complete_ns,
                    slices=slices,
                    cpu_s=CPU_CORES * (now_ns - since_ns) / _NS,
                    loop_lag=self._lag,
                    memory_bytes=MEMORY_BYTES,
                    since_ns=since_ns,
                    number=number,
                    final=over,
                    load=self._load,
                )
            )
            Told.requests += sum(one.completed for one in slices)
            Told.reports += 1
            number, since_ns = number + 1, now_ns
        self._deliver(LoadEnded(self._load))
        self._over.set()

    def _slice(self, index: int) -> TimeSlice:
        return replace(self.drawn[index % len(self.drawn)], index=index)

    _lag: SparseHistogram = hdr.of_nanoseconds(np.full(10, LAG_MS * 1e6, np.int64))


class CountingClient(GuardedClient):
    """A worker's socket that counts what goes out."""

    def _put(self, frame: bytes) -> None:
        Told.sent_bytes += len(frame)
        super()._put(frame)


def draw_slices(requests_per_s: float, slice_s: float = 0.05) -> list[TimeSlice]:
    """Slices as a worker at this rate has them: latencies of a queue, in every span."""
    random = np.random.default_rng(0)
    slices = []
    for index in range(DRAWN):
        count = max(1, random.poisson(requests_per_s * slice_s))
        service_ns = random.gamma(4.0, 5e6, count).astype(np.int64)
        delay_ns = random.exponential(50e3, count).astype(np.int64)
        spans = {
            "schedule_delay": hdr.of_nanoseconds(delay_ns),
            "service": hdr.of_nanoseconds(service_ns),
            "response": hdr.of_nanoseconds(service_ns + delay_ns),
        }
        slices.append(
            TimeSlice(index, ok=Latencies(spans), completed=count, inferences=count, good=count)
        )
    return slices


def join(endpoint: MasterEndpoint, token: bytes, name: str) -> None:
    """One worker, from its greeting until this process ends."""
    client = CountingClient(endpoint.host, endpoint.port, name, token=token)
    if not client.enter(ENTER_WITHIN_S):
        sys.exit(f"{name} did not join within {ENTER_WITHIN_S:.0f} s: {client.refused}")
    runner = make_runner(client)
    if runner is None:
        sys.exit(f"{name}: the master is gone")
    # Files are not needed: as a worker on the master's machine, it is asked for none.
    HubWorker(runner, WorkerSettings(local=True))


def main() -> None:
    """Join so many times; leave when standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--join", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--requests-per-s", type=float, required=True, help="of each worker")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    of_workers: Any = hub_worker
    of_workers.LoadPart = SimulatedPart
    of_locust: Any = runners  # as the workers' own process has it
    of_locust.WORKER_REPORT_INTERVAL, of_locust.WORKER_LOG_REPORT_INTERVAL = NEVER_S, -1
    SimulatedPart.drawn = draw_slices(options.requests_per_s)
    endpoint = parse_endpoint(options.join, "--join")
    token = join_token([endpoint])
    for number in range(options.count):
        join(endpoint, token, f"simulated-{os.getpid()}-{number}")
    with FileObjectPosix(sys.stdin.fileno(), "rb") as lines:
        lines.read()
    told = {"requests": Told.requests, "reports": Told.reports, "sent_bytes": Told.sent_bytes}
    print(json.dumps(told), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

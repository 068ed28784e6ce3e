"""Load generators: resident Locust processes, one trial after another.

A trial has two orders. `prepare` reads and encodes payloads and connects the users; when all
processes are ready, `measure` gives them one common instant to start at. From then on they report
what they see in slices of time, and a watcher here says when the load is steady, which opens the
window, and when the window has shown enough, which ends the trial.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import UsageError
from harness.load.generators.driver import LoadDriver, TrialWatcher
from harness.load.generators.messages import LoadProgress, Prepare
from harness.load.generators.process import START_TIMEOUT_S, GeneratorProcess, gather
from harness.load.transports.address import Target
from harness.load.transports.opening import answers_are_stamped
from harness.types import (
    GrpcImplementation,
    LoadResult,
    RequestBound,
    TensorSpec,
    WireProtocol,
    Workload,
)

REQUEST_TIMEOUT_S = 30.0
PREPARE_TIMEOUT_S = 60.0
"""Reading, encoding and connecting; the wait for connections is bounded by the request timeout."""
DRAIN_GRACE_S = 5.0
"""Seconds beyond the time in which every request in flight ends by itself: it may have to connect
first."""
_NS = 1_000_000_000


@dataclass(frozen=True)
class LoadJob:
    """One load: what is sent to which model, and what must come back."""

    model: str
    payloads: Path
    """A file of `harness.load.requests.payloads.write_payloads`."""
    outputs: tuple[TensorSpec, ...]
    workload: Workload
    known_answers: Path | None = None
    """A file of `harness.load.requests.answers.write_known_answers`."""
    records: Path | None = None
    """Folder where each process writes all its requests (Parquet); None keeps histograms only."""
    bounds: tuple[RequestBound, ...] = ()
    """The objective's clauses on latencies, by which requests are counted as good."""


class LoadGenerators:
    """Drives load from `workers` Locust processes; a context manager.

    They are started once and reused over trials; one that died or was killed is started again by
    the next `run`. None outlives its parent: they leave when their standard input ends, and the
    kernel kills them when the thread that started them dies.

    Args:
        http: the server's HTTP side.
        grpc: the server's gRPC side.
        workers: how many processes; the load is split over them.
        log_dir: each writes `generator-<n>.log` there.
        cpus: the only CPUs they may run on.
        request_timeout_s: a request without an answer for so long is a failure, `timeout`.
        implementation: what speaks gRPC.
    """

    def __init__(
        self,
        *,
        http: Target,
        grpc: Target,
        workers: int,
        log_dir: Path,
        cpus: Sequence[int] | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        implementation: GrpcImplementation = GrpcImplementation.NATIVE,
    ) -> None:
        if workers < 1:
            raise UsageError(f"load needs at least one worker, not {workers}")
        self._targets = {WireProtocol.HTTP: http, WireProtocol.GRPC: grpc}
        self._log_dir = log_dir
        self._cpus = cpus
        self._request_timeout_s = request_timeout_s
        self._implementation = implementation
        self._processes: list[GeneratorProcess | None] = [None] * workers

    def __enter__(self) -> Self:
        """Start the processes; they come up while the caller goes on."""
        try:
            self._revive()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all load-generating processes."""
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the load generators that run."""
        return tuple(one.pid for one in self._processes if one is not None and one.alive)

    def run(
        self,
        job: LoadJob,
        watcher: TrialWatcher,
        *,
        check: Callable[[], None] = lambda: None,
        listen: Callable[[int, LoadProgress], None] = lambda _worker, _report: None,
    ) -> LoadResult:
        """Drive one trial: warm up, measure, drain.

        Args:
            job: the trial.
            watcher: opens the window and ends it.
            check: called every second of the load; what it raises ends the trial at once.
            listen: called with every report as it comes, and with the index of its process.

        Raises:
            GeneratorError: a process died, failed or hung. The trial is lost, the generators are
                not: the next `run` works.
        """
        processes = self._revive()
        load = secrets.token_hex(4)
        shares = split_concurrency(job.workload.concurrency, len(processes))
        busy = [process for process, share in zip(processes, shares, strict=True) if share]
        try:
            self._prepare(load, job, busy, shares)
            driver = LoadDriver(busy, job.workload, watcher, check, listen, load=load)
            result = driver.drive(drain_s=2 * self._request_timeout_s + DRAIN_GRACE_S)
        except BaseException:
            # Whatever it was, Ctrl-C included: nobody may go on sending.
            for process in busy:
                process.kill()
            raise
        protocol = job.workload.protocol
        stamped = answers_are_stamped(protocol, self._targets[protocol], self._implementation)
        return replace(result, answers_stamped=stamped)

    def close(self) -> None:
        """End every process; closing twice is fine."""
        for index, process in enumerate(self._processes):
            if process is not None:
                process.stop()
            self._processes[index] = None

    def _revive(self) -> list[GeneratorProcess]:
        """All processes; those that are gone are started again."""
        for index, process in enumerate(self._processes):
            if process is None or not process.alive:
                if process is not None:
                    process.kill()
                self._processes[index] = GeneratorProcess(index, self._log_dir, self._cpus)
        return [process for process in self._processes if process is not None]

    def _prepare(
        self, load: str, job: LoadJob, busy: Sequence[GeneratorProcess], shares: Sequence[int]
    ) -> None:
        for process in busy:
            records = job.records and job.records.resolve() / f"worker-{process.index}.parquet"
            order = Prepare(
                target=self._targets[job.workload.protocol],
                grpc=self._implementation,
                model=job.model,
                payloads=job.payloads.resolve(),
                known_answers=job.known_answers and job.known_answers.resolve(),
                outputs=job.outputs,
                workload=job.workload,
                share=shares[process.index],
                first_user=sum(shares[: process.index]),
                worker=process.index,
                workers=len(busy),
                request_timeout_s=self._request_timeout_s,
                records=records,
                bounds=job.bounds,
                load=load,
            )
            process.send(order)
        allowed_s = START_TIMEOUT_S + PREPARE_TIMEOUT_S + self._request_timeout_s
        gather(busy, deadline_ns=time.monotonic_ns() + int(allowed_s * _NS))


def split_concurrency(concurrency: int, processes: int) -> list[int]:
    """Spread requests in flight over processes, the remainder over the first of them."""
    whole, remainder = divmod(concurrency, processes)
    return [whole + (index < remainder) for index in range(processes)]

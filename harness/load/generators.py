"""Load generators: resident Locust processes, one trial after another.

A trial has two orders. `prepare` reads and encodes payloads and connects the users; when all
processes are ready, `measure` gives them one common instant to start at. The window begins after
the warm-up and is the same for every process, and for the telemetry that opens with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import GeneratorError, UsageError
from harness.load.process import START_TIMEOUT_S, GeneratorProcess, gather, watch
from harness.load.recorder import merge_counts
from harness.load.wire import Measure, Measured, Prepare
from harness.types import LoadMode, LoadResult, TensorSpec, WireProtocol, Workload

REQUEST_TIMEOUT_S = 30.0
PREPARE_TIMEOUT_S = 60.0
"""Reading, encoding and connecting; the wait for connections is bounded by the request timeout."""
DRAIN_GRACE_S = 5.0
"""Beyond the request timeout, in which every request in flight ends by itself."""
LEAD_S = 0.05
"""From the order to the common start: time for it to reach every process."""


@dataclass(frozen=True)
class LoadJob:
    """What is sent to whom, and what must come back."""

    model: str
    payloads: Path
    """A file of `harness.load.payloads.write_payloads`."""
    outputs: tuple[TensorSpec, ...]
    workload: Workload


class LoadGenerators:
    """Drives load from `processes` Locust processes; a context manager.

    They are started once and reused over trials; one that died or was killed is started anew by
    the next `run`. None outlives its parent: they leave when their standard input ends, and the
    kernel kills them when the thread that started them dies.

    Args:
        http: the server's HTTP address, HOST:PORT.
        grpc: the server's gRPC address, HOST:PORT.
        processes: how many; the concurrency is split over them.
        log_dir: each writes `generator-<n>.log` there.
        cpus: the only CPUs they may run on.
        request_timeout_s: a request without an answer for so long is a failure, `timeout`.
    """

    def __init__(
        self,
        *,
        http: str,
        grpc: str,
        processes: int,
        log_dir: Path,
        cpus: Sequence[int] | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        if processes < 1:
            raise UsageError(f"load needs at least one generator process, not {processes}")
        self._addresses = {WireProtocol.HTTP: http, WireProtocol.GRPC: grpc}
        self._log_dir = log_dir
        self._cpus = cpus
        self._request_timeout_s = request_timeout_s
        self._processes: list[GeneratorProcess | None] = [None] * processes

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
        """End the processes."""
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that run."""
        return tuple(one.pid for one in self._processes if one is not None and one.alive)

    def run(
        self,
        job: LoadJob,
        *,
        on_window_start: Callable[[], None],
        on_window_end: Callable[[], None],
        check: Callable[[], None] = lambda: None,
    ) -> LoadResult:
        """Drive one trial: warm up, measure, drain.

        Args:
            job: the trial.
            on_window_start: called when the window opens.
            on_window_end: called when it closes, before the drain; not called after an error.
            check: called every second of the load; what it raises ends the trial at once.

        Raises:
            GeneratorError: a process died, failed or hung. The trial is lost, the generators are
                not: the next `run` works.
        """
        if job.workload.load_mode is not LoadMode.CLOSED:
            raise UsageError(f"the load generators do not drive {job.workload.load_mode} loops")
        crew = self._revive()
        shares = split_concurrency(job.workload.concurrency, len(crew))
        busy = [process for process, share in zip(crew, shares, strict=True) if share]
        try:
            self._prepare(job, busy, shares)
            order = _schedule(job.workload)
            for process in busy:
                process.send(order)
            watch(busy, until_ns=order.window_start_ns, check=check)
            on_window_start()
            watch(busy, until_ns=order.window_end_ns, check=check)
            on_window_end()
            drained_ns = order.window_end_ns + int((self._request_timeout_s + DRAIN_GRACE_S) * 1e9)
            answers = gather(busy, deadline_ns=drained_ns)
        except BaseException:
            # Whatever it was, Ctrl-C included: nobody may go on sending.
            for process in busy:
                process.kill()
            raise
        return _join([one for one in answers if isinstance(one, Measured)], order)

    def close(self) -> None:
        """End every process; closing twice is fine."""
        for index, process in enumerate(self._processes):
            if process is not None:
                process.stop()
            self._processes[index] = None

    def _revive(self) -> list[GeneratorProcess]:
        """The processes, those that are gone started anew."""
        fresh = []
        for index, process in enumerate(self._processes):
            if process is None or not process.alive:
                if process is not None:
                    process.kill()
                started = GeneratorProcess(index, self._log_dir, self._cpus)
                self._processes[index] = started
                fresh.append(started)
        return [process for process in self._processes if process is not None]

    def _prepare(
        self, job: LoadJob, busy: Sequence[GeneratorProcess], shares: Sequence[int]
    ) -> None:
        workload = job.workload
        for process in busy:
            order = Prepare(
                protocol=workload.protocol,
                address=self._addresses[workload.protocol],
                model=job.model,
                payloads=job.payloads.resolve(),
                outputs=job.outputs,
                client_batch_size=workload.client_batch_size,
                users=shares[process.index],
                first_user=sum(shares[: process.index]),
                seed=workload.seed,
                request_timeout_s=self._request_timeout_s,
            )
            process.send(order)
        allowed_s = START_TIMEOUT_S + PREPARE_TIMEOUT_S + self._request_timeout_s
        gather(busy, deadline_ns=time.monotonic_ns() + int(allowed_s * 1e9))


def split_concurrency(concurrency: int, processes: int) -> list[int]:
    """Spread requests in flight over processes, the remainder over the first of them."""
    whole, remainder = divmod(concurrency, processes)
    return [whole + (index < remainder) for index in range(processes)]


def _schedule(workload: Workload) -> Measure:
    start_ns = time.monotonic_ns() + int(LEAD_S * 1e9)
    window_start_ns = start_ns + int(workload.warmup_s * 1e9)
    return Measure(start_ns, window_start_ns, window_start_ns + int(workload.duration_s * 1e9))


def _join(parts: Sequence[Measured], order: Measure) -> LoadResult:
    if not parts:
        raise GeneratorError("no load generator answered with a measurement")
    counts = merge_counts([part.counts for part in parts])
    return LoadResult(
        window_start_ns=order.window_start_ns,
        window_end_ns=order.window_end_ns,
        histograms=counts.histograms,
        schedule_delay=counts.schedule_delay,
        completed=counts.completed,
        failures=counts.failures,
        generator_cpu=max(part.cpu_cores for part in parts),
        first_failure=counts.first_failure,
    )

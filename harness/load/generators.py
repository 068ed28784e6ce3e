"""Load generators: resident Locust processes, one trial after another.

A trial has two orders. `prepare` reads and encodes payloads and connects the users; when all
processes are ready, `measure` gives them one common instant to start at. From then on they report
what they see in slices of time, and a watcher here says when the load is steady, which opens the
window, and when the window has shown enough, which ends the trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from harness.errors import UsageError
from harness.load.collector import Collector
from harness.load.process import START_TIMEOUT_S, GeneratorProcess, gather, take_answers
from harness.load.transports.address import Target
from harness.load.transports.opening import GrpcImplementation, answers_are_stamped
from harness.load.wire import Measure, Measured, Prepare, Progress, Stop
from harness.types import LoadResult, TensorSpec, TimeSlice, WireProtocol, Workload

REQUEST_TIMEOUT_S = 30.0
PREPARE_TIMEOUT_S = 60.0
"""Reading, encoding and connecting; the wait for connections is bounded by the request timeout."""
DRAIN_GRACE_S = 5.0
"""Beyond the request timeout, in which every request in flight ends by itself."""
LEAD_S = 0.05
"""From an order to the instant it names: time for it to reach every process."""
SLICE_S = 0.05
CHECK_EVERY_S = 1.0
_NS = 1_000_000_000


@dataclass(frozen=True)
class LoadJob:
    """What is sent to whom, and what must come back."""

    model: str
    payloads: Path
    """A file of `harness.load.payloads.write_payloads`."""
    outputs: tuple[TensorSpec, ...]
    workload: Workload
    known_answers: Path | None = None
    """A file of `harness.load.known_answers.write_known_answers`."""
    records: Path | None = None
    """Folder for a Parquet file of every request a process; None keeps histograms only."""


class TrialWatcher(Protocol):
    """Steers a load while it runs; the slices it is shown are complete, from the load's start."""

    def steady(self, slices: Sequence[TimeSlice]) -> bool:
        """Whether the warm-up may end."""

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        """Whether the measured slices show enough to end the trial."""

    def on_window_start(self) -> None:
        """The measured window opens now."""

    def on_window_end(self) -> None:
        """It closes now, before the drain; not called after an error."""


class LoadGenerators:
    """Drives load from `workers` Locust processes; a context manager.

    They are started once and reused over trials; one that died or was killed is started anew by
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
        """End the processes."""
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that run."""
        return tuple(one.pid for one in self._processes if one is not None and one.alive)

    def run(
        self,
        job: LoadJob,
        watcher: TrialWatcher,
        *,
        check: Callable[[], None] = lambda: None,
        listen: Callable[[int, Progress], None] = lambda _worker, _report: None,
    ) -> LoadResult:
        """Drive one trial: warm up, measure, drain.

        Args:
            job: the trial.
            watcher: opens the window and ends it.
            check: called every second of the load; what it raises ends the trial at once.
            listen: told of every report, and which process it came from, as it comes.

        Raises:
            GeneratorError: a process died, failed or hung. The trial is lost, the generators are
                not: the next `run` works.
        """
        crew = self._revive()
        shares = split_concurrency(job.workload.concurrency, len(crew))
        busy = [process for process, share in zip(crew, shares, strict=True) if share]
        try:
            self._prepare(job, busy, shares)
            protocol = job.workload.protocol
            running = _RunningLoad(
                busy,
                job.workload,
                watcher,
                check,
                listen,
                answers_stamped=answers_are_stamped(
                    protocol, self._targets[protocol], self._implementation
                ),
            )
            return running.drive(drain_s=self._request_timeout_s + DRAIN_GRACE_S)
        except BaseException:
            # Whatever it was, Ctrl-C included: nobody may go on sending.
            for process in busy:
                process.kill()
            raise

    def close(self) -> None:
        """End every process; closing twice is fine."""
        for index, process in enumerate(self._processes):
            if process is not None:
                process.stop()
            self._processes[index] = None

    def _revive(self) -> list[GeneratorProcess]:
        """The processes, those that are gone started anew."""
        for index, process in enumerate(self._processes):
            if process is None or not process.alive:
                if process is not None:
                    process.kill()
                self._processes[index] = GeneratorProcess(index, self._log_dir, self._cpus)
        return [process for process in self._processes if process is not None]

    def _prepare(
        self, job: LoadJob, busy: Sequence[GeneratorProcess], shares: Sequence[int]
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
            )
            process.send(order)
        allowed_s = START_TIMEOUT_S + PREPARE_TIMEOUT_S + self._request_timeout_s
        gather(busy, deadline_ns=time.monotonic_ns() + int(allowed_s * _NS))


def split_concurrency(concurrency: int, processes: int) -> list[int]:
    """Spread requests in flight over processes, the remainder over the first of them."""
    whole, remainder = divmod(concurrency, processes)
    return [whole + (index < remainder) for index in range(processes)]


class _RunningLoad:
    """One load from its first request to its last."""

    def __init__(
        self,
        busy: Sequence[GeneratorProcess],
        workload: Workload,
        watcher: TrialWatcher,
        check: Callable[[], None],
        listen: Callable[[int, Progress], None],
        *,
        answers_stamped: bool,
    ) -> None:
        self._busy = busy
        self._answers_stamped = answers_stamped
        self._workload = workload
        self._watcher = watcher
        self._check = check
        self._tell = listen
        self._slice_ns = int(SLICE_S * _NS)
        self._start_ns = time.monotonic_ns() + int(LEAD_S * _NS)
        self._collector = Collector(
            [process.index for process in busy], self._start_ns, self._slice_ns
        )
        self._measured: dict[int, Measured] = {}
        self._next_check_ns = 0

    def drive(self, *, drain_s: float) -> LoadResult:
        workload = self._workload
        warmup_ns = _whole_slices(workload.warmup_s, self._slice_ns)
        longest_ns = max(self._slice_ns, _whole_slices(workload.duration_s, self._slice_ns))
        last_ns = self._start_ns + warmup_ns + longest_ns
        self._send(Measure(self._start_ns, self._slice_ns, last_ns))
        window_start_ns = self._wait_for_steady_state(self._start_ns + warmup_ns)
        self._listen(until_ns=window_start_ns)
        self._watcher.on_window_start()
        window_end_ns = self._wait_for_decision(window_start_ns, window_start_ns + longest_ns)
        self._send(Stop(window_end_ns))
        self._listen(until_ns=window_end_ns)
        self._watcher.on_window_end()
        self._drain(window_end_ns + int(drain_s * _NS))
        return self._result(window_start_ns, window_end_ns)

    def _wait_for_steady_state(self, latest_ns: int) -> int:
        """When the window opens: a slice's edge, at the latest the one given."""
        while time.monotonic_ns() + self._slice_ns < latest_ns:
            self._listen(until_ns=min(latest_ns, time.monotonic_ns() + self._slice_ns))
            if self._watcher.steady(self._collector.complete()):
                return min(latest_ns, self._next_edge(time.monotonic_ns()))
        return latest_ns

    def _wait_for_decision(self, window_start_ns: int, latest_ns: int) -> int:
        """When the window closes: a slice's edge, at the latest the one given."""
        shortest_s = self._workload.min_duration_s
        if shortest_s is None:
            self._listen(until_ns=latest_ns - int(LEAD_S * _NS))
            return latest_ns
        self._listen(until_ns=min(latest_ns, window_start_ns + int(shortest_s * _NS)))
        first = (window_start_ns - self._start_ns) // self._slice_ns
        lead_ns = int(LEAD_S * _NS)
        while time.monotonic_ns() + lead_ns < latest_ns:
            if self._watcher.decided(self._collector.complete()[first:]):
                return min(latest_ns, self._next_edge(time.monotonic_ns() + lead_ns))
            self._listen(until_ns=min(latest_ns, time.monotonic_ns() + self._slice_ns))
        return latest_ns

    def _next_edge(self, instant_ns: int) -> int:
        return self._start_ns + -(-(instant_ns - self._start_ns) // self._slice_ns) * self._slice_ns

    def _send(self, order: Measure | Stop) -> None:
        for process in self._busy:
            process.send(order)

    def _listen(self, *, until_ns: int) -> None:
        """Take in reports until an instant; a process that dies, and `check`, may end the load."""
        while (now_ns := time.monotonic_ns()) < until_ns:
            if now_ns >= self._next_check_ns:
                self._check()
                self._next_check_ns = now_ns + int(CHECK_EVERY_S * _NS)
            self._take(until_ns=min(until_ns, self._next_check_ns))

    def _take(self, *, until_ns: int) -> None:
        listening = [one for one in self._busy if one.index not in self._measured]
        if not listening:
            time.sleep(max(0, until_ns - time.monotonic_ns()) / _NS)
            return
        for worker, answer in take_answers(listening, until_ns=until_ns):
            if isinstance(answer, Progress):
                self._collector.add(worker, answer)
                self._tell(worker, answer)
            elif isinstance(answer, Measured):
                self._measured[worker] = answer

    def _drain(self, deadline_ns: int) -> None:
        while missing := [one for one in self._busy if one.index not in self._measured]:
            if time.monotonic_ns() >= deadline_ns:
                raise missing[0].failure("hangs: it missed its deadline")
            self._take(until_ns=deadline_ns)

    def _result(self, window_start_ns: int, window_end_ns: int) -> LoadResult:
        problems = [one.records_problem for one in self._measured.values()]
        failed = [one for one in self._measured.values() if one.first_failure]
        first = min(failed, key=lambda one: one.first_failure_ns, default=None)
        count = (window_end_ns - self._start_ns) // self._slice_ns
        return LoadResult(
            start_ns=self._start_ns,
            slice_s=self._slice_ns / _NS,
            slices=tuple(self._collector.until(count)),
            window_start_ns=window_start_ns,
            window_end_ns=window_end_ns,
            generators=self._collector.evidence(window_start_ns, window_end_ns),
            first_failure=first.first_failure if first else "",
            records_problem=next(filter(None, problems), ""),
            answers_stamped=self._answers_stamped,
        )


def _whole_slices(seconds: float, slice_ns: int) -> int:
    return round(seconds * _NS / slice_ns) * slice_ns

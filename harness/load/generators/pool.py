"""Load generators: resident Locust processes, here or elsewhere, one trial after another.

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
from typing import Self

from harness.errors import EnvironmentFailure, UsageError
from harness.load.generators.driver import LoadDriver, TrialWatcher
from harness.load.generators.generator import Generator, gather
from harness.load.generators.master_endpoint import MasterEndpoint
from harness.load.generators.messages import LoadProgress, Prepare
from harness.load.generators.process import START_TIMEOUT_S
from harness.load.generators.switchboard import Switchboard
from harness.load.transports.address import Target
from harness.load.transports.opening import answers_are_stamped, longest_request_s
from harness.load.transports.streams.counting import tokenizer_file
from harness.types import (
    GrpcImplementation,
    LoadResult,
    RequestBound,
    TensorSpec,
    WireProtocol,
    Workload,
)
from harness.words.numbers import seconds

REQUEST_TIMEOUT_S = 30.0
PREPARE_TIMEOUT_S = 60.0
"""Reading, encoding and connecting; the wait for connections is bounded by the request timeout."""
DRAIN_GRACE_S = 5.0
"""Seconds beyond the time in which every request in flight ends by itself: it may have to connect
first."""
WORKERS_WITHIN_S = 600.0
"""For workers elsewhere to join, or to come back."""
TELL_EVERY_S = 30.0
_NS = 1_000_000_000


@dataclass(frozen=True)
class Joining:
    """Workers that others start, and that join."""

    endpoint: MasterEndpoint
    """Where they do."""
    expected: int = 1
    """So many are waited for before the first load."""
    least: int = 1
    """Fewer than that, and a load waits for them to come back."""
    tell: Callable[[str], None] = lambda _: None
    """Takes a line that a person should read: who has joined, who is missing."""


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
    """Drives load from Locust processes; a context manager.

    They are started once and reused over trials; one that died or was killed is started again by
    the next `run`. None outlives its parent: the kernel kills them when the thread that started
    them dies. Workers that have joined from elsewhere are nobody's here: a load is told to them and
    ended there, and one that is gone is done without, or waited for.

    Args:
        http: the server's HTTP side.
        grpc: the server's gRPC side.
        workers: how many processes are started here, or what is known of those that others start;
            the load is split over them.
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
        workers: int | Joining,
        log_dir: Path,
        cpus: Sequence[int] | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        implementation: GrpcImplementation = GrpcImplementation.NATIVE,
    ) -> None:
        self._joining = workers if isinstance(workers, Joining) else None
        self._workers = 0 if isinstance(workers, Joining) else workers
        if self._joining is None and self._workers < 1:
            raise UsageError(f"load needs at least one worker, not {workers}")
        self._targets = {WireProtocol.HTTP: http, WireProtocol.GRPC: grpc}
        self._log_dir = log_dir
        self._cpus = cpus
        self._request_timeout_s = request_timeout_s
        self._implementation = implementation
        self._complete = False
        """All workers that are expected have joined, if only for a while."""
        self._switchboard: Switchboard | None = None

    def __enter__(self) -> Self:
        """Start the processes; they come up while the caller goes on."""
        try:
            self._revive()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all load-generating processes."""
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the load generators that run here."""
        own = self._switchboard.own[: self._workers] if self._switchboard else ()
        return tuple(one.pid for one in own if one.alive)

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
        switchboard = self._revive()
        generators: Sequence[Generator] = switchboard.own[: self._workers]
        if self._joining is not None:
            generators = self._present(switchboard, self._joining)
        shares = split_concurrency(job.workload.concurrency, len(generators))
        busy = [one for one, share in zip(generators, shares, strict=True) if share]
        load, protocol = secrets.token_hex(4), job.workload.protocol
        try:
            self._prepare(load, job, busy, shares)
            running = LoadDriver(busy, job.workload, watcher, check, listen, load=load)
            result = running.drive(drain_s=drain_s(job.workload, self._request_timeout_s))
            problem = switchboard.await_records()
            return replace(
                result,
                records_problem=result.records_problem or problem,
                answers_stamped=answers_are_stamped(
                    protocol, self._targets[protocol], self._implementation
                ),
                joined_at=str(self._joining.endpoint.advertised) if self._joining else "",
            )
        except BaseException:
            # Whatever it was, Ctrl-C included: nobody may go on sending.
            for one in busy:
                one.kill()
            raise

    def close(self) -> None:
        """End every process; closing twice is fine."""
        switchboard, self._switchboard = self._switchboard, None
        if switchboard is not None:
            switchboard.close()

    def _revive(self) -> Switchboard:
        """The switchboard with all processes of its own; those that are gone are started again."""
        if self._switchboard is not None and not self._switchboard.alive:
            self.close()
        if self._switchboard is None:
            others = self._joining
            self._switchboard = Switchboard(
                self._log_dir,
                self._cpus,
                endpoint=others.endpoint if others else None,
                tell=others.tell if others else lambda _: None,
            )
        self._switchboard.revive(self._workers)
        return self._switchboard

    def _present(self, switchboard: Switchboard, joining: Joining) -> Sequence[Generator]:
        """The workers that have joined; waits for as many as there have to be.

        Raises:
            EnvironmentFailure: they do not come.
        """
        deadline_s = time.monotonic() + WORKERS_WITHIN_S
        tell_at_s = 0.0
        switchboard.receive(timeout_s=0)
        while len(present := switchboard.joined) < self._wanted(joining):
            now_s = time.monotonic()
            said = f"{len(present)} of {self._wanted(joining)} workers are there"
            how = f"on another machine: harness worker --join {joining.endpoint.advertised}"
            if now_s >= deadline_s:
                raise EnvironmentFailure(
                    f"{said} after {seconds(WORKERS_WITHIN_S)} s",
                    next_step=f"start more of them ({how}), then go on with --resume",
                )
            if now_s >= tell_at_s:
                joining.tell(f"{said}; {how}")
                tell_at_s = now_s + TELL_EVERY_S
            switchboard.receive(timeout_s=min(tell_at_s, deadline_s) - now_s)
        self._complete = True
        return present

    def _wanted(self, joining: Joining) -> int:
        return joining.least if self._complete else joining.expected

    def _prepare(
        self, load: str, job: LoadJob, busy: Sequence[Generator], shares: Sequence[int]
    ) -> None:
        for place, one in enumerate(busy):
            records = job.records and job.records.resolve() / f"worker-{one.index}.parquet"
            order = Prepare(
                target=self._targets[job.workload.protocol],
                grpc=self._implementation,
                model=job.model,
                payloads=job.payloads.resolve(),
                known_answers=job.known_answers and job.known_answers.resolve(),
                outputs=job.outputs,
                workload=with_tokenizer_file(job.workload),
                share=shares[place],
                first_user=sum(shares[:place]),
                worker=place,
                workers=len(busy),
                request_timeout_s=self._request_timeout_s,
                records=records,
                bounds=job.bounds,
                load=load,
            )
            one.send(order)
        allowed_s = START_TIMEOUT_S + PREPARE_TIMEOUT_S + self._request_timeout_s
        gather(busy, deadline_ns=time.monotonic_ns() + int(allowed_s * _NS))


def with_tokenizer_file(workload: Workload) -> Workload:
    """The workload with its tokenizer's file in place of a folder: what workers can be sent."""
    generation = workload.generation
    if generation is None or generation.tokenizer is None:
        return workload
    file = tokenizer_file(generation.tokenizer).resolve()
    return replace(workload, generation=replace(generation, tokenizer=file))


def drain_s(workload: Workload, timeout_s: float) -> float:
    """How long the requests in flight at a load's end are waited for: each may have to connect."""
    return timeout_s + longest_request_s(workload, timeout_s) + DRAIN_GRACE_S


def split_concurrency(concurrency: int, processes: int) -> list[int]:
    """Spread requests in flight over processes, the remainder over the first of them."""
    whole, remainder = divmod(concurrency, processes)
    return [whole + (index < remainder) for index in range(processes)]

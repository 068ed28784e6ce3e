"""Where the benchmarks meet the load engine: the one file that knows its interface."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from harness import hdr
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.transports.address import parse_target
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    GrpcImplementation,
    LoadMode,
    LoadResult,
    TimeSlice,
    WireProtocol,
    Workload,
)

PERCENTILES = (50, 95, 99)
MOST_IN_FLIGHT = 512
"""Of an open loop here: more than falls due while a server stalls, so that nothing is dropped."""


def engine(
    http: str,
    grpc: str,
    *,
    workers: int,
    log_dir: Path,
    implementation: GrpcImplementation = GrpcImplementation.NATIVE,
) -> LoadGenerators:
    """The resident Locust processes as every trial uses them; a context manager."""
    return LoadGenerators(
        http=parse_target(http),
        grpc=parse_target(grpc),
        workers=workers,
        log_dir=log_dir,
        implementation=implementation,
    )


def run_ours(generators: LoadGenerators, job: LoadJob) -> LoadResult:
    """Drive one load to its end, with everything on that a trial has on."""
    return generators.run(job, _FixedWindow())


def closed_loop(
    protocol: str, *, in_flight: int, seconds: float, warmup_s: float = 0.0
) -> Workload:
    """So many requests in flight, one row each."""
    return Workload(
        protocol=WireProtocol(protocol),
        client_batch_size=1,
        concurrency=in_flight,
        duration_s=seconds,
        warmup_s=warmup_s,
        seed=0,
    )


def open_loop(
    protocol: str, *, rate_per_s: float, seconds: float, warmup_s: float = 0.0
) -> Workload:
    """Requests of one row that fall due at equal distances, whatever the server does."""
    return Workload(
        protocol=WireProtocol(protocol),
        client_batch_size=1,
        concurrency=MOST_IN_FLIGHT,
        duration_s=seconds,
        warmup_s=warmup_s,
        seed=0,
        load_mode=LoadMode.OPEN,
        rate_per_s=rate_per_s,
        arrivals=ArrivalProcess(ArrivalKind.CONSTANT),
    )


def percentiles_ms(slices: Sequence[TimeSlice]) -> dict[str, float]:
    """p50, p95, p99 of the response latency; no number where there were no answers."""
    merged = hdr.merge(one.ok.response for one in slices)
    values = {f"p{share}": hdr.value_at(merged, share / 100) for share in PERCENTILES}
    return {name: value for name, value in values.items() if value is not None}


class OurRun:
    """A load of ours that runs now, in a thread; `pids` are this process and the generators."""

    def __init__(self, generators: LoadGenerators, result: Future[LoadResult]) -> None:
        self._result = result
        self.pids = (os.getpid(), *generators.pids)

    def check(self) -> None:
        """Raise what ended it, if it has ended by an error."""
        if self._result.done():
            self._result.result()

    def result(self) -> LoadResult:
        """Wait for the end."""
        return self._result.result()

    def percentiles_ms(self) -> dict[str, float]:
        """Wait for the end."""
        return percentiles_ms(self.result().window)


@contextmanager
def drive_ours(generators: LoadGenerators, job: LoadJob) -> Iterator[OurRun]:
    """Start a load on generators that are up; it ends by itself."""
    with ThreadPoolExecutor(1, "ours") as pool:
        yield OurRun(generators, pool.submit(run_ours, generators, job))


class _FixedWindow:
    """A trial's watcher that lets warm-up and window run to their ends."""

    def steady(self, slices: Sequence[TimeSlice]) -> bool:  # noqa: ARG002  (the protocol's)
        return False

    def decided(self, window: Sequence[TimeSlice]) -> bool:  # noqa: ARG002  (the protocol's)
        return False

    def on_window_start(self) -> None:
        """Nothing is read at the window's edges."""

    def on_window_end(self) -> None:
        """Nothing is read at the window's edges."""

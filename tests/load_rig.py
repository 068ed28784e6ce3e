"""What the load tests share: payloads, a job, generators against the fake server."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fake_server import LOGITS, Behaviour, FakeServer
from numpy.typing import NDArray

from harness import hdr
from harness.load.engine.slices import SliceSums, dense
from harness.load.generators.messages import LoadProgress
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import write_payloads
from harness.load.transports.address import parse_target
from harness.types import (
    GrpcImplementation,
    LoadMode,
    LoadResult,
    SparseHistogram,
    TensorSpec,
    TimeSlice,
    WireProtocol,
    Workload,
)

ROWS = 20
LENGTHS = (8, 16)
REQUEST_TIMEOUT_S = 120.0
"""A busy machine stalls for seconds, and that is not a failure of what is tested."""
PATIENCE_S = 120.0
"""For what comes at once where it comes at all; a busy machine takes its time."""
LONGEST_S = 600.0
"""Of a warm-up or window that ends by what is seen in it: one that does not makes its test hang."""
ENOUGH = 20
"""Requests that a window lasts for where a test does not say otherwise."""
WORKLOAD: dict[str, Any] = {
    "concurrency": 4,
    "client_batch_size": 2,
    "duration_s": 0.5,
    "warmup_s": 0.1,
    "seed": 5,
}
"""What a test does not say otherwise."""
OPEN: dict[str, Any] = {"load_mode": LoadMode.OPEN, "concurrency": 64, "rate_per_s": 200.0}
"""The same for an open loop."""


def nothing() -> None:
    """For the ends of a window that nobody looks at."""


def never(_: Sequence[TimeSlice]) -> bool:
    """For a window that opens and closes at its latest."""
    return False


def outcomes(slices: Sequence[TimeSlice]) -> int:
    """Successes and failures that were scheduled in these slices."""
    return count_ok(slices) + failures_in(slices).total()


def enough(count: int = ENOUGH) -> Callable[[Sequence[TimeSlice]], bool]:
    """Whether so many requests have ended, for either end of a window."""
    return lambda slices: outcomes(slices) >= count


@dataclass
class Watcher:
    """A `TrialWatcher` of functions.

    Without any, the window opens and closes at its latest: then nothing is sure to be sent in it,
    because the machine may be busy with something else for so long. Where a function says when, it
    lasts until then, however long that takes (`LONGEST_S`).
    """

    steady: Callable[[Sequence[TimeSlice]], bool] = never
    decided: Callable[[Sequence[TimeSlice]], bool] = never
    on_window_start: Callable[[], None] = nothing
    on_window_end: Callable[[], None] = nothing

    @property
    def times_s(self) -> dict[str, float]:
        """What a workload has to say of it."""
        times_s = {} if self.steady is never else {"warmup_s": LONGEST_S}
        if self.decided is not never:
            times_s |= {"duration_s": LONGEST_S, "min_duration_s": 0.1}
        return times_s


def make_payloads(folder: Path) -> Path:
    """Two groups of different length; a row of input_ids is its own number, 0 to 39, repeated."""
    groups = []
    for index, length in enumerate(LENGTHS):
        numbers = np.arange(ROWS, dtype=np.int64) + ROWS * index
        ids = np.repeat(numbers[:, None], length, axis=1)
        groups.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    write_payloads(folder / "payloads.npz", groups)
    return folder / "payloads.npz"


def make_workload(**changes: Any) -> Workload:
    """`WORKLOAD` but for what a test says."""
    return Workload(**{"protocol": WireProtocol.HTTP, **WORKLOAD, **changes})


@dataclass
class Rig:
    """A fake server and load generators that aim at it."""

    server: FakeServer
    generators: LoadGenerators
    payloads: Path
    protocol: WireProtocol = WireProtocol.HTTP
    outputs: Sequence[TensorSpec] = (LOGITS,)
    reports: list[LoadProgress] = field(default_factory=list)
    """Of the latest trial."""

    def run(
        self,
        behaviour: Behaviour,
        watcher: Watcher | None = None,
        *,
        known_answers: Path | None = None,
        records: Path | None = None,
        check: Callable[[], None] = nothing,
        listen: Callable[[LoadProgress], object] = lambda _: None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        **changes: Any,
    ) -> LoadResult:
        """One trial; `server.served` afterwards holds this trial's requests alone.

        Without a watcher and a duration its window lasts until `ENOUGH` requests have ended in it.
        """
        if watcher is None:
            watcher = Watcher() if "duration_s" in changes else Watcher(decided=enough())
        changes = {**watcher.times_s, **changes}
        self.generators._request_timeout_s = request_timeout_s
        self.server.begin(behaviour)
        self.reports.clear()

        def take(_: int, report: LoadProgress) -> None:
            self.reports.append(report)
            listen(report)

        job = LoadJob(
            "m",
            self.payloads,
            tuple(self.outputs),
            make_workload(protocol=self.protocol, **changes),
            known_answers=known_answers,
            records=records,
        )
        return self.generators.run(job, watcher, check=check, listen=take)

    def reported(self, result: LoadResult) -> list[TimeSlice]:
        """All that was reported of the latest trial, whose result has its part of it.

        A process that hears late of a window's end sends beyond it, and reports that as well.
        """
        slices = dense(
            SliceSums(chain.from_iterable(one.slices for one in self.reports)), len(result.slices)
        )
        assert tuple(slices[: len(result.slices)]) == result.slices
        return slices

    @contextlib.contextmanager
    def aimed_at(self, address: str) -> Iterator[None]:
        """For a while, the generators aim both protocols at another address."""
        targets = self.generators._targets
        there = dict(targets)
        targets.update(dict.fromkeys(targets, parse_target(address)))
        try:
            yield
        finally:
            targets.update(there)


@contextlib.contextmanager
def load_rig(
    folder: Path,
    *,
    workers: int = 1,
    cpus: Sequence[int] | None = None,
    implementation: GrpcImplementation = GrpcImplementation.NATIVE,
) -> Iterator[Rig]:
    """Start both; end both."""
    with (
        FakeServer() as server,
        LoadGenerators(
            http=parse_target(server.http),
            grpc=parse_target(server.grpc),
            workers=workers,
            log_dir=folder / "logs",
            cpus=cpus,
            request_timeout_s=REQUEST_TIMEOUT_S,
            implementation=implementation,
        ) as generators,
    ):
        yield Rig(server, generators, make_payloads(folder))


def response_of(slices: Sequence[TimeSlice]) -> SparseHistogram:
    """Response latencies of the successes in these slices."""
    return hdr.merge(one.ok.response for one in slices)


def count_ok(slices: Sequence[TimeSlice]) -> int:
    """Successes that were scheduled in these slices."""
    return hdr.total(response_of(slices))


def failures_in(slices: Sequence[TimeSlice]) -> Counter[str]:
    """By kind, of requests scheduled in these slices."""
    by_kind: Counter[str] = Counter()
    for one in slices:
        by_kind.update(one.failures)
    return by_kind


def percentile_ms(result: LoadResult, percentile: float) -> float:
    """Of the window's response latencies."""
    value_ms = hdr.value_at(response_of(result.window), percentile / 100)
    assert value_ms is not None
    return value_ms


@dataclass(frozen=True)
class Records:
    """The requests of a folder of records that have one status, in the order of their schedule.

    Of those that were dropped only the schedule is known; the rest is 0.
    """

    scheduled_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    completed_ns: NDArray[np.int64]
    rows: NDArray[np.int64]
    id: NDArray[Any]
    """Empty where a request bore none."""

    def spans_ns(self) -> dict[str, NDArray[np.int64]]:
        """What each took, by span."""
        return {
            "schedule_delay": self.sent_ns - self.scheduled_ns,
            "service": self.completed_ns - self.sent_ns,
            "response": self.completed_ns - self.scheduled_ns,
        }


def check_slices(result: LoadResult, records: Records) -> None:
    """The result's slices have, to the nanosecond's histogram bucket, what its records say."""
    slice_ns = round(result.slice_s * 1e9)
    scheduled_in = (records.scheduled_ns - result.start_ns) // slice_ns
    completed_in = (records.completed_ns - result.start_ns) // slice_ns
    for one in result.slices:
        for name, span_ns in records.spans_ns().items():
            assert one.ok.of(name) == hdr.of_nanoseconds(span_ns[scheduled_in == one.index])
        assert one.completed == (completed_in == one.index).sum()
        assert one.inferences == records.rows[completed_in == one.index].sum()


def read_records(path: Path, status: str = "ok") -> Records:
    """A process's rows, or those of all in a folder."""
    table = pq.read_table(path).sort_by("scheduled_ns")
    rows = table.filter(pc.equal(table["status"].cast("string"), status))
    names = [one.name for one in fields(Records)]
    columns = [pc.fill_null(rows[name], "" if name == "id" else 0) for name in names]
    return Records(*(one.to_numpy() for one in columns))


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_until(true: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Wait until something is true, which it is soon or never."""
    deadline_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline_s, "in vain"
        time.sleep(0.01)


def wait_until_gone(pids: Sequence[int]) -> None:
    """Wait until all of them have ended."""
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def wait_until_stopped(pid: int) -> None:
    """Wait until every thread of a process has taken its SIGSTOP."""
    wait_until(lambda: thread_states(pid) == {"T"})


def thread_states(pid: int) -> set[str]:
    """The kernel's letters for the states of a process's threads; T is stopped."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


def checkout() -> Path:
    """The folder that holds `harness` and `locustfiles`."""
    return Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """For a child Python that imports the harness and the tests' helpers."""
    return {**os.environ, "PYTHONPATH": f"{checkout()}{os.pathsep}{checkout() / 'tests'}"}

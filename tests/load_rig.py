"""What the load tests share: payloads, a job, generators against the fake server."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fake_server import LOGITS, Behaviour, FakeServer, Served
from numpy.typing import NDArray

from harness import hdr
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import write_payloads
from harness.load.transports.address import parse_target
from harness.load.transports.opening import GrpcImplementation
from harness.types import (
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
REQUEST_TIMEOUT_S = 20.0
"""A busy machine stalls for seconds, and that is not a failure of what is tested."""
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


@dataclass
class Watcher:
    """A `TrialWatcher` of functions; without any, the window opens and closes at its latest."""

    steady: Callable[[Sequence[TimeSlice]], bool] = never
    decided: Callable[[Sequence[TimeSlice]], bool] = never
    on_window_start: Callable[[], None] = nothing
    on_window_end: Callable[[], None] = nothing


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

    def run(
        self,
        behaviour: Behaviour,
        watcher: Watcher | None = None,
        *,
        known_answers: Path | None = None,
        records: Path | None = None,
        check: Callable[[], None] = nothing,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        **changes: Any,
    ) -> LoadResult:
        """One trial; `server.served` afterwards holds this trial's requests alone."""
        self.generators._request_timeout_s = request_timeout_s
        self.server.behaviour = behaviour
        self.server.served.clear()
        job = LoadJob(
            "m",
            self.payloads,
            tuple(self.outputs),
            make_workload(protocol=self.protocol, **changes),
            known_answers=known_answers,
            records=records,
        )
        return self.generators.run(job, watcher or Watcher(), check=check)

    def served_in_window(self, result: LoadResult) -> list[Served]:
        """What the server received while the window was open."""
        first, last = result.window_start_ns, result.window_end_ns
        return [one for one in self.server.served if first <= one.received_ns < last]

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


def read_records(folder: Path, status: str = "ok") -> Records:
    """All processes' rows together."""
    table = pq.read_table(folder).sort_by("scheduled_ns")
    rows = table.filter(pc.equal(table["status"].cast("string"), status))
    names = [one.name for one in fields(Records)]
    return Records(*(pc.fill_null(rows[name], 0).to_numpy() for name in names))


def is_running(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_until_gone(pids: Sequence[int], *, timeout_s: float = 20.0) -> bool:
    """Whether all of them end in time."""
    deadline = time.monotonic() + timeout_s
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def checkout() -> Path:
    """The folder that holds `harness` and `locustfiles`."""
    return Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """For a child Python that imports the harness and the tests' helpers."""
    return {**os.environ, "PYTHONPATH": f"{checkout()}{os.pathsep}{checkout() / 'tests'}"}

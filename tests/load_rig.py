"""What the load tests share: payloads, a job, generators against the fake server."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_server import LOGITS, Behaviour, FakeServer
from hdrh.histogram import HdrHistogram

from harness.load.generators import LoadGenerators, LoadJob
from harness.load.payloads import write_payloads
from harness.types import LoadResult, TensorSpec, WireProtocol, Workload

ROWS = 20
LENGTHS = (8, 16)
REQUEST_TIMEOUT_S = 1.0
WORKLOAD = {
    "protocol": WireProtocol.HTTP,
    "concurrency": 4,
    "client_batch_size": 2,
    "duration_s": 0.5,
    "warmup_s": 0.1,
    "seed": 5,
}
"""What a test does not say otherwise."""


def nothing() -> None:
    """For the ends of a window that nobody looks at."""


def make_payloads(folder: Path) -> Path:
    """Two groups of different length; a row of input_ids is its own number, 0 to 39, repeated."""
    groups = []
    for index, length in enumerate(LENGTHS):
        numbers = np.arange(ROWS, dtype=np.int64) + ROWS * index
        ids = np.repeat(numbers[:, None], length, axis=1)
        groups.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    write_payloads(folder / "payloads.npz", groups)
    return folder / "payloads.npz"


class Rig:
    """A fake server and load generators that aim at it."""

    def __init__(self, server: FakeServer, generators: LoadGenerators, payloads: Path) -> None:
        self.server = server
        self.generators = generators
        self.payloads = payloads

    def run(
        self,
        behaviour: Behaviour,
        *,
        outputs: Sequence[TensorSpec] = (LOGITS,),
        on_window_start: Callable[[], None] = nothing,
        on_window_end: Callable[[], None] = nothing,
        **changes: Any,
    ) -> LoadResult:
        """One trial; `server.served` afterwards holds this trial's requests alone."""
        self.server.behaviour = behaviour
        self.server.served.clear()
        settings = {**WORKLOAD, **changes}
        settings["protocol"] = WireProtocol(settings["protocol"])
        workload = Workload(**settings)
        return self.generators.run(
            LoadJob("m", self.payloads, tuple(outputs), workload),
            on_window_start=on_window_start,
            on_window_end=on_window_end,
        )


@contextlib.contextmanager
def load_rig(
    folder: Path, *, processes: int = 1, cpus: Sequence[int] | None = None
) -> Iterator[Rig]:
    """Start both; end both."""
    with (
        FakeServer() as server,
        LoadGenerators(
            http=server.http,
            grpc=server.grpc,
            processes=processes,
            log_dir=folder / "logs",
            cpus=cpus,
            request_timeout_s=REQUEST_TIMEOUT_S,
        ) as generators,
    ):
        yield Rig(server, generators, make_payloads(folder))


def merged(result: LoadResult) -> HdrHistogram:
    """The window's latencies in one histogram."""
    whole = HdrHistogram(1, 3_600_000_000, 3)
    for block in result.histograms:
        whole.decode_and_add(block)
    return whole


def percentile_ms(result: LoadResult, percentile: float) -> float:
    """Of the whole window."""
    return float(merged(result).get_value_at_percentile(percentile)) / 1000


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

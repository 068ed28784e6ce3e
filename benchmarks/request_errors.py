"""Request by request: what a client recorded against what the server did, joined by the id.

Percentiles of two noisy runs say little of a client; the same request seen from both sides says how
much it adds to that request. The error is what the client took it to be (sent to completed) beyond
what it really was (received to answered, `timed_server.py`): the loopback, and the client itself.

A processor that the machine takes away meanwhile is no fault of the client's, so the machine is
watched: a sample every 20 ms says how long threads of client and server were ready to run and did
not, and how much the hypervisor took. Requests that overlap a stretch in which that grew by more
than 0.2 ms are left out of the verdict, and their share is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

SAMPLE_EVERY_S = 0.02
LOST_NS = 200_000
"""In one sample: more is a stretch in which client or server stalled."""
MEDIAN_LIMIT_US, P99_LIMIT_US = 50.0, 200.0


@dataclass(frozen=True)
class RequestErrors:
    """One run's, over the requests that both sides know."""

    requests: int
    """Of the client's successes."""
    joined: int
    """Those of them that the server's log has, under the same id."""
    quiet: int
    """Those of them while neither side lost a processor."""
    median_us: float
    p99_us: float
    """Both over the quiet ones; nan without any."""
    worst_us: float
    p99_of_all_us: float

    @property
    def recovered(self) -> bool:
        """Whether every request was joined, and the quiet ones are within the limits."""
        return (
            self.joined == self.requests
            and self.median_us <= MEDIAN_LIMIT_US
            and self.p99_us <= P99_LIMIT_US
        )


def request_errors(
    records: Path, truth: Mapping[str, tuple[int, int]], lost: Sequence[tuple[int, int]]
) -> RequestErrors:
    """Join a folder of records with a server's log.

    Args:
        records: Parquet files as `--records` writes them.
        truth: when each request was received and answered, by id.
        lost: stretches in which a processor was lost, nanoseconds of CLOCK_MONOTONIC, in order.
    """
    table = _successes(records)
    sent, completed = (table[name].to_numpy() for name in ("sent_ns", "completed_ns"))
    known = [truth.get(one) for one in table["id"].to_pylist()]
    there = np.array([one is not None for one in known], dtype=bool)
    really = np.array([one for one in known if one is not None], dtype=np.int64).reshape(-1, 2)
    errors_us = (completed[there] - sent[there] - (really[:, 1] - really[:, 0])) / 1e3
    quiet = ~_overlapping(sent[there], completed[there], lost)
    return RequestErrors(
        requests=len(sent),
        joined=int(there.sum()),
        quiet=int(quiet.sum()),
        median_us=_quantile(errors_us[quiet], 0.5),
        p99_us=_quantile(errors_us[quiet], 0.99),
        worst_us=_quantile(errors_us[quiet], 1.0),
        p99_of_all_us=_quantile(errors_us, 0.99),
    )


def answered_ms(
    records: Path, truth: Mapping[str, tuple[int, int]], start_ns: int, end_ns: int
) -> NDArray[np.float64]:
    """How long after it fell due the server had answered each success, in order of size.

    Args:
        records: as `request_errors` takes them, and so is `truth`.
        truth: see there.
        start_ns: of the window in which they fell due.
        end_ns: of the same.
    """
    table = _successes(records)
    due_ns, ids = table["scheduled_ns"].to_pylist(), table["id"].to_pylist()
    waited_ns = [
        truth[one][1] - due
        for one, due in zip(ids, due_ns, strict=True)
        if one in truth and start_ns <= due < end_ns
    ]
    return np.sort(np.array(waited_ns, dtype=np.float64)) / 1e6


def _successes(records: Path) -> pa.Table:
    files = [str(path) for path in sorted(records.glob("*.parquet"))]
    return ds.dataset(files).to_table(filter=ds.field("status") == "ok")


def _quantile(values: NDArray[np.float64], quantile: float) -> float:
    return float(np.quantile(values, quantile)) if len(values) else float("nan")


def _overlapping(
    starts: NDArray[np.int64], ends: NDArray[np.int64], stretches: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    found = np.zeros(len(starts), dtype=bool)
    for first, last in stretches:
        found |= (starts < last) & (ends > first)
    return found


class LostProcessor:
    """Watches, from a thread, when the threads of some processes were kept from running.

    Args:
        pids: asked for at every sample, because a client's processes may come and go.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.stretches: list[tuple[int, int]] = []
        """From and to, nanoseconds of CLOCK_MONOTONIC."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        before_ns, before = time.monotonic_ns(), self._waited_ns()
        while not self._over.wait(SAMPLE_EVERY_S):
            now_ns, now = time.monotonic_ns(), self._waited_ns()
            grown = sum(max(0, now[key] - before.get(key, 0)) for key in now)
            late = now_ns - before_ns > 2 * SAMPLE_EVERY_S * 1e9
            if late or grown > LOST_NS:
                self.stretches.append((before_ns, now_ns))
            before_ns, before = now_ns, now

    def _waited_ns(self) -> dict[str, int]:
        """Run delay by thread (`schedstat`), and the hypervisor's steal."""
        found = {"steal": int(getattr(psutil.cpu_times(), "steal", 0.0) * 1e9)}
        for pid in self._pids():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    found[str(path)] = int(path.read_text().split()[1])
                except (OSError, IndexError):
                    continue  # a thread that has ended
        return found

"""Plain Locust with `tritonclient` (`naive_locustfile.py`), headless, as a child process."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client_process import ClientProcess, PeerError

_LOCUSTFILE = Path(__file__).with_name("naive_locustfile.py")
_START_UP_S = 120.0


@dataclass(frozen=True)
class NaiveLoad:
    """What it shall drive."""

    address: str
    """`http://host:port` or `grpc://host:port`."""
    model: str
    users: int
    seconds: float
    per_user_per_s: float = 0.0
    """Locust's `constant_throughput`; 0 sends without a pause."""


class NaiveRun:
    """A Locust that drives load now."""

    def __init__(self, process: ClientProcess, report: Path, timeout_s: float) -> None:
        self._process = process
        self._report = report
        self._timeout_s = timeout_s
        self.pids = (process.pid,)
        self.check = process.check

    def percentiles_ms(self) -> dict[str, float]:
        """Wait for the end; p50, p95 and p99 as Locust reports them.

        Raises:
            PeerError: it failed, hung, or counted failed requests.
        """
        self._process.wait(self._timeout_s)
        kinds = json.loads(self._report.read_text("utf-8"))
        if not kinds:
            raise PeerError("Locust ended before its first request")
        requests = kinds[0]
        if requests["num_failures"]:
            raise PeerError(f"naive Locust: {requests['num_failures']} requests failed")
        counts = {float(ms): count for ms, count in requests["response_times"].items()}
        return {f"p{share}": _percentile(counts, share / 100) for share in (50, 95, 99)}


@contextmanager
def drive_naively(load: NaiveLoad) -> Iterator[NaiveRun]:
    """Start Locust; it ends by itself."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "naive"
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless"]
        command += ["--host", load.address, "--model", load.model]
        command += ["--per-user", str(load.per_user_per_s)]
        command += ["--users", str(load.users), "--spawn-rate", str(load.users)]
        command += ["--run-time", f"{load.seconds:.0f}s", "--json-file", str(prefix)]
        with ClientProcess(command) as process:
            report = prefix.with_suffix(".json")
            yield NaiveRun(process, report, load.seconds + _START_UP_S)


def _percentile(counts: Mapping[float, int], quantile: float) -> float:
    """Nearest rank over Locust's rounded response times."""
    left = quantile * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    raise PeerError("naive Locust: no requests")

"""`timed_server.py` as a child process, and the truth it leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from client_process import PeerError
from latency_cases import Stall

_SERVER = Path(__file__).with_name("timed_server.py")
_EXIT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class TimedServer:
    """Where it answers, and where it writes what it did when it has ended."""

    http: str
    """host:port"""
    grpc: str
    """host:port"""
    log: Path
    pid: int

    def by_id(self) -> dict[str, tuple[int, int]]:
        """When each request was received and answered, by the id that it bore."""
        ids, log = np.load(self.log.with_suffix(".ids.npy")), np.load(self.log)
        return dict(zip(ids.tolist(), map(tuple, log.tolist()), strict=True))

    def truth_ms(self, quantile: float, start_ns: int, end_ns: int) -> float:
        """Quantile by nearest rank of what requests took that it received between two instants.

        Raises:
            PeerError: there were none.
        """
        log = np.load(self.log)
        inside = log[(log[:, 0] >= start_ns) & (log[:, 0] < end_ns)]
        if not len(inside):
            raise PeerError("the server received no request inside the window")
        spans_ns = np.sort(inside[:, 1] - inside[:, 0])
        return float(spans_ns[max(0, int(np.ceil(quantile * len(spans_ns))) - 1)]) / 1e6


@contextmanager
def timed_server(case: str, folder: Path, stall: Stall) -> Iterator[TimedServer]:
    """Start a server with a case's latencies; its log is there after the `with`."""
    log = folder / f"{case}.npy"
    command = [sys.executable, str(_SERVER), case, str(log)]
    command += ["--stall-s", str(stall.stall_s), "--period-s", str(stall.period_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101  (a pipe; tells the type checker)
            ports = process.stdout.readline().split()
            if len(ports) != 2:  # noqa: PLR2004  (HTTP and gRPC)
                raise PeerError("the timed server did not start; its words are above")
            http, grpc = (f"127.0.0.1:{port}" for port in ports)
            yield TimedServer(http, grpc, log, process.pid)
            process.communicate(timeout=_EXIT_TIMEOUT_S)
        finally:
            process.kill()

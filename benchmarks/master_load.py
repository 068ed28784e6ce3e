"""What a master does for its workers, measured with workers that report and send nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
from cached_model import CACHED_MODEL, OUTPUTS
from ours import closed_loop
from rows import Row

from harness import hdr
from harness.errors import HarnessError
from harness.load.generators.master_endpoint import MasterEndpoint
from harness.load.generators.messages import LoadProgress
from harness.load.generators.pool import Joining, LoadGenerators, LoadJob
from harness.load.requests.payloads import write_payloads
from harness.load.transports.address import parse_target
from harness.types import LoadResult, TimeSlice

A_PROCESS = 100
"""Simulated workers of one process."""
LEAVE_WITHIN_S = 60.0
_NOWHERE = "127.0.0.1:1"
_SIMULATED = Path(__file__).with_name("simulated_workers.py")


@dataclass
class _Usage:
    """Of this process, which drives the load, and of its switchboard."""

    at_s: float
    driver_cpu_s: float
    switchboard_cpu_s: float
    memory_bytes: float


_NO_USAGE = _Usage(*4 * (float("nan"),))


@dataclass
class _Looks:
    """A trial's watcher that looks whenever it may, and never has enough."""

    ages_s: list[float] = field(default_factory=list)
    """Of the newest complete slice, at each look."""
    usage: list[_Usage] = field(default_factory=list)
    """At both ends of the window."""
    intervals_s: list[float] = field(default_factory=list)
    """Between a worker's reports."""
    delays_s: list[float] = field(default_factory=list)
    """From a report's making to its being counted."""
    requests: int = 0
    _opened_ns: int = 0

    def steady(self, slices: Sequence[TimeSlice]) -> bool:  # noqa: ARG002  (the protocol's)
        return False

    def decided(self, window: Sequence[TimeSlice]) -> bool:
        covered_s = len(window) * 0.05
        self.ages_s.append((time.monotonic_ns() - self._opened_ns) / 1e9 - covered_s)
        return False

    def on_window_start(self) -> None:
        self._opened_ns = time.monotonic_ns()
        self.usage.append(_usage())

    def on_window_end(self) -> None:
        self.usage.append(_usage())

    def listen(self, _: int, report: LoadProgress) -> None:
        """Count what comes in."""
        self.intervals_s.append((report.at_ns - report.since_ns) / 1e9)
        self.delays_s.append((time.monotonic_ns() - report.at_ns) / 1e9)
        self.requests += sum(hdr.total(one.ok.response) for one in report.slices)


def master_row(
    count: int, folder: Path, *, requests_per_s: float, seconds: float, warmup_s: float
) -> Row:
    """One load of so many simulated workers, each with so many answers a second."""
    port, looks = _free_port(), _Looks()
    result: LoadResult | None = None
    said = "yes"
    with (
        _generators(port, count, folder) as generators,
        _workers(port, count, requests_per_s) as told,
    ):
        job = _job(folder, count, seconds, warmup_s)
        try:
            result = generators.run(job, looks, listen=looks.listen)
        except HarnessError as error:
            said = str(error).splitlines()[0]
    if result is not None and result.troubles:
        said = f"{len(result.troubles)} troubles: {result.troubles[0]}"
    return _row(count, looks, told, said)


def _row(count: int, looks: _Looks, told: dict[str, int], said: str) -> Row:
    begin, end = [*looks.usage, _NO_USAGE, _NO_USAGE][:2]
    elapsed_s = end.at_s - begin.at_s
    driver = (end.driver_cpu_s - begin.driver_cpu_s) / elapsed_s
    switchboard = (end.switchboard_cpu_s - begin.switchboard_cpu_s) / elapsed_s
    every_s, late_s = _median(looks.intervals_s), _median(looks.delays_s)
    return {
        "workers": count,
        "report_every_s": every_s,
        "driver_cpu_cores": driver,
        "switchboard_cpu_cores": switchboard,
        "cpu_ms_per_s_a_worker": 1e3 * (driver + switchboard) / count,
        "kib_per_s_a_worker": told["sent_bytes"] / max(1, told["reports"]) / every_s / 2**10,
        "memory_mib": end.memory_bytes / 2**20,
        "report_delay_p50_ms": 1e3 * late_s,
        "look_age_p50_ms": 1e3 * _median(looks.ages_s),
        "look_age_max_ms": 1e3 * max(looks.ages_s, default=float("nan")),
        "requests_lost": told["requests"] - looks.requests,
        "served": said,
    }


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _job(folder: Path, count: int, seconds: float, warmup_s: float) -> LoadJob:
    payloads = folder / "payloads.npz"
    if not payloads.exists():
        write_payloads(payloads, [{"input_ids": np.zeros((1, 1), np.int64)}])
    workload = closed_loop("http", in_flight=count, seconds=seconds, warmup_s=warmup_s)
    workload = replace(workload, min_duration_s=min(1.0, seconds))  # looked at from then on
    return LoadJob(CACHED_MODEL, payloads, OUTPUTS, workload)


def _generators(port: int, count: int, folder: Path) -> LoadGenerators:
    joining = Joining(MasterEndpoint("127.0.0.1", port), expected=count, least=count)
    target = parse_target(_NOWHERE)
    return LoadGenerators(
        http=target, grpc=target, workers=joining, log_dir=folder / f"logs-{count}"
    )


@contextmanager
def _workers(port: int, count: int, requests_per_s: float) -> Iterator[dict[str, int]]:
    """So many join while the block runs; at its end, what they have told all together."""
    told = dict.fromkeys(("requests", "reports", "sent_bytes"), 0)
    command = [sys.executable, str(_SIMULATED), "--join", f"127.0.0.1:{port}"]
    command += ["--requests-per-s", str(requests_per_s), "--count"]
    counts = [min(A_PROCESS, count - first) for first in range(0, count, A_PROCESS)]
    processes = [
        subprocess.Popen([*command, str(one)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for one in counts
    ]
    try:
        yield told
        for process in processes:
            out, _ = process.communicate(timeout=LEAVE_WITHIN_S)
            for name, number in json.loads(out or b"{}").items():
                told[name] += number
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _usage() -> _Usage:
    here = psutil.Process()
    (switchboard,) = (
        one for one in here.children() if "harness_locust.switchboard" in one.cmdline()
    )
    memory_bytes = here.memory_info().rss + switchboard.memory_info().rss
    times = switchboard.cpu_times()
    own = os.times()
    return _Usage(time.monotonic(), own.user + own.system, times.user + times.system, memory_bytes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

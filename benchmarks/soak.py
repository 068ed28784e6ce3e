"""Whether a long load stays what it was: memory of every process of ours, percentiles by minute.

An open loop at a share of the most that a short closed loop finds possible, on the cached model.
A row per minute; the last line says how far memory and percentiles moved after the first minute,
which allows what is filled once (pools, caches, the interpreter's arenas).

    python benchmarks/soak.py --minutes 10 --json rows.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from cached_model import CACHED_MODEL, OUTPUTS, PAYLOADS_FILE, cached_server
from ours import closed_loop, drive_ours, engine, open_loop, percentiles_ms, run_ours
from rows import Row, run_as_command, show

from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.serving.embedded.environment import ensure_server_environment
from harness.types import LoadResult

CAPACITY_S = 3.0
CAPACITY_IN_FLIGHT = 16

_MINUTE_S = 60.0
_MEBI = 2**20

MemoryByMinute = list[Mapping[int, int]]
"""At each full minute: resident bytes by process."""


def main() -> int:
    """Soak and show the rows."""
    options = _parse(sys.argv[1:])
    environment = ensure_server_environment(lambda step: print(step.note, file=sys.stderr))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cached_server(environment, folder) as server:
            http, grpc = server.endpoint.http, server.endpoint.grpc
            with engine(http, grpc, workers=options.workers, log_dir=folder / "logs") as generators:
                most_per_s = _capacity_per_s(generators, folder, options.protocol)
                rate_per_s = options.load_share * most_per_s
                result, memory = _soak(generators, folder, rate_per_s, options)
    rows = _rows(result, memory, options.minute_s)
    show(f"Soak at {rate_per_s:,.0f} requests/s ({options.protocol})", rows, options.json)
    print(_drift(rows))
    return 0


def _capacity_per_s(generators: LoadGenerators, folder: Path, protocol: str) -> float:
    workload = closed_loop(protocol, in_flight=CAPACITY_IN_FLIGHT, seconds=CAPACITY_S, warmup_s=1.0)
    result = run_ours(generators, LoadJob(CACHED_MODEL, folder / PAYLOADS_FILE, OUTPUTS, workload))
    return result.completed / result.duration_s


def _soak(
    generators: LoadGenerators, folder: Path, rate_per_s: float, options: argparse.Namespace
) -> tuple[LoadResult, MemoryByMinute]:
    seconds = options.minutes * options.minute_s
    workload = open_loop(options.protocol, rate_per_s=rate_per_s, seconds=seconds)
    job = LoadJob(CACHED_MODEL, folder / PAYLOADS_FILE, OUTPUTS, workload)
    memory: MemoryByMinute = []
    never = threading.Event()
    with drive_ours(generators, job) as run:
        for _ in range(options.minutes):
            never.wait(options.minute_s)
            run.check()
            pids = (os.getpid(), *generators.pids)
            memory.append({pid: psutil.Process(pid).memory_info().rss for pid in pids})
        return run.result(), memory


def _rows(result: LoadResult, memory: MemoryByMinute, minute_s: float) -> list[Row]:
    """A row per minute: the harness's own process, its workers, and what they saw."""
    slices = round(minute_s / result.slice_s)
    rows: list[Row] = []
    for minute, resident in enumerate(memory):
        window = result.window[minute * slices : (minute + 1) * slices]
        latency = percentiles_ms(window)
        harness, *workers = (size / _MEBI for size in resident.values())
        rows.append(
            {
                "minute": minute + 1,
                "harness_rss_mib": harness,
                "workers_rss_mib": sum(workers),
                "requests_per_s": sum(one.completed for one in window) / minute_s,
                "failures": sum(sum(one.failures.values()) + one.dropped for one in window),
                "latency_p50_ms": latency.get("p50", float("nan")),
                "latency_p95_ms": latency.get("p95", float("nan")),
                "latency_p99_ms": latency.get("p99", float("nan")),
            }
        )
    return rows


def _drift(rows: Sequence[Row]) -> str:
    """Change from the first minute to the last, and of the percentiles between the two halves."""
    first, last = rows[0], rows[-1]
    grown = [
        f"{name} {float(last[key]) - float(first[key]):+.1f} MiB"
        for name, key in (("harness", "harness_rss_mib"), ("workers", "workers_rss_mib"))
    ]
    half = max(1, len(rows) // 2)
    moved = []
    for share in (50, 95, 99):
        column = [float(row[f"latency_p{share}_ms"]) for row in rows]
        early, late = statistics.median(column[:half]), statistics.median(column[-half:])
        moved.append(f"p{share} {late / early - 1:+.1%}")
    span = f"minute {first['minute']} to {last['minute']}"
    return f"memory, {span}: {', '.join(grown)}; second half over first: {', '.join(moved)}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--minute-s", type=float, default=_MINUTE_S, help="length of a row's time")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--protocol", choices=("http", "grpc"), default="grpc")
    parser.add_argument("--load-share", type=float, default=0.5, help="of the most")
    parser.add_argument("--quick", action="store_true", help="3 rows of 2 s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.quick:
        options.minutes, options.minute_s = 3, 2.0
    return options


if __name__ == "__main__":
    run_as_command(main)

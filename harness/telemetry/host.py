"""The machine and the server's process tree at one instant, and the difference of two instants.

CPU is read from cumulative times at both ends of the window, so it is a mean over exactly that
window and costs nothing in between. GPU numbers come from Triton's own `nv_gpu_*` series: power
from the energy counter (a mean over the window); utilisation and memory from gauges that Triton
refreshes every 2 s by default, so these two are the last refresh before the window's end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from harness.telemetry.prometheus import MetricsPage
from harness.types import HostMetrics


class ProcessKey(NamedTuple):
    """A process, told apart from a later one that was given the same number."""

    pid: int
    created_s: float


@dataclass(frozen=True)
class HostReading:
    """Cumulative CPU times and present memory of the machine and of one process tree."""

    time_s: float
    cpu_busy_s: float
    """Summed over all cores since boot; waiting for a disk is idle."""
    cpu_total_s: float
    memory_used_bytes: int
    process_cpu_s: Mapping[ProcessKey, float] = field(default_factory=dict)
    """User and system time of each process of the tree."""
    tree_memory_bytes: int | None = None


def read_host(server_pid: int | None) -> HostReading:
    """Read the machine this runs on and, where its pid is known, the server's process tree.

    The tree is tritonserver with its children: the python backend runs each model instance in a
    process of its own (the stub).
    """
    times = psutil.cpu_times()
    total = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
    idle = times.idle + getattr(times, "iowait", 0.0)
    tree = _process_tree(server_pid)
    cpu = {process: seconds for process, (seconds, _) in tree.items()}
    return HostReading(
        time_s=time.monotonic(),
        cpu_busy_s=total - idle,
        cpu_total_s=total,
        memory_used_bytes=psutil.virtual_memory().used,
        process_cpu_s=cpu,
        tree_memory_bytes=sum(memory for _, memory in tree.values()) if tree else None,
    )


def difference(
    before: HostReading, after: HostReading, gpu_before: MetricsPage, gpu_after: MetricsPage
) -> HostMetrics:
    """Means over the time between two readings; memory and GPU gauges as of the second."""
    elapsed_s = after.time_s - before.time_s
    cpu_s = after.cpu_total_s - before.cpu_total_s
    utilizations = gpu_after.values("nv_gpu_utilization")
    memory = gpu_after.values("nv_gpu_memory_used_bytes")
    return HostMetrics(
        cpu_utilization=(after.cpu_busy_s - before.cpu_busy_s) / cpu_s if cpu_s > 0 else None,
        server_cpu=_tree_cores(before.process_cpu_s, after.process_cpu_s, elapsed_s),
        server_memory_bytes=after.tree_memory_bytes,
        memory_used_bytes=after.memory_used_bytes,
        gpu_utilization=sum(utilizations) / len(utilizations) if utilizations else None,
        gpu_memory_bytes=int(sum(memory)) if memory else None,
        gpu_power_w=_power_w(gpu_before, gpu_after, elapsed_s),
    )


def _process_tree(pid: int | None) -> dict[ProcessKey, tuple[float, int]]:
    """CPU seconds and memory of a process and its descendants; empty where it is gone."""
    if pid is None:
        return {}
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return {}
    tree: dict[ProcessKey, tuple[float, int]] = {}
    for process in processes:
        try:
            times = process.cpu_times()
            key = ProcessKey(process.pid, process.create_time())
            tree[key] = (times.user + times.system, _memory_bytes(process))
        except psutil.Error:
            continue  # ended between the listing and the reading
    return tree


def _memory_bytes(process: psutil.Process) -> int:
    """Proportional set size: pages that the server shares with its stubs count once in a sum."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss)


def _tree_cores(
    before: Mapping[ProcessKey, float], after: Mapping[ProcessKey, float], elapsed_s: float
) -> float | None:
    """Cores used by the tree: a new process counts in full, a vanished one makes it unknown."""
    if not before or elapsed_s <= 0 or not before.keys() <= after.keys():
        return None
    return sum(seconds - before.get(key, 0.0) for key, seconds in after.items()) / elapsed_s


def _power_w(before: MetricsPage, after: MetricsPage, elapsed_s: float) -> float | None:
    """Mean power of all GPUs, from joules since the server's start."""
    start, end = (page.values("nv_energy_consumption") for page in (before, after))
    if not start or not end or elapsed_s <= 0:
        return None
    joules = sum(end) - sum(start)
    return joules / elapsed_s if joules >= 0 else None

"""The machine and the server's process tree at one instant, and the difference of two instants.

CPU is read from cumulative times at both ends of the window, so it is a mean over exactly that
window and costs nothing in between. GPU numbers come from Triton's own `nv_gpu_*` series: power
from the energy counter (a mean over the window); utilisation and memory from gauges that Triton
refreshes every 2 s by default, so these two are the last refresh before the window's end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from harness.telemetry import cpu_wait
from harness.telemetry.cpu_wait import CpuReading, ProcessKey
from harness.telemetry.triton import MetricsPage
from harness.types import HostMetrics


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
    cpu: CpuReading | None = None
    """Who waited for a core, and who had it."""


def read_host(server_pid: int | None, clients: Iterable[int] = ()) -> HostReading:
    """Read the machine this runs on and, where its pid is known, the server's process tree.

    The tree is tritonserver with its children: the python backend runs each model instance in a
    process of its own (the stub). `clients` are the load generators' pids.
    """
    times = psutil.cpu_times()
    total = sum(getattr(times, name) for name in times._fields if not name.startswith("guest"))
    idle = times.idle + getattr(times, "iowait", 0.0)
    processes = _processes(server_pid)
    tree = _process_tree(processes)
    cpu = {process: seconds for process, (seconds, _) in tree.items()}
    time_s = time.monotonic()
    return HostReading(
        time_s=time_s,
        cpu_busy_s=total - idle,
        cpu_total_s=total,
        memory_used_bytes=psutil.virtual_memory().used,
        process_cpu_s=cpu,
        tree_memory_bytes=sum(memory for _, memory in tree.values()) if tree else None,
        cpu=cpu_wait.read_cpu(time_s, processes, clients),
    )


def difference(
    before: HostReading, after: HostReading, gpu_before: MetricsPage, gpu_after: MetricsPage
) -> HostMetrics:
    """Means over the time between two readings; memory and GPU gauges as of the second."""
    elapsed_s = after.time_s - before.time_s
    cpu_s = after.cpu_total_s - before.cpu_total_s
    utilizations = gpu_after.values("nv_gpu_utilization")
    memory = gpu_after.values("nv_gpu_memory_used_bytes")
    cpu = cpu_wait.CpuContention()
    if before.cpu is not None and after.cpu is not None:
        cpu = cpu_wait.difference(before.cpu, after.cpu)
    return HostMetrics(
        cpu_utilization=(after.cpu_busy_s - before.cpu_busy_s) / cpu_s if cpu_s > 0 else None,
        server_cpu=_tree_cores(before.process_cpu_s, after.process_cpu_s, elapsed_s),
        server_memory_bytes=after.tree_memory_bytes,
        memory_used_bytes=after.memory_used_bytes,
        gpu_utilization=sum(utilizations) / len(utilizations) if utilizations else None,
        gpu_memory_bytes=int(sum(memory)) if memory else None,
        gpu_power_w=_power_w(gpu_before, gpu_after, elapsed_s),
        foreign_cpu=cpu.foreign_cores,
        server_run_cores=cpu.run_cores,
        server_wait_cores=cpu.wait_cores,
        server_foreign_wait_cores=cpu.foreign_wait_cores,
        cpu_steal=cpu.steal,
        cpu_pressure=cpu.pressure,
        server_cpu_pressure=cpu.group_pressure,
        server_throttled_cores=cpu.throttled_cores,
    )


def _processes(pid: int | None) -> list[psutil.Process]:
    """A process and its descendants; none where it is gone."""
    if pid is None:
        return []
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _process_tree(
    processes: Sequence[psutil.Process],
) -> dict[ProcessKey, tuple[float, int]]:
    """CPU seconds and memory of each that still runs."""
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

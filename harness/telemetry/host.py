"""The machine and the server's process tree at one instant, and the difference of two instants.

CPU is read from cumulative times at both ends of the window, so it is a mean over exactly that
window and costs nothing in between. GPU numbers come from Triton's own `nv_gpu_*` series: power
from the energy counter (a mean over the window); utilisation and memory from gauges that Triton
refreshes every 2 s by default, so these two are the last refresh before the window's end.

Whether the server was short of a processor, and who had it meanwhile (Linux). The kernel keeps of
every thread how long it was ready to run while another ran (`/proc/PID/task/TID/schedstat`,
https://docs.kernel.org/scheduler/sched-stats.html). Waiting alone accuses nobody: a server with
more threads than cores makes its own threads wait, and so do load generators on the same cores. So
each thread's wait is shared out over those who ran on the server's cores meanwhile, by their
processor time: the server's other threads, the generators and the harness, and everybody else. Only
the last part is *foreign*. A process that may run on none of the server's cores is not counted as a
rival.

Time that a hypervisor took (steal), the pressure that the kernel tells (PSI) and what a control
group's limit held back are read beside it. What a system does not offer stays None.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.telemetry.triton import MetricsPage
from harness.types import HostMetrics

PROC = Path("/proc")
CGROUP_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_WORK = ("user", "nice", "system")
"""Guests' time is in user and nice already; interrupts belong to nobody."""


class ProcessKey(NamedTuple):
    """A process, told apart from a later one that was given the same number."""

    pid: int
    created_s: float


class ThreadTimes(NamedTuple):
    """What one thread has run and waited since it began."""

    ran_s: float
    waited_s: float
    """Ready to run, and another ran."""


@dataclass(frozen=True)
class CpuReading:
    """Cumulative times at one instant; all cores' are those that the server may use, added up."""

    time_s: float
    work_s: float | None = None
    """User and system time of all processes."""
    steal_s: float | None = None
    total_s: float | None = None
    """Whatever the cores did, idling included."""
    ours_s: Mapping[ProcessKey, float] = field(default_factory=dict)
    """User and system time of the server's processes, the generators' and the harness's own."""
    threads: Mapping[tuple[int, int], ThreadTimes] = field(default_factory=dict)
    """The server's, by process and thread; empty where the machine does not say."""
    pressure_s: float | None = None
    """Seconds for which some process of the machine waited for a core (PSI)."""
    group_pressure_s: float | None = None
    """Seconds for which some process of the server's control group waited for a core (PSI)."""
    throttled_s: float | None = None
    """Seconds for which that group's limit held its cores back, added up."""


@dataclass(frozen=True)
class CpuContention:
    """What lies between two readings; cores are averages over the time between them."""

    foreign_cores: float | None = None
    run_cores: float | None = None
    wait_cores: float | None = None
    foreign_wait_cores: float | None = None
    steal: float | None = None
    pressure: float | None = None
    group_pressure: float | None = None
    throttled_cores: float | None = None


def read_cpu(
    time_s: float, server: Iterable[psutil.Process], clients: Iterable[int] = ()
) -> CpuReading:
    """Read the machine and the processes of the server's tree.

    Args:
        time_s: of the reading, monotonic.
        server: its processes, the root first.
        clients: the load generators' pids; this process is counted with them. What else this
            process may have started is foreign: it is not part of what is measured.
    """
    tree = list(server)
    cores = _affinity(tree[0]) if tree else None
    times = [
        one
        for index, one in enumerate(psutil.cpu_times(percpu=True))
        if not cores or index in cores
    ]
    ours = {one.pid: one for one in (*tree, psutil.Process(), *_existing(clients))}
    group = _group_of(tree[0].pid) if tree else None
    return CpuReading(
        time_s=time_s,
        work_s=sum(getattr(one, name) for one in times for name in _WORK),
        steal_s=sum(one.steal for one in times) if hasattr(times[0], "steal") else None,
        total_s=sum(
            getattr(one, name)
            for one in times
            for name in one._fields
            if not name.startswith("guest")
        ),
        ours_s=dict(_rivals(ours.values(), cores)),
        threads={key: times for one in tree for key, times in _threads(one.pid).items()},
        pressure_s=_pressure_s(PROC / "pressure" / "cpu"),
        group_pressure_s=_pressure_s(group / "cpu.pressure") if group else None,
        throttled_s=_throttled_s(group / "cpu.stat") if group else None,
    )


def cpu_contention(before: CpuReading, after: CpuReading) -> CpuContention:
    """What happened between two readings; nothing where no time passed."""
    elapsed_s = after.time_s - before.time_s
    if elapsed_s <= 0:
        return CpuContention()
    work_s = _minus(after.work_s, before.work_s)
    foreign_s = _foreign_s(before, after, work_s)
    total_s, steal_s = (
        _minus(after.total_s, before.total_s),
        _minus(after.steal_s, before.steal_s),
    )
    waits = _waits(before, after)
    return CpuContention(
        foreign_cores=_per(foreign_s, elapsed_s),
        run_cores=sum(one.ran_s for one in waits) / elapsed_s if waits else None,
        wait_cores=sum(one.waited_s for one in waits) / elapsed_s if waits else None,
        foreign_wait_cores=_per(_foreign_wait_s(waits, foreign_s, work_s), elapsed_s),
        steal=_per(steal_s, total_s),
        pressure=_per(_minus(after.pressure_s, before.pressure_s), elapsed_s),
        group_pressure=_per(_minus(after.group_pressure_s, before.group_pressure_s), elapsed_s),
        throttled_cores=_per(_minus(after.throttled_s, before.throttled_s), elapsed_s),
    )


def _foreign_s(before: CpuReading, after: CpuReading, work_s: float | None) -> float | None:
    """Processor time of everybody else.

    One of ours that ended takes its own count along, which is foreign then: a model's process that
    was told to end before the window uses next to nothing inside it.
    """
    if work_s is None:
        return None
    ours_s = sum(used_s - before.ours_s.get(key, 0.0) for key, used_s in after.ours_s.items())
    return max(0.0, work_s - ours_s)


def _waits(before: CpuReading, after: CpuReading) -> list[ThreadTimes]:
    """What each of the server's threads did in between; one that ended is left out."""
    nothing = ThreadTimes(0.0, 0.0)
    return [
        ThreadTimes(
            max(0.0, now.ran_s - before.threads.get(key, nothing).ran_s),
            max(0.0, now.waited_s - before.threads.get(key, nothing).waited_s),
        )
        for key, now in after.threads.items()
    ]


def _foreign_wait_s(
    waits: Iterable[ThreadTimes], foreign_s: float | None, work_s: float | None
) -> float | None:
    """The part of the threads' waits that is foreign: a thread never waits for itself."""
    waits = list(waits)
    if not waits or foreign_s is None or work_s is None:
        return None
    return sum(
        one.waited_s * min(1.0, foreign_s / others_s)
        for one in waits
        if (others_s := work_s - one.ran_s) > 0
    )


def _rivals(
    ours: Iterable[psutil.Process], cores: frozenset[int] | None
) -> Iterable[tuple[ProcessKey, float]]:
    for process in ours:
        with suppress(psutil.Error):  # it has ended meanwhile
            may_use = _affinity(process)
            if cores is None or may_use is None or cores & may_use:
                times = process.cpu_times()
                yield (
                    ProcessKey(process.pid, process.create_time()),
                    times.user + times.system,
                )


def _existing(pids: Iterable[int]) -> Iterable[psutil.Process]:
    for pid in pids:
        with suppress(psutil.Error):
            yield psutil.Process(pid)


def _affinity(process: psutil.Process) -> frozenset[int] | None:
    """The cores that a process may use; None where the machine does not say."""
    try:
        return frozenset(process.cpu_affinity())
    except (psutil.Error, AttributeError):
        return None


def _threads(pid: int) -> dict[tuple[int, int], ThreadTimes]:
    found = {}
    with suppress(OSError):
        for thread in (PROC / str(pid) / "task").iterdir():
            with suppress(OSError, ValueError):
                said = (thread / "schedstat").read_text()
                ran_ns, waited_ns = map(int, said.split()[:2])
                found[pid, int(thread.name)] = ThreadTimes(ran_ns / 1e9, waited_ns / 1e9)
    return found


def _pressure_s(file: Path) -> float | None:
    """The first line's total: `some avg10=0.67 avg60=1.68 avg300=1.26 total=18304474`."""
    with suppress(OSError, ValueError):
        words = file.read_text().splitlines()[:1]
        totals = [one for line in words for one in line.split() if one.startswith("total=")]
        return int(totals[0].removeprefix("total=")) / 1e6 if totals else None
    return None


def _throttled_s(file: Path) -> float | None:
    """`throttled_usec` of a control group's `cpu.stat`; None of one without a limit."""
    with suppress(OSError, ValueError):
        told = dict(line.split() for line in file.read_text().splitlines())
        return int(told["throttled_usec"]) / 1e6 if "throttled_usec" in told else None
    return None


def _group_of(pid: int) -> Path | None:
    """The folder of a process' control group, version 2; None where there is none to read."""
    with suppress(OSError):
        for line in (PROC / str(pid) / "cgroup").read_text().splitlines():
            number, _, name = line.split(":", 2)
            folders = [root / name.lstrip("/") for root in CGROUP_ROOTS]
            if number == "0":
                return next((one for one in folders if (one / "cpu.stat").is_file()), None)
    return None


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else max(0.0, after - before)


def _per(amount: float | None, of: float | None) -> float | None:
    return None if amount is None or not of else amount / of


@dataclass(frozen=True)
class HostReading:
    """Cumulative CPU times and present memory of the machine and of one process tree."""

    time_s: float
    cpu_idle_s: float
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
        cpu_idle_s=idle,
        cpu_total_s=total,
        memory_used_bytes=psutil.virtual_memory().used,
        process_cpu_s=cpu,
        tree_memory_bytes=sum(memory for _, memory in tree.values()) if tree else None,
        cpu=read_cpu(time_s, processes, clients),
    )


def difference(
    before: HostReading, after: HostReading, gpu_before: MetricsPage, gpu_after: MetricsPage
) -> HostMetrics:
    """Means over the time between two readings; memory and GPU gauges as of the second."""
    elapsed_s = after.time_s - before.time_s
    cpu_s = after.cpu_total_s - before.cpu_total_s
    idle_s = after.cpu_idle_s - before.cpu_idle_s
    utilizations = gpu_after.values("nv_gpu_utilization")
    memory = gpu_after.values("nv_gpu_memory_used_bytes")
    cpu = CpuContention()
    if before.cpu is not None and after.cpu is not None:
        cpu = cpu_contention(before.cpu, after.cpu)
    return HostMetrics(
        # The kernel's time of waiting for a disk may fall by a tick (proc(5)).
        cpu_utilization=min(1.0, max(0.0, 1.0 - idle_s / cpu_s)) if cpu_s > 0 else None,
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
    """CPU seconds and memory of each that still runs: one that waits to be reaped does not."""
    tree: dict[ProcessKey, tuple[float, int]] = {}
    for process in processes:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
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

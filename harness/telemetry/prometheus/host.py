"""The server's machine as a Prometheus knows it: Triton's GPU series, node_exporter's, DCGM's.

What Triton's own page has is taken from the target that the model's counters are of; the
exporters' series stand under other targets, so only `Prometheus.host_match` says which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.telemetry.prometheus.client import (
    Prometheus,
    Series,
    increase,
    last_inside,
    problem_of,
)
from harness.types import HostMetrics

Window = tuple[float, float]
"""Start and end, Unix time by Prometheus' clock."""
ByName = dict[str, list[Series]]
TRITON_GPU = ("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_energy_consumption")
DCGM = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_POWER_USAGE")
"""Per cent, MiB, W: https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/."""
NODE_CPU = "node_cpu_seconds_total"
NODE_MEMORY = ("node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes")
_IDLE = frozenset({"idle", "iowait"})
_GUEST = frozenset({"guest", "guest_nice"})
"""Counted in user and nice already."""
_MEBI = 2**20


def host_metrics(
    prometheus: Prometheus, instances: Sequence[str], here: HostMetrics, window: Window
) -> HostMetrics:
    """What was read here, with what Prometheus knows of the server's machine in its place.

    Args:
        prometheus: asked for gauges as of the window's last scrape, and for counters' increase.
        instances: the targets of the model's counters.
        here: this machine.
        window: on Prometheus' clock.

    Raises:
        QueryFailure: no answer.
    """
    triton = _samples(prometheus, TRITON_GPU, _any_of(instances), window) if instances else {}
    machine: ByName = {}
    if prometheus.host_match:
        names = (*DCGM, NODE_CPU, *NODE_MEMORY)
        machine = _samples(prometheus, names, prometheus.host_match, window)
    host = _with_gpu(here, triton, machine, window)
    if prometheus.host_match:
        host = replace(
            host,
            cpu_utilization=_cpu_utilization(machine.get(NODE_CPU, ()), window),
            memory_used_bytes=_memory_used(machine, window),
        )
    return host


def _with_gpu(host: HostMetrics, triton: ByName, machine: ByName, window: Window) -> HostMetrics:
    """The GPU's series from Triton, else from DCGM."""
    utilization = _gauge(triton, TRITON_GPU[0], window, _mean)
    memory = _gauge(triton, TRITON_GPU[1], window, sum)
    power_w = _per_second(triton.get(TRITON_GPU[2], ()), window)
    per_cent = _gauge(machine, DCGM[0], window, _mean)
    mebibytes = _gauge(machine, DCGM[1], window, sum)
    if utilization is None and per_cent is not None:
        utilization = per_cent / 100
    if memory is None and mebibytes is not None:
        memory = mebibytes * _MEBI
    return replace(
        host,
        gpu_utilization=utilization,
        gpu_memory_bytes=None if memory is None else int(memory),
        gpu_power_w=power_w if power_w is not None else _gauge(machine, DCGM[2], window, sum),
    )


def _cpu_utilization(found: Sequence[Series], window: Window) -> float | None:
    """Share of all cores' time that was not idle."""
    by_mode: defaultdict[str, float] = defaultdict(float)
    for one in found:
        if one.labels.get("mode") not in _GUEST and not problem_of(one, *window):
            by_mode[one.labels.get("mode", "")] += increase(one, *window).value
    total_s = sum(by_mode.values())
    return 1 - sum(by_mode[mode] for mode in _IDLE) / total_s if total_s > 0 else None


def _memory_used(machine: ByName, window: Window) -> int | None:
    total, available = (_gauge(machine, name, window, sum) for name in NODE_MEMORY)
    return None if total is None or available is None else int(total - available)


def _per_second(found: Sequence[Series], window: Window) -> float | None:
    """Growth over the window of a counter that all the series are parts of."""
    if not found or any(problem_of(one, *window) for one in found):
        return None
    parts = [increase(one, *window) for one in found]
    if any(one.reset for one in parts):
        return None
    return sum(one.value for one in parts) / (window[1] - window[0])


def _gauge(
    found: ByName, name: str, window: Window, join: Callable[[Sequence[float]], float]
) -> float | None:
    values = [last_inside(one, *window) for one in found.get(name, ())]
    known = [one for one in values if one is not None]
    return join(known) if known else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _samples(prometheus: Prometheus, names: Sequence[str], matchers: str, window: Window) -> ByName:
    """By name, samples from a minute before to a minute after the window."""
    start_s, end_s = window[0] - 60, window[1] + 60
    selector = f'{{__name__=~"{"|".join(names)}",{matchers}}}'
    by_name: ByName = {}
    for one in prometheus.samples(selector, end_s=end_s, length_s=end_s - start_s):
        by_name.setdefault(one.labels.get("__name__", ""), []).append(one)
    return by_name


def _any_of(instances: Sequence[str]) -> str:
    escaped = "|".join(re.escape(one).replace("\\", r"\\") for one in instances)
    return f'instance=~"{escaped}"'

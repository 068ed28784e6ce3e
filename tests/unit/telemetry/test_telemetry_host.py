"""The machine's and a process tree's use, between two readings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.telemetry.host import HostReading, ProcessKey, difference, read_host
from harness.telemetry.triton import MetricsPage

BURN_S = 0.3
# Parent and child each burn so much processor time, then wait: the amount does not depend on how
# busy the machine is.
TREE = f"""
import os, subprocess, sys, time
child = None if "child" in sys.argv else subprocess.Popen(
    [sys.executable, "-c", sys.argv[1], sys.argv[1], "child"], stdout=subprocess.PIPE)
print("started", flush=True)
sys.stdin.readline() if child else None
while time.process_time() < {BURN_S}: pass
if child:
    child.stdout.readline(); child.stdout.readline()
print("burnt", flush=True)
sys.stdin.readline() if child else time.sleep(60)
if child: child.kill()
"""


@pytest.fixture
def tree() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", TREE, TREE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate("\n\n", timeout=30)


def test_the_tree_counts_its_children(tree: subprocess.Popen[str]) -> None:
    assert tree.stdin
    assert tree.stdout
    tree.stdout.readline()
    before = read_host(tree.pid)
    tree.stdin.write("\n")
    tree.stdin.flush()
    assert tree.stdout.readline() == "burnt\n"
    after = read_host(tree.pid)

    used_s = sum(after.process_cpu_s.values()) - sum(before.process_cpu_s.values())
    assert len(after.process_cpu_s) == 2
    assert used_s >= 0.5 * BURN_S, "the parent burnt after the first reading"
    assert sum(after.process_cpu_s.values()) >= 2 * BURN_S - 0.05
    metrics = difference(before, after, MetricsPage(), MetricsPage())
    assert metrics.server_cpu == pytest.approx(used_s / (after.time_s - before.time_s))
    assert metrics.server_memory_bytes is not None
    assert metrics.server_memory_bytes > 1_000_000
    assert metrics.cpu_utilization is not None
    assert 0 < metrics.cpu_utilization <= 1


def test_no_process_means_no_numbers() -> None:
    for pid in (None, 2**22 + 1):
        reading = read_host(pid)
        metrics = difference(reading, reading, MetricsPage(), MetricsPage())
        assert metrics.server_cpu is None
        assert metrics.server_memory_bytes is None
        assert metrics.memory_used_bytes == reading.memory_used_bytes


def test_a_process_that_waits_to_be_reaped_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While threads of it still end, the kernel tells its memory and its processor time."""
    monkeypatch.setattr("harness.telemetry.host._memory_bytes", lambda process: 1)
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        reading = read_host(ended.pid)
    assert reading.process_cpu_s == {}
    assert reading.tree_memory_bytes is None


def reading(time_s: float, cpu: dict[ProcessKey, float]) -> HostReading:
    return HostReading(time_s, 10 * time_s, 20 * time_s, 0, cpu, 1)


SERVER, STUB, LATER = ProcessKey(10, 1.0), ProcessKey(11, 1.0), ProcessKey(11, 5.0)


def test_a_process_that_started_inside_the_window_counts_in_full() -> None:
    before = reading(0, {SERVER: 5.0})
    after = reading(2, {SERVER: 6.0, STUB: 2.0})

    metrics = difference(before, after, MetricsPage(), MetricsPage())

    assert metrics.server_cpu == pytest.approx(1.5)
    assert metrics.cpu_utilization == pytest.approx(0.5)


def test_a_process_that_vanished_makes_the_use_unknown() -> None:
    before = reading(0, {SERVER: 5.0, STUB: 4.0})

    for survivors in ({SERVER: 6.0}, {SERVER: 6.0, LATER: 1.0}):
        metrics = difference(before, reading(2, survivors), MetricsPage(), MetricsPage())
        assert metrics.server_cpu is None


GPU = """\
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{{gpu_uuid="GPU-0"}} 0.5
nv_gpu_utilization{{gpu_uuid="GPU-1"}} 1.0
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-0"}} 1e9
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-1"}} 2e9
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="GPU-0"}} {0}
nv_energy_consumption{{gpu_uuid="GPU-1"}} {1}
"""


def test_gpu_power_is_energy_over_the_window() -> None:
    pages = [MetricsPage.parse(GPU.format(*joules)) for joules in ((100, 50), (700, 250))]

    metrics = difference(reading(0, {}), reading(4, {}), *pages)

    assert metrics.gpu_power_w == pytest.approx(200.0)
    assert metrics.gpu_utilization == pytest.approx(0.75)
    assert metrics.gpu_memory_bytes == 3_000_000_000
    restarted = difference(reading(0, {}), reading(4, {}), pages[1], pages[0])
    assert restarted.gpu_power_w is None

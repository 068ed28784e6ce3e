"""Who made the server's threads wait: shared out over those who ran meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.telemetry import host
from harness.telemetry.host import CpuContention, CpuReading, ProcessKey, ThreadTimes

SERVER, GENERATOR, LATER = ProcessKey(10, 1.0), ProcessKey(11, 1.0), ProcessKey(12, 9.0)
START = CpuReading(
    0.0, 100.0, 1.0, 1000.0, {SERVER: 5.0, GENERATOR: 7.0}, {(10, 10): ThreadTimes(5.0, 1.0)},
    pressure_s=3.0, group_pressure_s=2.0, throttled_s=0.5,
)  # fmt: skip


def after(
    work_s: float, server_s: float, generator_s: float, *threads: tuple[float, float]
) -> CpuReading:
    """Two seconds later, on two cores."""
    return replace(
        START,
        time_s=2.0,
        work_s=100.0 + work_s,
        total_s=1004.0,
        ours_s={SERVER: 5.0 + server_s, GENERATOR: 7.0 + generator_s},
        threads={
            (10, 10 + index): ThreadTimes(5.0 + ran_s, 1.0 + waited_s)
            if index == 0
            else ThreadTimes(ran_s, waited_s)
            for index, (ran_s, waited_s) in enumerate(threads)
        },
    )


def test_a_thread_waits_behind_two_busy_loops() -> None:
    """Three want two cores: each gets two thirds of one, and the wait is the loops' doing."""
    found = host.cpu_contention(START, after(4.0, 1.3, 0.1, (1.3, 0.6)))
    assert found.foreign_cores == pytest.approx(1.3)
    assert found.wait_cores == pytest.approx(0.3)
    assert found.foreign_wait_cores == pytest.approx(0.3 * 2.6 / 2.7)


def test_threads_that_wait_for_each_other_accuse_nobody() -> None:
    """Four threads of the server on two cores, and next to nothing beside them."""
    found = host.cpu_contention(START, after(4.0, 3.8, 0.16, *[(0.95, 0.9)] * 4))
    assert found.wait_cores == pytest.approx(1.8)
    assert found.foreign_wait_cores == pytest.approx(1.8 * 0.04 / 3.05)


def test_the_generators_are_not_foreign() -> None:
    found = host.cpu_contention(START, after(4.0, 2.0, 2.0, (2.0, 1.0)))
    assert (found.foreign_cores, found.foreign_wait_cores) == (0.0, 0.0)


def test_one_of_ours_that_ended_or_began_does_not_hide_the_others() -> None:
    """A model's process that was told to end before the window may be there at its beginning."""
    ended = replace(
        after(4.0, 1.3, 0.1, (1.3, 0.6)), ours_s={SERVER: 6.3, GENERATOR: 7.1, LATER: 0.2}
    )
    before = replace(START, ours_s={**START.ours_s, ProcessKey(13, 1.0): 50.0})
    found = host.cpu_contention(before, ended)
    assert found.foreign_cores == pytest.approx((4.0 - 1.3 - 0.1 - 0.2) / 2)
    assert found.run_cores == pytest.approx(0.65)
    assert found.wait_cores == pytest.approx(0.3)


def test_steal_pressure_and_limits_are_shares_of_the_window() -> None:
    told = replace(
        after(2.0, 1.0, 0.1, (1.0, 0.0)),
        steal_s=1.4, pressure_s=3.5, group_pressure_s=2.2, throttled_s=0.9,
    )  # fmt: skip
    found = host.cpu_contention(START, told)
    assert found.steal == pytest.approx(0.1)
    assert found.pressure == pytest.approx(0.25)
    assert found.group_pressure == pytest.approx(0.1)
    assert found.throttled_cores == pytest.approx(0.2)


def test_what_a_system_does_not_offer_is_missing_and_not_zero() -> None:
    found = host.cpu_contention(CpuReading(0.0), CpuReading(2.0))
    assert found == CpuContention()


def test_files_as_the_kernel_writes_them(tmp_path: Path) -> None:
    pressure = tmp_path / "cpu.pressure"
    pressure.write_text(
        "some avg10=0.67 avg60=1.68 avg300=1.26 total=18304474\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    )
    assert host._pressure_s(pressure) == pytest.approx(18.304474)
    stat = tmp_path / "cpu.stat"
    stat.write_text("usage_usec 5\nnr_throttled 2\nthrottled_usec 1500000\n")
    assert host._throttled_s(stat) == pytest.approx(1.5)
    stat.write_text("usage_usec 5\n")
    assert host._throttled_s(stat) is None
    assert host._pressure_s(tmp_path / "none") is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no schedstat here")
def test_two_processes_on_one_core_wait_for_each_other() -> None:
    """Each burns half a second of one core: together they take a second, whatever else runs."""
    core = min(os.sched_getaffinity(0))
    burn = (
        "import os, sys, time\n"
        f"os.sched_setaffinity(0, {{{core}}})\n"
        "print(flush=True); sys.stdin.readline()\n"
        "while time.process_time() < 0.5: pass\n"
        "print(flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", burn]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, **pipes) as server,  # type: ignore[call-overload]
        subprocess.Popen(command, **pipes) as other,  # type: ignore[call-overload]
    ):
        both = (server, other)
        _tell(both)
        before = host.read_cpu(0.0, [psutil.Process(server.pid)])
        for one in both:
            one.stdin.write("\n")
            one.stdin.flush()
        _tell(both)
        after_it = host.read_cpu(1.0, [psutil.Process(server.pid)])
        for one in both:
            one.stdin.close()
    found = host.cpu_contention(before, after_it)
    assert found.wait_cores is not None
    assert found.wait_cores > 0.2
    assert after_it.ours_s.keys() >= {
        ProcessKey(one, created)
        for one, created in [(key.pid, key.created_s) for key in before.ours_s]
    }


def _tell(both: tuple[subprocess.Popen[str], ...]) -> None:
    for one in both:
        assert one.stdout is not None
        one.stdout.readline()

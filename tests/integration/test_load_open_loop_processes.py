"""Open loops on real Locust processes: the schedule holds, whatever the server or a worker does."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Behaviour, Fault, constant, stalled_until
from load_rig import OPEN, WORKLOAD, Rig, Watcher, count_ok, percentile_ms, read_records
from numpy.typing import NDArray

from harness import hdr
from harness.load.schedule.arrivals import arrival_times_ns
from harness.types import (
    SCHEDULE_DELAY,
    SERVICE,
    ArrivalKind,
    ArrivalProcess,
    LoadResult,
    LoadShape,
    ShapeKind,
    WireProtocol,
)

RATE_PER_S = OPEN["rate_per_s"]
SHAPED = ArrivalProcess(
    ArrivalKind.CONSTANT, shape=LoadShape(ShapeKind.SPIKE, low=0.5, high=2.0, period_s=0.4)
)
PROCESSES = {
    "constant": ArrivalProcess(ArrivalKind.CONSTANT),
    "poisson": ArrivalProcess(),
    "gamma": ArrivalProcess(ArrivalKind.GAMMA, burstiness_cv=3.0),
    "spike": SHAPED,
}


def arrivals_ns(
    result: LoadResult, process: ArrivalProcess, *, rate_per_s: float = RATE_PER_S
) -> NDArray[np.int64]:
    """When requests of a finished load were to fall due, CLOCK_MONOTONIC."""
    times_ns = next(arrival_times_ns(process, rate_per_s=rate_per_s, seed=WORKLOAD["seed"]))
    times_ns = times_ns + result.start_ns
    return times_ns[times_ns < result.window_end_ns]


def window_counts(result: LoadResult, due_ns: NDArray[np.int64]) -> list[int]:
    """How many of them fall into each slice of the whole load."""
    slice_ns = round(result.slice_s * 1e9)
    counts = np.bincount((due_ns - result.start_ns) // slice_ns, minlength=len(result.slices))
    return [int(count) for count in counts]


def check_slices(rig: Rig, process: ArrivalProcess) -> None:
    settings = {**OPEN, "concurrency": 400}  # wide enough for a machine that stalls for a second
    result = rig.run(Behaviour(constant(0.005)), arrivals=process, **settings)
    due_ns = arrivals_ns(result, process)
    assert (result.failures, result.dropped) == ({}, 0)
    assert [count_ok([one]) for one in result.slices] == window_counts(result, due_ns)
    assert len(rig.server.served) == len(due_ns) > 0


def test_every_arrival_is_sent_in_its_slice(wired: Rig) -> None:
    check_slices(wired, PROCESSES["poisson"])


@pytest.mark.parametrize("kind", ["constant", "gamma", "spike"])
def test_every_arrival_is_sent_in_its_slice_however_it_is_drawn(rig: Rig, kind: str) -> None:
    check_slices(rig, PROCESSES[kind])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_arrivals_are_the_same_whatever_the_number_of_workers(
    rig: Rig, workers: int, tmp_path: Path
) -> None:
    """The bound is what spreads over workers: a bound of one leaves one of them at work."""
    settings = {**OPEN, "concurrency": workers}
    result = rig.run(Behaviour(), records=tmp_path, **settings)
    sent = read_records(tmp_path).scheduled_ns
    dropped = read_records(tmp_path, "dropped").scheduled_ns
    np.testing.assert_array_equal(
        np.sort(np.concatenate([sent, dropped])), arrivals_ns(result, PROCESSES["poisson"])
    )
    assert len(list(tmp_path.glob("*.parquet"))) == workers
    assert sum(one.dropped for one in result.slices) == len(dropped)


def test_the_same_arrival_has_the_same_request_whatever_the_number_of_workers(rig: Rig) -> None:
    """By one worker or by three; the bound is wide enough to send all."""
    sent = []
    for pids in (rig.generators.pids[:1], rig.generators.pids):
        concurrency = 1 if len(pids) == 1 else 60
        settings = {**OPEN, "concurrency": concurrency, "rate_per_s": 20.0}
        result = rig.run(Behaviour(), arrivals=PROCESSES["constant"], **settings)
        assert len(result.generators) == len(pids)
        assert result.dropped == 0
        served = sorted(rig.server.served, key=lambda one: one.received_ns)
        sent.append([one.rows for one in served])
    assert sent[0] == sent[1]


def test_the_server_sees_the_gaps_that_were_drawn(rig: Rig) -> None:
    settings = {**OPEN, "rate_per_s": 60.0}
    result = rig.run(Behaviour(), duration_s=1.0, **settings)
    due_ns = arrivals_ns(result, PROCESSES["poisson"], rate_per_s=60.0)
    received_ns = np.sort([one.received_ns for one in rig.server.served])
    assert (received_ns >= due_ns).all()
    assert np.corrcoef(np.diff(received_ns), np.diff(due_ns))[0, 1] > 0.9


def test_schedule_delay_is_small_while_server_and_generators_keep_up(native: Rig) -> None:
    """Three seconds: one in which the machine stalls is not most of them."""
    settings = {**OPEN, "concurrency": 400}
    result = native.run(Behaviour(constant(0.01)), duration_s=3.0, **settings)
    delay = hdr.merge(one.ok.of(SCHEDULE_DELAY) for one in result.window)
    median_ms = hdr.value_at(delay, 0.5)
    assert median_ms is not None
    assert median_ms < 5


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stall_of_the_server_is_the_ramp_that_theory_says(rig: Rig, protocol: str) -> None:
    """A closed loop would have noticed one slow request a slot, and called it a rare event."""
    wired = dataclasses.replace(rig, protocol=WireProtocol(protocol))
    stall_s, ends = 0.6, []

    def stall() -> None:
        ends.append(time.monotonic_ns() + round(stall_s * 1e9))
        wired.server.behaviour = Behaviour(stalled_until(ends[0], 0.001))

    settings = {**OPEN, "concurrency": 200, "rate_per_s": 100.0}
    result = wired.run(
        Behaviour(constant(0.001)),
        Watcher(on_window_start=stall),
        duration_s=0.8,
        arrivals=PROCESSES["constant"],
        **settings,
    )
    assert (result.failures, result.dropped) == ({}, 0)
    stalled_s = (ends[0] - result.window_start_ns) / 1e9
    share = stalled_s / result.duration_s
    for quantile in (0.5, 0.75, 0.95):
        ramp_ms = 1000 * stalled_s * (quantile - (1 - share)) / share
        assert percentile_ms(result, 100 * quantile) == pytest.approx(ramp_ms, abs=100)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stall_of_the_generator_counts_as_latency_but_not_as_service(
    rig: Rig, protocol: str
) -> None:
    """A stopped worker sends late: from the schedule that is latency, from the send it is not."""
    worker = rig.generators.pids[0]

    instants_s: list[float] = []

    def signal_worker(number: int) -> None:
        instants_s.append(time.monotonic())
        os.kill(worker, number)

    def stop_for_a_while() -> None:
        signal_worker(signal.SIGSTOP)
        threading.Timer(0.4, signal_worker, (signal.SIGCONT,)).start()

    wired = dataclasses.replace(rig, protocol=WireProtocol(protocol))
    watcher = Watcher(on_window_start=stop_for_a_while)
    settings = {**OPEN, "arrivals": PROCESSES["constant"]}
    result = wired.run(Behaviour(), watcher, duration_s=0.6, **settings)
    service = hdr.merge(one.ok.of(SERVICE) for one in result.window)
    service_ms = hdr.value_at(service, 0.75)
    assert service_ms is not None
    assert result.failures == {}
    pause_s = instants_s[1] - instants_s[0]
    waiting = pause_s / result.duration_s / 3  # one worker of three, for so long
    median_wait_ms = percentile_ms(result, 100 * (1 - waiting / 2))
    assert median_wait_ms == pytest.approx(500 * pause_s, abs=100)
    assert percentile_ms(result, 100) == pytest.approx(1000 * pause_s, abs=100)
    assert service_ms < 50


def test_what_falls_due_beyond_the_bound_is_dropped_and_counted(
    native: Rig, tmp_path: Path
) -> None:
    def stall() -> None:
        in_half_a_second = time.monotonic_ns() + 500_000_000
        native.server.behaviour = Behaviour(stalled_until(in_half_a_second, 0.001))

    settings: dict[str, Any] = {**OPEN, "concurrency": 12, "arrivals": PROCESSES["constant"]}
    result = native.run(
        Behaviour(constant(0.001)),
        Watcher(on_window_start=stall),
        records=tmp_path,
        duration_s=0.8,
        **settings,
    )
    due_ns = arrivals_ns(result, PROCESSES["constant"])
    assert result.failures == {}
    assert result.dropped >= 60  # of a hundred that fall due in the stall twelve are sent
    dropped = sum(one.dropped for one in result.slices)
    assert count_ok(result.slices) + dropped == len(due_ns)
    assert len(read_records(tmp_path, "dropped").scheduled_ns) == dropped


def test_a_decided_open_loop_ends_early(native: Rig) -> None:
    watcher = Watcher(decided=lambda window: count_ok(window) >= 50)
    started = time.monotonic()
    result = native.run(
        Behaviour(constant(0.005)), watcher, duration_s=30.0, min_duration_s=0.1, **OPEN
    )
    assert time.monotonic() - started < 10
    assert count_ok(result.window) >= 50
    assert count_ok(result.slices) == len(arrivals_ns(result, PROCESSES["poisson"]))


def test_failures_do_not_slow_the_schedule(native: Rig) -> None:
    result = native.run(Behaviour(fault=Fault.UNAVAILABLE), **OPEN)
    failed = sum(sum(one.failures.values()) for one in result.slices)
    assert failed == len(arrivals_ns(result, PROCESSES["poisson"]))
    assert result.dropped == 0


def test_a_server_that_is_down_is_dispatched_to_all_the_same(rig: Rig) -> None:
    with rig.aimed_at("127.0.0.1:1"):
        result = rig.run(Behaviour(), **OPEN)
    failed = sum(one.failures.get("connection", 0) for one in result.slices)
    assert failed == len(arrivals_ns(result, PROCESSES["poisson"]))


def test_a_trace_ends_with_its_file(rig: Rig, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(str(second / 100) for second in range(20)) + "\n")
    process = ArrivalProcess(ArrivalKind.TRACE, trace=trace)
    settings = {**OPEN, "rate_per_s": None, "warmup_s": 0.0}
    result = rig.run(Behaviour(), arrivals=process, **settings)
    assert count_ok(result.window) == 20
    assert result.duration_s == pytest.approx(0.5)

"""Open loops on real Locust processes: the schedule holds, whatever the server or a worker does."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import Behaviour, Fault, constant, stalled_until
from load_rig import (
    LONGEST_S,
    OPEN,
    WORKLOAD,
    Rig,
    Watcher,
    check_slices,
    count_ok,
    read_records,
    wait_until_stopped,
)
from numpy.typing import NDArray

from harness.load.generators.messages import LoadProgress
from harness.load.schedule.arrivals import arrival_times_ns
from harness.types import (
    ArrivalKind,
    ArrivalProcess,
    LoadResult,
    LoadShape,
    ShapeKind,
    TimeSlice,
    WireProtocol,
)

RATE_PER_S = OPEN["rate_per_s"]
WIDE: dict[str, Any] = {**OPEN, "concurrency": 400}
"""Room for every arrival of a load of a second, even where the machine stalls for all of it."""
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


def check_arrivals(rig: Rig, process: ArrivalProcess) -> None:
    result = rig.run(Behaviour(constant(0.005)), arrivals=process, **WIDE, duration_s=0.5)
    due_ns = arrivals_ns(result, process)
    assert (result.failures, result.first_failure, result.dropped) == ({}, "", 0)
    assert [count_ok([one]) for one in result.slices] == window_counts(result, due_ns)
    assert len(rig.server.served) == len(due_ns) > 0


def test_every_arrival_is_sent_in_its_slice(wired: Rig) -> None:
    check_arrivals(wired, PROCESSES["poisson"])


@pytest.mark.parametrize("kind", ["constant", "gamma", "spike"])
def test_every_arrival_is_sent_in_its_slice_however_it_is_drawn(rig: Rig, kind: str) -> None:
    check_arrivals(rig, PROCESSES[kind])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_arrivals_are_the_same_whatever_the_number_of_workers(
    rig: Rig, workers: int, tmp_path: Path
) -> None:
    """The bound is what spreads over workers: a bound of one leaves one of them at work."""
    settings = {**OPEN, "concurrency": workers, "duration_s": 0.5}
    result = rig.run(Behaviour(), records=tmp_path, **settings)
    sent = read_records(tmp_path).scheduled_ns
    dropped = read_records(tmp_path, "dropped").scheduled_ns
    np.testing.assert_array_equal(
        np.sort(np.concatenate([sent, dropped])), arrivals_ns(result, PROCESSES["poisson"])
    )
    assert len(list(tmp_path.glob("*.parquet"))) == workers
    assert sum(one.dropped for one in result.slices) == len(dropped)


def test_the_same_arrival_has_the_same_request_whatever_the_number_of_workers(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one worker or by three."""
    rig.run(Behaviour())  # all three are there
    sent = []
    for count in (1, 3):
        monkeypatch.setattr(rig.generators, "_workers", count)
        records = tmp_path / str(count)
        settings = {**WIDE, "rate_per_s": 40.0, "duration_s": 0.5}
        result = rig.run(Behaviour(), arrivals=PROCESSES["constant"], records=records, **settings)
        assert len(result.generators) == count
        rows = {one.identity: one.rows for one in rig.server.served}
        sent.append([rows[one] for one in read_records(records).id])
    assert sent[0] == sent[1]
    assert len(set(sent[0])) > 10


def test_no_request_reaches_the_server_before_it_falls_due(rig: Rig, tmp_path: Path) -> None:
    """Each by itself: its id says which it was. How soon afterwards is in made-up time."""
    result = rig.run(Behaviour(), records=tmp_path, **WIDE, duration_s=0.5)
    records = read_records(tmp_path)
    due_ns = arrivals_ns(result, PROCESSES["poisson"])
    np.testing.assert_array_equal(np.sort(records.scheduled_ns), due_ns)
    received_ns = {one.identity: one.received_ns for one in rig.server.served}
    assert len(records.id) == len(received_ns) > 0
    assert (records.scheduled_ns <= [received_ns[one] for one in records.id]).all()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stall_of_the_server_is_in_every_request_that_falls_due_in_it(
    rig: Rig, protocol: str, tmp_path: Path
) -> None:
    """A closed loop would have noticed one slow request a slot, and called it a rare event."""
    wired = dataclasses.replace(rig, protocol=WireProtocol(protocol))
    begins: list[int] = []
    ends: list[int] = []

    def stall() -> None:
        now_ns = time.monotonic_ns()
        ends.append(now_ns + 400_000_000)
        wired.server.behaviour = Behaviour(stalled_until(ends[0], 0.001))
        begins.append(time.monotonic_ns())

    def over(_: Sequence[TimeSlice]) -> bool:
        return bool(ends) and time.monotonic_ns() > ends[0]

    result = wired.run(
        Behaviour(constant(0.001)),
        Watcher(decided=over, on_window_start=stall),
        arrivals=PROCESSES["constant"],
        records=tmp_path,
        **WIDE,
    )
    assert (result.failures, result.dropped) == ({}, 0)
    due_ns = arrivals_ns(result, PROCESSES["constant"])
    records = read_records(tmp_path)
    scheduled_ns = records.scheduled_ns
    # A worker that learns late of the decision sends on for a while, beyond the window.
    np.testing.assert_array_equal(scheduled_ns[scheduled_ns < result.window_end_ns], due_ns)
    inside = (scheduled_ns >= begins[0]) & (scheduled_ns < ends[0])
    assert inside.any()
    # None was answered before the stall's end: their response times are a ramp, or more than one.
    assert (records.completed_ns[inside] >= ends[0] - 1_000_000).all()
    check_slices(result, records)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_stall_of_the_generator_counts_as_latency_but_not_as_service(
    rig: Rig, protocol: str, tmp_path: Path
) -> None:
    """A stopped worker sends late: from the schedule that is latency, from the send it is not."""
    rig.run(Behaviour())
    worker = rig.generators.pids[0]
    instants_ns: list[int] = []

    def go_on() -> None:
        instants_ns.append(time.monotonic_ns())
        os.kill(worker, signal.SIGCONT)

    def stop_for_a_while() -> None:
        os.kill(worker, signal.SIGSTOP)
        wait_until_stopped(worker)
        instants_ns.append(time.monotonic_ns())
        threading.Timer(0.3, go_on).start()

    def over(_: Sequence[TimeSlice]) -> bool:
        return len(instants_ns) == 2

    wired = dataclasses.replace(rig, protocol=WireProtocol(protocol))
    watcher = Watcher(decided=over, on_window_start=stop_for_a_while)
    result = wired.run(
        Behaviour(), watcher, arrivals=PROCESSES["constant"], records=tmp_path, **WIDE
    )
    stopped_ns, went_on_ns = instants_ns
    assert (result.failures, result.dropped) == ({}, 0)
    records = read_records(tmp_path / "worker-0.parquet")
    due = (records.scheduled_ns >= stopped_ns) & (records.scheduled_ns < went_on_ns)
    assert due.any()
    assert (records.sent_ns[due] >= went_on_ns).all()
    # Schedule delay, service and response of every slice are these moments' differences.
    check_slices(result, read_records(tmp_path))


def test_what_falls_due_beyond_the_bound_is_dropped_and_counted(
    native: Rig, tmp_path: Path
) -> None:
    """Nobody is answered until as many wait as may be in flight and sixty more were dropped."""
    server, dropped_then = native.server, []

    def count(report: LoadProgress) -> None:
        dropped_then.append(sum(one.dropped for one in report.slices))

    watcher = Watcher(
        decided=lambda _: server.held == 12 and sum(dropped_then) >= 60,
        on_window_start=server.hold,
        on_window_end=server.release,
    )
    settings: dict[str, Any] = {**OPEN, "concurrency": 12, "arrivals": PROCESSES["constant"]}
    result = native.run(Behaviour(), watcher, records=tmp_path, listen=count, **settings)
    due_ns = arrivals_ns(result, PROCESSES["constant"])
    assert result.failures == {}
    dropped = sum(one.dropped for one in result.slices)
    assert dropped >= 60
    assert count_ok(result.slices) + dropped == len(due_ns)
    scheduled_ns = read_records(tmp_path, "dropped").scheduled_ns
    assert (scheduled_ns < result.window_end_ns).sum() == dropped


def test_a_decided_open_loop_ends_early(native: Rig) -> None:
    watcher = Watcher(decided=lambda window: count_ok(window) >= 50)
    result = native.run(Behaviour(constant(0.005)), watcher, **WIDE)
    assert result.duration_s < LONGEST_S
    assert count_ok(result.window) >= 50
    dropped = sum(one.dropped for one in result.slices)
    assert count_ok(result.slices) + dropped == len(arrivals_ns(result, PROCESSES["poisson"]))


def test_failures_do_not_slow_the_schedule(native: Rig) -> None:
    result = native.run(Behaviour(fault=Fault.UNAVAILABLE), **WIDE, duration_s=0.5)
    failed = sum(sum(one.failures.values()) for one in result.slices)
    assert failed == len(arrivals_ns(result, PROCESSES["poisson"]))
    assert result.dropped == 0


def test_a_server_that_is_down_is_dispatched_to_all_the_same(rig: Rig) -> None:
    with rig.aimed_at("127.0.0.1:1"):
        result = rig.run(Behaviour(), **WIDE, duration_s=0.5)
    failed = sum(one.failures.get("connection", 0) for one in result.slices)
    assert failed == len(arrivals_ns(result, PROCESSES["poisson"]))


def test_a_trace_ends_with_its_file(rig: Rig, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(str(second / 100) for second in range(20)) + "\n")
    process = ArrivalProcess(ArrivalKind.TRACE, trace=trace)
    settings = {**WIDE, "rate_per_s": None, "warmup_s": 0.0, "duration_s": 0.5}
    result = rig.run(Behaviour(), arrivals=process, **settings)
    assert count_ok(result.window) == 20
    assert result.duration_s == pytest.approx(0.5)

"""Closed loops on real Locust processes against a server whose latency is known."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_server import LOGITS, TOKEN_LOGPROBS, Behaviour, bimodal, constant, right_answer
from load_rig import (
    LENGTHS,
    ROWS,
    Rig,
    Watcher,
    count_ok,
    load_rig,
    percentile_ms,
    read_records,
    response_of,
)

from harness import hdr
from harness.errors import GeneratorError, UsageError
from harness.load.generators.driver import SLICE_S
from harness.load.generators.pool import LoadGenerators
from harness.load.requests.answers import make_known_answers, write_known_answers
from harness.load.requests.payloads import draw_payloads, read_payloads
from harness.load.transports.address import Target
from harness.types import LoadResult, TimeSlice

TOLERANCE_MS = {50: 10.0, 90: 30.0}
"""By percentile: what a busy machine's two schedulers, the server's and the client's, may add."""
SLICE_NS = round(SLICE_S * 1e9)
LATENCIES = {
    "constant": constant(0.02),
    "bimodal": bimodal(0.005, 0.08, slow_share=0.25),
}


@pytest.mark.parametrize("latency_s", LATENCIES.values(), ids=LATENCIES)
def test_a_known_latency_is_recovered(
    wired: Rig, latency_s: Callable[[int], float], tmp_path: Path
) -> None:
    result = wired.run(Behaviour(latency_s), concurrency=6, duration_s=0.8, records=tmp_path)
    records, served = read_records(tmp_path), wired.server.served
    assert (result.failures, result.records_problem) == ({}, "")
    assert len(records.sent_ns) == len(served) == count_ok(result.slices)
    # In order, each request's time at the server lies within its time at the client.
    received_ns = np.sort([one.received_ns for one in served])
    answered_ns = np.sort([one.answered_ns for one in served])
    assert (np.sort(records.sent_ns) <= received_ns).all()
    assert (np.sort(records.completed_ns) >= answered_ns).all()
    for percentile, tolerance_ms in TOLERANCE_MS.items():
        truth_ms = float(np.percentile([one.latency_ms for one in served], percentile))
        seen_ms = hdr.value_at(response_of(result.slices), percentile / 100)
        assert seen_ms is not None
        assert truth_ms * 0.98 <= seen_ms <= truth_ms * 1.01 + tolerance_ms


@pytest.mark.parametrize("concurrency", [1, 2, 17])
def test_histograms_are_the_sum_of_every_request_whatever_the_number_of_workers(
    wired: Rig, concurrency: int, tmp_path: Path
) -> None:
    result = wired.run(Behaviour(constant(0.01)), concurrency=concurrency, records=tmp_path)
    records = read_records(tmp_path)
    workers = len(wired.generators.pids)
    assert len(list(tmp_path.glob("*.parquet"))) == min(concurrency, workers)
    scheduled_in = (records.scheduled_ns - result.start_ns) // SLICE_NS
    completed_in = (records.completed_ns - result.start_ns) // SLICE_NS
    spans_ns = {
        "schedule_delay": records.sent_ns - records.scheduled_ns,
        "service": records.completed_ns - records.sent_ns,
        "response": records.completed_ns - records.scheduled_ns,
    }
    for one in result.slices:
        for name, span_ns in spans_ns.items():
            expected = hdr.of_nanoseconds(span_ns[scheduled_in == one.index])
            assert one.ok.of(name) == expected
        assert one.completed == (completed_in == one.index).sum()
        assert one.inferences == one.completed * 2
    served = wired.server.served
    assert len(served) == len(records.sent_ns) == count_ok(result.slices)
    in_flight = max(
        sum(other.received_ns <= one.received_ns < other.answered_ns for other in served)
        for one in served
    )
    assert 0.8 * concurrency <= in_flight <= concurrency


def test_a_slow_request_in_flight_at_the_end_is_drained_and_counted(native: Rig) -> None:
    result = native.run(Behaviour(constant(0.4)), concurrency=2, duration_s=0.5, warmup_s=0.0)
    # Each slot's last request ends after the window, and is the window's all the same.
    assert count_ok(result.slices) == len(native.server.served) == count_ok(result.window)
    assert result.completed <= count_ok(result.window) - 2
    assert percentile_ms(result, 100) >= 400


def test_the_window_opens_and_closes_on_time_in_the_parent(rig: Rig) -> None:
    called: list[int] = []

    def note() -> None:
        called.append(time.monotonic_ns())

    result = rig.run(Behaviour(), Watcher(on_window_start=note, on_window_end=note))
    start_ns, end_ns = called
    assert result.window_start_ns <= start_ns <= end_ns
    assert result.window_end_ns <= end_ns
    assert (result.warmup_s, result.duration_s) == pytest.approx((0.1, 0.5))
    assert [one.index for one in result.slices] == list(range(12))
    assert [one.index for one in result.window] == list(range(2, 12))


def test_a_slow_look_at_the_server_does_not_move_the_window(rig: Rig) -> None:
    """Reading the server's counters may take longer than the window; the workers have its end."""
    slow = Watcher(on_window_start=lambda: time.sleep(0.7))
    result = rig.run(Behaviour(constant(0.01)), slow)
    assert result.duration_s == pytest.approx(0.5)
    assert [one.index for one in result.slices] == list(range(12))
    assert count_ok(result.slices) == len(rig.server.served)
    assert count_ok(result.window[-3:]) > 0


def test_the_warm_up_is_cut(rig: Rig) -> None:
    """A server that is slow until the window opens looks fast."""

    def warm() -> None:
        rig.server.behaviour = Behaviour(constant(0.001))

    watcher = Watcher(on_window_start=warm)
    result = rig.run(Behaviour(constant(0.15)), watcher, warmup_s=0.4, duration_s=0.8)
    assert len(rig.server.served) == count_ok(result.slices) > count_ok(result.window) > 0
    assert percentile_ms(result, 95) < 150


def test_a_steady_load_opens_the_window_early(rig: Rig) -> None:
    def steady(slices: Sequence[TimeSlice]) -> bool:
        return count_ok(slices) >= 20

    started = time.monotonic()
    result = rig.run(Behaviour(constant(0.01)), Watcher(steady), warmup_s=20.0)
    assert time.monotonic() - started < 10
    warmup = result.slices[: result.window[0].index]
    assert 20 <= count_ok(warmup) < 400
    assert result.duration_s == pytest.approx(0.5)


def test_a_decided_trial_ends_early_and_whole(native: Rig) -> None:
    """What the watcher is shown is final: no slow request is still to come in those slices."""
    shown: list[tuple[TimeSlice, ...]] = []

    def decided(window: Sequence[TimeSlice]) -> bool:
        shown.append(tuple(window))
        return count_ok(window) >= 100

    behaviour = Behaviour(bimodal(0.005, 0.15, slow_share=0.1))
    started = time.monotonic()
    result = native.run(
        behaviour, Watcher(decided=decided), concurrency=8, duration_s=30.0, min_duration_s=0.2
    )
    assert time.monotonic() - started < 12
    assert 0.2 <= result.duration_s < 10
    assert count_ok(shown[-1]) >= 100 > count_ok(shown[0])
    assert all(window == result.window[: len(window)] for window in shown)
    assert count_ok(result.slices) == len(native.server.served)


def test_nothing_is_decided_before_the_shortest_window(rig: Rig) -> None:
    watcher = Watcher(decided=lambda window: True)
    result = rig.run(Behaviour(), watcher, duration_s=5.0, min_duration_s=0.4)
    assert 0.4 <= result.duration_s < 2


def test_rows_of_the_payload_file_are_sent_in_batches(native: Rig) -> None:
    result = native.run(
        Behaviour(), client_batch_size=4, batch_mix=((1, 1.0), (4, 2.0)), duration_s=0.3
    )
    seen, rows_sent = set(), 0
    for one in native.server.served:
        rows = np.frombuffer(one.rows, "<i8").reshape(one.shape)
        assert one.shape[0] in (1, 4)
        assert one.shape[1] in LENGTHS
        assert (rows == rows[:, :1]).all()
        group = LENGTHS.index(one.shape[1])
        assert set(rows[:, 0] - ROWS * group) <= set(range(ROWS))
        seen.add(one.rows)
        rows_sent += one.shape[0]
    assert len(seen) > 20
    # Those that completed after the window are counted nowhere: that is the throughput's rule.
    assert 0 <= rows_sent - sum(one.inferences for one in result.slices) <= 4 * 4


def test_the_same_seed_sends_the_same_requests(rig: Rig) -> None:
    sent = []
    for _ in range(2):
        rig.run(Behaviour(constant(0.002)), concurrency=8)
        sent.append({one.rows for one in rig.server.served})
    # Which of the pool's 256 a trial reaches depends on speed; what both reach is the same pool.
    assert len(sent[0] | sent[1]) <= 256 < len(sent[0]) + len(sent[1])


def test_right_answers_are_known_as_such(native: Rig, tmp_path: Path) -> None:
    payloads = draw_payloads(read_payloads(native.payloads), batch_size=2, seed=5)
    path = tmp_path / "known.npz"
    write_known_answers(path, make_known_answers(payloads, right_answer), 1e-6)
    result = native.run(Behaviour(), known_answers=path)
    assert (result.failures, result.first_failure) == ({}, "")
    assert result.completed > 0


def test_a_dynamic_output_is_held_against_the_request(native: Rig) -> None:
    behaviour = Behaviour(outputs=(TOKEN_LOGPROBS, LOGITS))
    rig = dataclasses.replace(native, outputs=(LOGITS, TOKEN_LOGPROBS))
    result = rig.run(behaviour, duration_s=0.3)
    assert result.failures == {}
    assert result.completed > 0


def test_chunked_answers_are_understood(rig: Rig) -> None:
    result = rig.run(Behaviour(chunked=True), duration_s=0.3)
    assert result.failures == {}
    assert result.completed > 0


def test_connections_are_kept_over_a_trial(rig: Rig) -> None:
    before = rig.server.connections
    rig.run(Behaviour(), concurrency=5)
    assert rig.server.connections - before == 5


def test_loads_start_and_stop_again_and_again(wired: Rig) -> None:
    """The same processes, from one request in flight to hundreds and back."""
    pids = wired.generators.pids
    started = time.monotonic()
    for concurrency in (1, 64, 512, 3):
        result = run_crowd(wired, concurrency)
        assert result.failures == {}
        # Not all of them with grpcio, which is still making a thread for each.
        assert count_ok(result.slices) == len(wired.server.served) >= concurrency / 4
    assert time.monotonic() - started < 30
    assert wired.generators.pids == pids


def run_crowd(rig: Rig, concurrency: int) -> LoadResult:
    # Slow answers, so that 512 of them wait and do not queue.
    behaviour = Behaviour(constant(0.3))
    return rig.run(behaviour, concurrency=concurrency, duration_s=0.3, warmup_s=0.05)


def test_the_generators_own_cost_is_told(rig: Rig) -> None:
    idle = rig.run(Behaviour(constant(0.1)), concurrency=1)
    busy = rig.run(Behaviour(), concurrency=16)
    assert 0 < idle.generator_cpu < busy.generator_cpu
    assert (len(idle.generators), len(busy.generators)) == (1, 3)
    for one in busy.generators:
        assert one.memory_bytes > 2**20
        assert hdr.total(one.loop_lag) > 5


def test_they_run_only_on_the_cpus_they_are_given(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with load_rig(tmp_path, cpus=[cpu]) as pinned:
        pinned.run(Behaviour(), duration_s=0.2)
        (pid,) = pinned.generators.pids
        threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        assert [os.sched_getaffinity(thread) for thread in threads] == [{cpu}] * len(threads)


def test_a_missing_payload_file_is_the_trials_fault_not_the_generators(rig: Rig) -> None:
    astray = dataclasses.replace(rig, payloads=rig.payloads.with_name("none.npz"))
    with pytest.raises(GeneratorError, match=r"none\.npz: not a payload file"):
        astray.run(Behaviour())
    assert rig.run(Behaviour()).completed > 0


def test_no_worker_is_refused(tmp_path: Path) -> None:
    nowhere = Target("127.0.0.1", 1)
    with pytest.raises(UsageError, match="at least one worker"):
        LoadGenerators(http=nowhere, grpc=nowhere, workers=0, log_dir=tmp_path)

"""Closed loops on real Locust processes against a server whose latency is known."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_server import LOGITS, TOKEN_LOGPROBS, Behaviour, bimodal, constant, right_answer
from load_rig import (
    ENOUGH,
    LENGTHS,
    LONGEST_S,
    ROWS,
    Rig,
    Watcher,
    check_slices,
    count_ok,
    enough,
    load_rig,
    read_records,
    response_of,
)

from harness import hdr
from harness.errors import GeneratorError, UsageError
from harness.load.generators.pool import LoadGenerators
from harness.load.requests.answers import make_known_answers, write_known_answers
from harness.load.requests.payloads import draw_payloads, read_payloads
from harness.load.transports.address import Target
from harness.types import TimeSlice

LATENCIES = {
    "constant": constant(0.02),
    "bimodal": bimodal(0.005, 0.08, slow_share=0.25),
}


@pytest.mark.parametrize("latency_s", LATENCIES.values(), ids=LATENCIES)
def test_no_request_is_faster_than_the_server_was(
    wired: Rig, latency_s: Callable[[int], float], tmp_path: Path
) -> None:
    """Request by request; how much longer it may take is the machine's, and a benchmark's, affair.

    That the client adds nothing of its own is tested in made-up time (test_load_closed_loop).
    """
    result = wired.run(
        Behaviour(latency_s), Watcher(decided=enough(60)), concurrency=6, records=tmp_path
    )
    records = read_records(tmp_path)
    served = {one.identity: one for one in wired.server.served}
    assert (result.failures, result.records_problem) == ({}, "")
    assert len(records.id) == len(wired.server.served) == count_ok(wired.reported(result))
    assert sorted(records.id) == sorted(served)
    truth = [served[one] for one in records.id]
    # Both read one clock. An answer that the kernel stamped is known to some microseconds.
    assert (records.sent_ns <= [one.received_ns for one in truth]).all()
    assert (records.completed_ns + 100_000 >= [one.answered_ns for one in truth]).all()
    check_slices(result, records)


@pytest.mark.parametrize("concurrency", [1, 2, 17])
def test_histograms_are_the_sum_of_every_request_whatever_the_number_of_workers(
    wired: Rig, concurrency: int, tmp_path: Path
) -> None:
    result = wired.run(
        Behaviour(constant(0.01)),
        Watcher(decided=enough(3 * concurrency)),
        concurrency=concurrency,
        records=tmp_path,
    )
    records = read_records(tmp_path)
    workers = len(wired.generators.pids)
    assert len(list(tmp_path.glob("*.parquet"))) == min(concurrency, workers)
    check_slices(result, records)
    assert len(wired.server.served) == len(records.sent_ns) == count_ok(wired.reported(result))


def until_held(rig: Rig, count: int) -> Watcher:
    """A window in which nobody is answered, and which ends when so many wait; then all are."""
    return Watcher(
        decided=lambda _: rig.server.held >= count,
        on_window_start=rig.server.hold,
        on_window_end=rig.server.release,
    )


@pytest.mark.parametrize("concurrency", [1, 2, 17])
def test_as_many_requests_are_in_flight_as_were_asked_for(wired: Rig, concurrency: int) -> None:
    wired.run(Behaviour(), until_held(wired, concurrency), concurrency=concurrency)
    served = wired.server.served
    in_flight = max(
        sum(other.received_ns <= one.received_ns < other.answered_ns for other in served)
        for one in served
    )
    assert in_flight == concurrency


def test_requests_in_flight_at_the_end_are_drained_and_counted(native: Rig, tmp_path: Path) -> None:
    """What each slot has in flight ends after the window, and is the window's all the same."""
    result = native.run(Behaviour(), until_held(native, 2), concurrency=2, records=tmp_path)
    records, served = read_records(tmp_path), native.server.served
    assert (result.failures, count_ok(native.reported(result))) == ({}, len(served))
    late = records.completed_ns >= result.window_end_ns
    assert late.sum() == 2
    assert (records.scheduled_ns[late] < result.window_end_ns).all()
    check_slices(result, records)


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


def test_a_slow_look_at_the_server_does_not_move_the_window(rig: Rig, tmp_path: Path) -> None:
    """Reading the server's counters may take longer than the window; the workers have its end."""
    slow = Watcher(on_window_start=lambda: time.sleep(0.7))
    result = rig.run(Behaviour(constant(0.01)), slow, records=tmp_path)
    assert result.duration_s == pytest.approx(0.5)
    assert [one.index for one in result.slices] == list(range(12))
    records = read_records(tmp_path)
    assert count_ok(result.slices) == len(rig.server.served) == len(records.scheduled_ns)
    assert (records.scheduled_ns < result.window_end_ns).all()


def test_the_warm_up_is_cut(rig: Rig, tmp_path: Path) -> None:
    """What fell due before the window opened is in none of its numbers."""
    result = rig.run(Behaviour(), Watcher(enough(), enough()), records=tmp_path)
    records = read_records(tmp_path)
    before = records.scheduled_ns < result.window_start_ns
    inside = ~before & (records.scheduled_ns < result.window_end_ns)
    assert (before.sum() >= ENOUGH, inside.sum() >= ENOUGH) == (True, True)
    assert response_of(result.window) == hdr.of_nanoseconds(records.spans_ns()["response"][inside])
    assert len(rig.server.served) == len(records.id) == count_ok(rig.reported(result))


def test_a_steady_load_opens_the_window_early(rig: Rig) -> None:
    result = rig.run(Behaviour(constant(0.01)), Watcher(steady=enough()), duration_s=0.2)
    warmup = result.slices[: result.window[0].index]
    assert count_ok(warmup) >= ENOUGH
    assert result.warmup_s < LONGEST_S
    assert result.duration_s == pytest.approx(0.2)


def test_a_decided_trial_ends_early_and_whole(native: Rig) -> None:
    """What the watcher is shown is final: no slow request is still to come in those slices."""
    shown: list[tuple[TimeSlice, ...]] = []

    def decided(window: Sequence[TimeSlice]) -> bool:
        shown.append(tuple(window))
        return len(shown) >= 4 and count_ok(window) >= 100

    behaviour = Behaviour(bimodal(0.005, 0.15, slow_share=0.1))
    result = native.run(behaviour, Watcher(decided=decided), concurrency=8, min_duration_s=0.2)
    assert 0.2 <= result.duration_s < LONGEST_S
    assert count_ok(shown[-1]) >= 100
    assert all(window == result.window[: len(window)] for window in shown)
    assert count_ok(native.reported(result)) == len(native.server.served)


def test_nothing_is_decided_before_the_shortest_window(rig: Rig) -> None:
    watcher = Watcher(decided=lambda window: True)
    result = rig.run(Behaviour(), watcher, min_duration_s=0.4)
    assert 0.4 <= result.duration_s < LONGEST_S


def test_rows_of_the_payload_file_are_sent_in_batches(native: Rig, tmp_path: Path) -> None:
    result = native.run(
        Behaviour(), Watcher(decided=enough(100)), client_batch_size=4,
        batch_mix=((1, 1.0), (4, 2.0)), records=tmp_path,
    )  # fmt: skip
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
    records = read_records(tmp_path)
    assert rows_sent == records.rows.sum()
    # Those that completed after the window are counted nowhere: that is the throughput's rule.
    within = records.completed_ns < result.window_end_ns
    assert records.rows[within].sum() == sum(one.inferences for one in result.slices) > 0


def test_the_same_seed_sends_the_same_requests(rig: Rig) -> None:
    sent = []
    for _ in range(2):
        half = Watcher(decided=lambda _: len({one.rows for one in rig.server.served}) > 128)
        rig.run(Behaviour(), half, concurrency=8)
        sent.append({one.rows for one in rig.server.served})
    # Which of the pool's 256 a trial reaches is chance; what both reach is the same pool.
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
    result = rig.run(behaviour)
    assert result.failures == {}
    assert result.completed > 0


def test_chunked_answers_are_understood(rig: Rig) -> None:
    result = rig.run(Behaviour(chunked=True))
    assert result.failures == {}
    assert result.completed > 0


def test_connections_are_kept_over_a_trial(rig: Rig) -> None:
    before = rig.server.connections
    rig.run(Behaviour(), concurrency=5)
    assert rig.server.connections - before == 5


def test_loads_start_and_stop_again_and_again(wired: Rig) -> None:
    """The same processes, from one request in flight to hundreds and back."""
    pids = wired.generators.pids
    for concurrency in (1, 64, 512, 3):
        # Held, so that hundreds of them wait. With grpcio not all 512, for which threads are made.
        crowd = until_held(wired, min(concurrency, 128))
        result = wired.run(Behaviour(), crowd, concurrency=concurrency, warmup_s=0.05)
        assert result.failures == {}
        assert count_ok(wired.reported(result)) == len(wired.server.served) >= concurrency / 4
    assert wired.generators.pids == pids


def test_the_generators_own_cost_is_told(rig: Rig) -> None:
    """It is no more than what the kernel says that the processes used over the whole load."""
    rig.run(Behaviour())
    processes = [psutil.Process(pid) for pid in rig.generators.pids]
    before_s = [cpu_s(one) for one in processes]
    result = rig.run(Behaviour(), Watcher(decided=enough(300)), concurrency=16)
    used_s = [cpu_s(one) - before for one, before in zip(processes, before_s, strict=True)]
    assert len(result.generators) == 3
    for one, most_s in zip(result.generators, used_s, strict=True):
        assert 0 < one.cpu_cores * result.duration_s <= most_s + 0.02  # the kernel counts in 10 ms
        assert one.memory_bytes > 2**20
        assert hdr.total(one.loop_lag) > 0
    assert result.generator_cpu == max(one.cpu_cores for one in result.generators)
    alone = rig.run(Behaviour(), concurrency=1)
    assert len(alone.generators) == 1


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def test_they_run_only_on_the_cpus_they_are_given(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with load_rig(tmp_path, cpus=[cpu]) as pinned:
        pinned.run(Behaviour())
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

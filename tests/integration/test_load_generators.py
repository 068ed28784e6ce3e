"""Real Locust processes against a server whose latency is known."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_server import LOGITS, TOKEN_LOGPROBS, Behaviour, Served, bimodal, constant
from hdrh.histogram import HdrHistogram
from load_rig import LENGTHS, ROWS, Rig, load_rig, merged, percentile_ms

from harness.errors import GeneratorError, UsageError
from harness.load.generators import LoadGenerators
from harness.types import LoadResult, WireProtocol

PROTOCOLS = list(WireProtocol)
TOLERANCE_MS = 4.0
"""Of a busy machine's two schedulers, the server's and the client's, over one loopback."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with load_rig(tmp_path_factory.mktemp("load"), processes=2) as made:
        yield made


def of_window(rig: Rig, result: LoadResult) -> list[Served]:
    return [
        one
        for one in rig.server.served
        if result.window_start_ns <= one.received_ns < result.window_end_ns
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_constant_latency_is_recovered(rig: Rig, protocol: str) -> None:
    result = rig.run(Behaviour(constant(0.02)), protocol=protocol, duration_s=1.5, warmup_s=0.3)
    truth = statistics.median(one.latency_ms for one in of_window(rig, result))
    assert result.failures == {}
    assert truth * 0.999 <= percentile_ms(result, 50) <= truth + TOLERANCE_MS


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_modes_of_a_bimodal_latency_are_recovered(rig: Rig, protocol: str) -> None:
    behaviour = Behaviour(bimodal(0.005, 0.08, slow_share=0.25))
    result = rig.run(behaviour, protocol=protocol, concurrency=8, duration_s=1.5)
    truth = sorted(one.latency_ms for one in of_window(rig, result))
    for share in (50, 90):
        expected = truth[int(share / 100 * len(truth))]
        assert expected * 0.98 <= percentile_ms(result, share) <= expected + 2 * TOLERANCE_MS


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("concurrency", [1, 3, 17])
def test_every_request_is_counted_once(rig: Rig, protocol: str, concurrency: int) -> None:
    result = rig.run(Behaviour(constant(0.01)), protocol=protocol, concurrency=concurrency)
    recorded = merged(result).get_total_count()
    served = len(of_window(rig, result))
    assert result.failures == {}
    assert abs(recorded - served) <= concurrency  # those on their way at the window's two edges
    assert abs(result.completed - recorded) <= concurrency
    assert HdrHistogram.decode(result.schedule_delay).get_total_count() == recorded
    in_flight = max(
        sum(other.received_ns <= one.received_ns < other.answered_ns for other in rig.server.served)
        for one in rig.server.served
    )
    assert in_flight == concurrency


def test_a_slow_request_in_flight_at_the_end_is_drained_and_counted(rig: Rig) -> None:
    result = rig.run(Behaviour(constant(0.4)), concurrency=2, duration_s=0.5, warmup_s=0)
    assert merged(result).get_total_count() == 4
    assert result.completed == 2
    assert percentile_ms(result, 100) >= 400


def test_the_window_opens_and_closes_on_time_in_the_parent(rig: Rig) -> None:
    called: list[int] = []

    def note() -> None:
        called.append(time.monotonic_ns())

    result = rig.run(Behaviour(), on_window_start=note, on_window_end=note)
    start, end = called
    assert result.window_start_ns <= start < result.window_end_ns <= end
    assert result.duration_s == pytest.approx(0.5)


def test_the_warm_up_is_cut(rig: Rig) -> None:
    """A server that is slow until the window opens looks fast."""

    def warm() -> None:
        rig.server.behaviour = Behaviour(constant(0.001))

    slow = Behaviour(constant(0.15))
    result = rig.run(slow, warmup_s=0.6, duration_s=1.0, on_window_start=warm)
    assert len(rig.server.served) > merged(result).get_total_count() > 0
    assert percentile_ms(result, 95) < 150


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rows_of_the_payload_file_are_sent_in_batches(rig: Rig, protocol: str) -> None:
    rig.run(Behaviour(), protocol=protocol, client_batch_size=4)
    seen = set()
    for one in rig.server.served:
        rows = np.frombuffer(one.rows, "<i8").reshape(one.shape)
        assert one.shape[0] == 4
        assert one.shape[1] in LENGTHS
        assert (rows == rows[:, :1]).all()
        group = LENGTHS.index(one.shape[1])
        assert set(rows[:, 0] - ROWS * group) <= set(range(ROWS))
        seen.add(one.rows)
    assert len(seen) > 20


def test_the_same_seed_sends_the_same_requests(rig: Rig) -> None:
    sent = []
    for _ in range(2):
        rig.run(Behaviour(constant(0.002)), concurrency=8, duration_s=1.0)
        sent.append({one.rows for one in rig.server.served})
    # Which of the pool's 256 a trial reaches depends on speed; what both reach is the same pool.
    assert len(sent[0] | sent[1]) <= 256 < len(sent[0]) + len(sent[1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dynamic_output_is_held_against_the_request(rig: Rig, protocol: str) -> None:
    behaviour = Behaviour(outputs=(TOKEN_LOGPROBS, LOGITS))
    result = rig.run(behaviour, protocol=protocol, outputs=[LOGITS, TOKEN_LOGPROBS])
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


def test_grpc_starts_and_stops_again_and_again(rig: Rig) -> None:
    """grpcio under gevent is the likeliest thing to hang here, so it is tried often."""
    pids = rig.generators.pids
    for concurrency in [1, 8, 16, 64] * 5:
        result = rig.run(
            Behaviour(constant(0.002)),
            protocol="grpc",
            concurrency=concurrency,
            duration_s=0.1,
            warmup_s=0.05,
        )
        assert result.failures == {}
        assert result.completed > 0
    assert rig.generators.pids == pids


def test_the_generators_own_cost_is_told(rig: Rig) -> None:
    idle = rig.run(Behaviour(constant(0.1)), concurrency=1)
    busy = rig.run(Behaviour(), protocol="grpc", concurrency=16)
    assert 0 < idle.generator_cpu < busy.generator_cpu


def test_they_run_only_on_the_cpus_they_are_given(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with load_rig(tmp_path, cpus=[cpu]) as pinned:
        pinned.run(Behaviour(), protocol="grpc")
        (pid,) = pinned.generators.pids
        threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        assert [os.sched_getaffinity(thread) for thread in threads] == [{cpu}] * len(threads)


def test_a_missing_payload_file_is_the_trials_fault_not_the_generators(rig: Rig) -> None:
    payloads, rig.payloads = rig.payloads, rig.payloads.with_name("none.npz")
    with pytest.raises(GeneratorError, match=r"none\.npz: not a payload file"):
        rig.run(Behaviour())
    rig.payloads = payloads
    assert rig.run(Behaviour()).completed > 0


def test_no_process_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one generator process"):
        LoadGenerators(http="", grpc="", processes=0, log_dir=None)  # type: ignore[arg-type]

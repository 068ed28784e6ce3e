"""What becomes of a window's slices in a trial's result, and when a trial may end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from harness import hdr
from harness.analysis.validity import judge_validity
from harness.flow.results import (
    BegunTrial,
    ClientSide,
    ServerSide,
    allowing_for_lateness,
    assess_trial,
    client_side,
    completing_records,
    generator_side,
    reading_lateness_s,
    without_measurement,
)
from harness.flow.trial_watch import TrialWatch
from harness.study.objective import parse_objective
from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    SERVICE,
    SPANS,
    Decision,
    GeneratorHealth,
    HostMetrics,
    Latencies,
    LoadResult,
    ServerMetrics,
    ServingConfig,
    SparseHistogram,
    TimeSlice,
    Trial,
    WireProtocol,
    Workload,
)

SLICE_S = 0.05
SLO = parse_objective("p95 < 50 ms")


def histogram(*values_ms: float) -> SparseHistogram:
    return hdr.of_nanoseconds((np.array(values_ms) * 1e6).astype(np.int64))


def a_slice(index: int, *response_ms: float, **rest: Any) -> TimeSlice:
    service = [value / 2 for value in response_ms]
    spans = {SCHEDULE_DELAY: service, SERVICE: service, RESPONSE: response_ms}
    ok = Latencies({name: histogram(*values) for name, values in spans.items() if values})
    count = len(response_ms)
    return TimeSlice(index, ok=ok, **{"completed": count, "inferences": 4 * count, **rest})


def begun(*, duration_s: float = 4.0, shortest_s: float | None = 0.5) -> BegunTrial:
    workload = Workload(WireProtocol.HTTP, 4, 2, duration_s, 1.0, seed=1, min_duration_s=shortest_s)
    return BegunTrial(Trial("m", "f", ServingConfig(), workload), "0" * 64, "2026-01-01")


def seen(window: Sequence[TimeSlice], confidence: float = 0.99) -> ClientSide:
    return client_side(window, SLICE_S, begun().trial.workload, confidence)


def test_the_clients_side_of_a_window() -> None:
    clients = seen([a_slice(at, 10.0, 20.0) for at in range(20)])
    assert clients.duration_s == pytest.approx(1.0)
    assert clients.requests == 40
    assert clients.throughput_requests_per_s == pytest.approx(40)
    assert clients.throughput_inferences_per_s == pytest.approx(160)
    assert [*clients.latencies] == [s.name for s in SPANS.values() if s.is_between_moments]
    response = clients.latencies[RESPONSE]
    assert response.confidence == 0.99
    assert response.percentiles["p50"].value_ms == pytest.approx(10, rel=0.001)
    assert clients.latencies[SERVICE].percentiles["p95"].value_ms == pytest.approx(10, rel=0.001)
    assert clients.latencies[SERVICE].mean_ms == pytest.approx(7.5, rel=0.001)
    delay = clients.latencies[SCHEDULE_DELAY]
    assert delay.percentiles["p99"].value_ms == pytest.approx(10, rel=0.001)
    assert (clients.failures_by_kind, clients.dropped) == ({}, 0)


def test_what_was_dropped_stands_apart_and_is_slower_than_anything() -> None:
    window = [a_slice(at, 10.0, failures={"timeout": 1}, dropped=2) for at in range(20)]
    result = assess_trial(begun(), SLO, seen(window)).result
    assert result.failures_by_kind == {"timeout": 20}
    assert result.failures == 20
    assert result.dropped == 40
    assert result.offered_requests_per_s == pytest.approx(80)
    assert result.latency is not None
    assert result.latency.percentiles["p95"].value_ms >= 3_600_000
    # What was never sent has no time from its send.
    assert result.latencies[SERVICE].percentiles["p95"].value_ms == pytest.approx(5, rel=0.001)


def test_a_window_without_answers_has_no_latency() -> None:
    result = assess_trial(begun(), SLO, seen([TimeSlice(0), TimeSlice(1)])).result
    assert result.latency is None
    assert result.latencies == {}
    assert result.latency_ms(SERVICE, "p95") is None


def test_a_trial_that_could_not_be_measured_says_why_and_decides_nothing() -> None:
    result = without_measurement(begun(), SLO, "the server refused it")
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert result.invalid_reason == result.reason == "the server refused it"
    assert (result.requests, result.latencies, result.offered_requests_per_s) == (0, {}, 0.0)


def test_a_result_carries_its_own_decision_and_the_parts_it_was_made_of() -> None:
    window = [a_slice(at, 100.0, 120.0) for at in range(60)]
    load = LoadResult(0, SLICE_S, tuple(window), 10**9, 3 * 10**9, ())
    judged = assess_trial(
        begun(), SLO, seen(load.window), generators=generator_side(load),
        served=ServerSide(ServerMetrics(requests=80), HostMetrics(cpu_utilization=0.5)),
        histogram_file="histograms/m.hdr",
    )  # fmt: skip
    result = judged.result
    assert (result.decision, result.reason) == (Decision.FAIL, judged.reason)
    assert "p95 120" in result.reason
    assert (result.trial, result.sha256) == (begun().trial, "0" * 64)
    assert (result.server.requests, result.host.cpu_utilization) == (80, 0.5)
    assert (result.requests, result.warmup_s) == (80, 1.0)
    assert result.histogram_file == "histograms/m.hdr"


def test_the_generators_are_judged_by_the_worst_of_them() -> None:
    generators = (
        GeneratorHealth(0.2, histogram(1.0)),
        GeneratorHealth(0.7, histogram(9.0)),
        GeneratorHealth(0.1, SparseHistogram()),
    )
    side = generator_side(LoadResult(0, SLICE_S, (), 400_000_000, 10**9, generators))
    assert side.generator_cpu == 0.7
    assert side.loop_lag_p99_ms == pytest.approx(9, rel=0.001)
    assert side.warmup_s == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("edges_ns", "late_s", "unsure"),
    [
        pytest.param((10**9, 3 * 10**9), 0.0, 0, id="on time"),
        pytest.param((10**9 + 30_000_000, 3 * 10**9 + 40_000_000), 0.07, 0, id="as ever"),
        pytest.param((10**9, 4 * 10**9 + 100_000_000), 1.1, 100, id="the end late"),
        pytest.param((2 * 10**9, 4 * 10**9 + 100_000_000), 2.1, 200, id="both late"),
    ],
)
def test_a_late_reading_makes_the_servers_count_unsure_by_the_traffic_meanwhile(
    edges_ns: tuple[int, int], late_s: float, unsure: int
) -> None:
    window = tuple(TimeSlice(index, completed=5) for index in range(60))  # 100 requests/s
    load = LoadResult(0, SLICE_S, window, 10**9, 3 * 10**9, ())
    assert reading_lateness_s(load, edges_ns) == pytest.approx(late_s)
    server = ServerMetrics(requests=200, requests_uncertainty=3)
    allowed = allowing_for_lateness(server, load, late_s)
    assert allowed.requests_uncertainty == 3 + unsure
    seen_late = dataclasses.replace(allowed, requests=200 + unsure)
    assert judge_validity(load, seen_late, begun().trial.workload, server_alive=True) == (True, "")


class Telemetry:
    """Counts its readings."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def figures(self) -> tuple[ServerMetrics, HostMetrics]:
        return ServerMetrics(requests=7), HostMetrics()

    edges_ns = (0, 0)


def watch_of(trial: BegunTrial, telemetry: Telemetry | None = None) -> TrialWatch:
    return TrialWatch(trial, SLO, telemetry or Telemetry(), SLICE_S)


def calm(count: int, level_ms: float, *, seed: int = 3) -> list[TimeSlice]:
    random = np.random.default_rng(seed)
    return [a_slice(at, *(level_ms * random.uniform(0.8, 1.2, 40))) for at in range(count)]


@pytest.mark.parametrize("level_ms", [5.0, 500.0])
def test_a_trial_far_from_the_bound_is_decided_at_its_first_looks(level_ms: float) -> None:
    first_look, second_look = [], []
    for seed in range(20):
        watch = watch_of(begun())
        assert not watch.decided(calm(9, level_ms, seed=seed))
        first_look.append(watch.decided(calm(10, level_ms, seed=seed)))
        second_look.append(first_look[-1] or watch.decided(calm(20, level_ms, seed=seed)))
    # Ten slices may look correlated by chance, and then the first look says nothing.
    assert sum(first_look) >= 14
    assert sum(second_look) >= 19


def test_between_looks_nothing_is_decided_and_at_the_bound_not_at_all() -> None:
    watch = watch_of(in_stage("confirm"))
    at_the_bound = calm(80, 50 / 1.17)
    looks = [count for count in range(1, 80) if watch.decided(at_the_bound[:count])]
    assert looks == []
    watch = watch_of(begun())
    assert not watch.decided(at_the_bound[:12])
    assert not watch.decided(calm(13, 5.0))  # far enough by now, but no look is due
    assert watch.decided(calm(20, 5.0))


@pytest.mark.parametrize(
    ("stage", "given_up"), [("workload", True), ("grid", True), ("confirm", False), ("load", False)]
)
def test_a_trial_of_the_search_that_nothing_will_decide_is_given_up(stage, given_up) -> None:
    """Its p95 lies at the bound; undecided it would end in any case."""
    undecided = []
    for seed in range(10):
        trial = in_stage(stage)
        watch = watch_of(trial)
        at_the_bound = calm(40, 50 / 1.18, seed=seed)
        assert not watch.decided(at_the_bound[:10])
        for count in (20, 40):
            if watch.decided(at_the_bound[:count]):
                judged = assess_trial(trial, SLO, seen(watch.shown, watch.confidence))
                undecided.append(judged.decision is Decision.UNDECIDED)
                break
    assert any(undecided) is given_up


def in_stage(stage: str) -> BegunTrial:
    trial = begun()
    return dataclasses.replace(trial, trial=dataclasses.replace(trial.trial, stage=stage))


def test_every_look_has_its_share_of_the_error() -> None:
    assert watch_of(begun(shortest_s=None)).confidence == pytest.approx(0.95)
    assert watch_of(begun()).confidence == pytest.approx(1 - 0.05 / 4)


def test_the_servers_side_is_read_at_the_edges() -> None:
    telemetry = Telemetry()
    watch = watch_of(begun(), telemetry=telemetry)
    watch.on_window_start()
    assert telemetry.calls == ["open"]
    watch.on_window_end()
    assert telemetry.calls == ["open", "close"]


def test_the_window_opens_when_latency_stays_as_it_is() -> None:
    watch = watch_of(begun())
    falling = [a_slice(at, *[100.0 * 0.6**at + 5] * 8) for at in range(12)]
    steady = [a_slice(12 + at, *[5.0 + 0.1 * (at % 3)] * 8) for at in range(30)]
    assert not watch.steady(falling[:6])
    assert watch.steady([*falling, *steady])


def test_records_of_an_earlier_attempt_at_a_trial_are_none_of_the_next(tmp_path):
    """It had two workers and was interrupted; the next one has one."""
    folder = tmp_path / "records" / "trial"
    folder.mkdir(parents=True)
    for left in ("worker-0.parquet", "worker-1.parquet", ".worker-2.parquet.stream"):
        (folder / left).write_bytes(b"earlier")
    with completing_records(folder):
        assert not folder.exists()
        folder.mkdir()
        (folder / "worker-0.parquet").write_bytes(b"this one")
    assert [one.name for one in folder.iterdir()] == ["worker-0.parquet"]
    with completing_records(tmp_path / "never"), completing_records(None):
        pass

"""The harness's own metrics: folded exactly, monotonic over a session, few labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from harness import hdr
from harness.study.objective import parse_objective
from harness.telemetry.exposition.buckets import COARSE_S, FINE_S, FoldedHistogram, above
from harness.telemetry.exposition.monitor import (
    MOST_LOADS,
    OTHER,
    LoadLabels,
    LoadMonitor,
    labels_of,
)
from harness.telemetry.exposition.page import MonitorCollector
from harness.types import (
    SPANS,
    TTFT,
    Decision,
    Latencies,
    SparseHistogram,
    StreamCounts,
    TimeSlice,
    WireProtocol,
    Workload,
)
from tests.sample_run import sample_run

LABELS = LoadLabels("student", "grpc", "closed", "1")
SLO = parse_objective("p95 < 50 ms, error_rate <= 1%, throughput >= 200/s, accuracy >= 90%")


def seen(*values_ms: float, failures: dict[str, int] | None = None, dropped: int = 0) -> TimeSlice:
    spans = hdr.of_nanoseconds((np.array(values_ms, dtype=np.float64) * 1e6).astype(np.int64))
    return TimeSlice(
        0,
        ok=Latencies(dict.fromkeys(SPANS, spans)),
        failures=failures or {},
        dropped=dropped,
        completed=len(values_ms),
        inferences=2 * len(values_ms),
    )


def begun(monitor: LoadMonitor, labels: LoadLabels = LABELS) -> LoadMonitor:
    monitor.begin(labels, SLO, family="topics", concurrency=4, rate_per_s=None)
    return monitor


def page_of(monitor: LoadMonitor) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Prometheus would read, by name and labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MonitorCollector(monitor))
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(page, name: str, **labels: str) -> float:
    found = [
        number for (known, has), number in page.items() if known == name and labels.items() <= has
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


@given(st.lists(st.integers(1, 200_000_000), min_size=1, max_size=80))
def test_folding_loses_no_request_and_moves_none_by_more_than_a_thousandth(
    values_us: list[int],
) -> None:
    folded = FoldedHistogram(FINE_S)
    folded.add(hdr.of_nanoseconds(np.array(values_us, dtype=np.int64) * 1000))
    counts = dict(zip(FINE_S, (count for _, count in folded.cumulative()), strict=False))
    assert folded.count == folded.cumulative()[-1][1] == len(values_us)
    for edge_s, count in counts.items():
        least = sum(one <= edge_s * 1e6 * (1 - 1e-3) for one in values_us)
        most = sum(one <= edge_s * 1e6 for one in values_us)
        assert least <= count <= most
    assert folded.sum_s == pytest.approx(sum(values_us) / 1e6, rel=1e-3)


def test_edges_are_round_and_ascend() -> None:
    assert list(FINE_S) == sorted(set(FINE_S))
    assert set(COARSE_S) < set(FINE_S)
    assert {0.001, 0.05, 0.1, 1.0, 10.0} <= set(FINE_S)


def test_slow_is_what_the_clauses_own_operator_says() -> None:
    histogram_ms = seen(10, 50, 90).ok.response
    assert above(histogram_ms, 0.05, inclusive=True) == 2
    assert above(histogram_ms, 5.0, inclusive=False) == 0
    assert above(SparseHistogram(), 0.05, inclusive=True) == 0


def test_a_page_holds_what_was_reported() -> None:
    monitor = begun(LoadMonitor())
    monitor.add([seen(1, 20, 80, failures={"timeout": 2}, dropped=3)])
    monitor.add_generator("worker 0", cpu_s=0.5, loop_lag=seen(1).ok.response, memory_bytes=100)
    page = page_of(monitor)
    assert value(page, "harness_requests_total", variant="student", load_mode="closed") == 3
    assert value(page, "harness_inferences_total") == 6
    assert value(page, "harness_failed_requests_total", kind="timeout") == 2
    assert value(page, "harness_dropped_requests_total") == 3
    assert value(page, "harness_response_latency_seconds_bucket", le="0.05") == 2
    assert value(page, "harness_response_latency_seconds_bucket", le="+Inf") == 3
    assert value(page, "harness_response_latency_seconds_count") == 3
    assert value(page, "harness_generator_cpu_seconds_total", worker="worker 0") == 0.5
    assert value(page, "harness_objective_bound_seconds", metric="p95") == 0.05
    assert value(page, "harness_objective_bound_per_second") == 200
    assert value(page, "harness_objective_budget_ratio", constraint="p95 < 50 ms") == 0.05
    slow = {"constraint": "p95 < 50 ms", "family": "topics"}
    assert value(page, "harness_objective_events_total", **slow) == 3 + 3
    assert value(page, "harness_objective_bad_events_total", **slow) == 1 + 3
    failed = {"constraint": "error_rate <= 1%"}
    assert value(page, "harness_objective_bad_events_total", **failed) == 5
    assert value(page, "harness_load_running") == 1
    assert value(page, "harness_asked_in_flight_requests") == 4


def test_streams_are_counted_by_their_tokens() -> None:
    """Two slices of a load of streams; nothing of them stands on a page of answers in one."""
    monitor = begun(LoadMonitor())
    monitor.add([seen(20)])
    assert not any(name.startswith("harness_output_tokens") for name, _ in page_of(monitor))
    of_ttft = Latencies({**seen(30, 80).ok.spans, TTFT: seen(5, 9).ok.response})
    one = dataclasses.replace(seen(30, 80), ok=of_ttft, good=1, streams=StreamCounts(14, 40, 3))
    monitor.add([one, one])
    page = page_of(monitor)
    assert value(page, "harness_output_tokens_total", variant="student") == 80
    assert value(page, "harness_input_tokens_total") == 28
    assert value(page, "harness_good_requests_total") == 2
    assert value(page, "harness_left_requests_total") == 6
    # `seen` gives every span its values: 1 of the first slice, 2 of each of the others.
    assert value(page, "harness_time_to_first_token_seconds_count") == 1 + 2 + 2


def test_gauges_of_a_running_load_are_its_last_seconds_and_go_with_it() -> None:
    now_s = 0.0
    monitor = begun(LoadMonitor(now_s=lambda: now_s))
    now_s = 5.0
    monitor.add([seen(*[100.0] * 50, failures={"timeout": 5}, dropped=5)])
    page = page_of(monitor)
    assert value(page, "harness_achieved_requests_per_second") == 11
    assert value(page, "harness_offered_requests_per_second") == 12
    assert value(page, "harness_in_flight_requests") == pytest.approx(1.0, rel=1e-3)
    now_s = 30.0
    assert value(page_of(monitor), "harness_achieved_requests_per_second") == 0
    monitor.end()
    ended = page_of(monitor)
    assert value(ended, "harness_load_running") == 0
    assert not [name for name, _ in ended if name == "harness_in_flight_requests"]
    assert value(ended, "harness_requests_total") == 50


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=2, max_size=6))
def test_counters_never_fall_over_the_tests_of_a_session(tests: list[tuple[int, int]]) -> None:
    monitor = LoadMonitor()
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for batch, count in tests:
        begun(monitor, LABELS._replace(client_batch_size=str(batch)))
        monitor.add([seen(*[5.0] * count, failures={"timeout": 1})])
        monitor.end()
        monitor.add([seen(1.0)])  # a late report is nobody's
        after = page_of(monitor)
        counters = ("_total", "_bucket", "_count", "_sum")
        for key, number in before.items():
            if key[0].endswith(counters):
                assert after[key] >= number
        before = after
    total = sum(number for (name, _), number in before.items() if name == "harness_requests_total")
    assert total == sum(count for _, count in tests)


def test_labels_stay_few_whatever_is_sent() -> None:
    monitor = LoadMonitor()
    for batch in range(3 * MOST_LOADS):
        begun(monitor, LABELS._replace(client_batch_size=str(batch)))
        monitor.add([seen(1.0)])
    assert len(monitor.loads) <= MOST_LOADS + 1
    page = page_of(monitor)
    assert value(page, "harness_requests_total", variant=OTHER) == 2 * MOST_LOADS
    assert not [has for _, has in page if "trial" in dict(has)]


def test_a_mix_of_batch_sizes_is_one_label() -> None:
    workload = Workload(WireProtocol.HTTP, 8, 4, 1.0, 0.0, 1, batch_mix=((1, 1.0), (8, 1.0)))
    assert labels_of("m", workload).client_batch_size == "mix"


def test_finished_trials_give_verdict_capacity_and_quality() -> None:
    run = sample_run()
    monitor = LoadMonitor()
    for result in run.trials:
        monitor.add_result(result)
    monitor.add_quality(run.scores)
    monitor.decide("topics", Decision.PASS)
    page = page_of(monitor)
    trials = sum(number for (name, _), number in page.items() if name == "harness_trials_total")
    assert trials == len(run.trials)
    best = {
        dict(has)["variant"]: number
        for (name, has), number in page.items()
        if name == "harness_capacity_inferences_per_second"
    }
    passed = [one for one in run.trials if one.decision is Decision.PASS]
    assert max(best.values()) == max(one.throughput_inferences_per_s for one in passed)
    assert set(best) == {one.trial.variant for one in passed}
    assert value(page, "harness_verdict", family="topics", decision="pass") == 1
    assert value(page, "harness_verdict", family="topics", decision="fail") == 0
    score = run.scores[0]
    labels = {"variant": score.variant, "metric": score.metric}
    assert value(page, "harness_quality_score", **labels) == score.value


def test_a_trial_that_does_not_count_shows_no_figures() -> None:
    run = sample_run()
    cached = dataclasses.replace(run.trials[0].server, cache_hits=1234)
    spoilt = dataclasses.replace(
        run.trials[0], valid=False, decision=Decision.INVALID, server=cached
    )
    monitor = LoadMonitor()
    monitor.add_result(spoilt)
    page = page_of(monitor)
    assert value(page, "harness_trials_total", decision="invalid") == 1
    assert value(page, "harness_cached_answers_total") == 1234
    assert not [name for name, _ in page if name == "harness_trial_latency_seconds"]

"""Differences of Triton's cumulative statistics."""

from __future__ import annotations

import dataclasses
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.triton import (
    ModelCounters,
    difference,
    is_torn,
    read_at_rest,
    read_counters,
    with_parts,
)
from harness.types import ServerMetrics, answering_version

# As protobuf's JSON writes it: 64-bit numbers are strings, zeros are left out.
FRESH = {
    "name": "m",
    "inference_stats": {
        "success": {},
        "fail": {},
        "queue": {},
        "compute_input": {},
        "compute_infer": {},
        "compute_output": {},
    },
}
USED = {
    "name": "m",
    "inference_count": "12",
    "execution_count": "3",
    "inference_stats": {
        "success": {"count": "6", "ns": "60000000"},
        "fail": {"count": "2", "ns": "5"},
        "queue": {"count": "6", "ns": "12000000"},
        "compute_input": {"count": "6", "ns": "600000"},
        "compute_infer": {"count": "6", "ns": "30000000"},
        "compute_output": {"count": "6", "ns": "300000"},
    },
    "batch_stats": [
        {
            "batch_size": "2",
            "compute_input": {"count": "1", "ns": "200000"},
            "compute_infer": {"count": "1", "ns": "4000000"},
            "compute_output": {"count": "1", "ns": "100000"},
        },
        {"batch_size": "5", "compute_infer": {"count": "2", "ns": "13000000"}},
    ],
}


def test_a_window_from_a_fresh_model_holds_all_it_did() -> None:
    metrics = difference(read_counters(FRESH), read_counters(USED))

    assert metrics.requests == 6
    assert metrics.inferences == 12
    assert metrics.executions == 3
    assert metrics.batch_sizes == {2: 1, 5: 2}
    assert metrics.batch_compute_ms == pytest.approx({2: 4.3, 5: 6.5})  # of one execution
    assert metrics.batch_mean == 4.0
    assert metrics.queue_ms == pytest.approx(2.0)
    assert metrics.compute_input_ms == pytest.approx(0.1)
    assert metrics.compute_infer_ms == pytest.approx(5.0)
    assert metrics.compute_output_ms == pytest.approx(0.05)
    assert metrics.failures == {"UNSPECIFIED": 2}
    assert not metrics.counters_reset


def test_a_window_without_traffic_has_counts_of_zero_and_no_means() -> None:
    metrics = difference(read_counters(USED), read_counters(USED))

    assert (metrics.requests, metrics.inferences, metrics.executions) == (0, 0, 0)
    assert metrics.queue_ms is None
    assert metrics.compute_ms is None
    assert metrics.batch_sizes == {}
    assert metrics.failures == {}


def counted(**counts: str) -> dict[str, Any]:
    """The used model's statistics with other counts."""
    stats = USED["inference_stats"]
    return {"inference_stats": stats | {name: {"count": number} for name, number in counts.items()}}


@pytest.mark.parametrize(
    ("changed", "torn"),
    [
        ({}, False),
        ({"inference_count": "10", "execution_count": "2"}, True),
        ({"execution_count": "4"}, True),
        ({"batch_stats": USED["batch_stats"][:1]}, True),
        ({"batch_stats": []}, False),
        ({"inference_count": "0", "execution_count": "0"}, False),
        (counted(success="7"), True),
        (counted(queue="7"), True),
        (counted(compute_infer="5"), True),
        (counted(success="9", queue="9", cache_hit="3"), False),
        (counted(success="9", queue="9", cache_hit="4"), True),
        (counted(success="9", queue="9"), True),
        ({"inference_stats": {"success": {"count": "7"}}}, False),
        ({"inference_stats": {}}, False),
    ],
)
def test_a_reading_is_torn_where_its_counts_disagree(
    changed: dict[str, object], torn: bool
) -> None:
    assert is_torn(USED | changed) == torn


def test_at_rest_is_what_no_longer_changes() -> None:
    counts = iter([3, 4, 6, 6, 7])
    pauses: list[float] = []
    found = read_at_rest(lambda: counted(success=str(next(counts))), sleep=pauses.append)
    assert read_counters(found).requests == 6
    assert pauses == [0.25] * 3


def test_what_never_rests_is_read_for_five_seconds() -> None:
    counts, pauses = count(), list[float]()
    found = read_at_rest(lambda: counted(success=str(next(counts))), sleep=pauses.append)
    assert read_counters(found).requests == 20
    assert sum(pauses) == pytest.approx(5.0)


def test_a_fresh_models_reading_is_whole() -> None:
    assert not is_torn(FRESH)


@pytest.mark.parametrize("unanswered", [None, {}, {"name": "m"}])
def test_what_the_server_does_not_offer_stays_none(unanswered: dict[str, object] | None) -> None:
    assert difference(read_counters(USED), read_counters(unanswered)) == ServerMetrics()
    assert difference(read_counters(unanswered), read_counters(USED)) == ServerMetrics()


def test_a_phase_the_server_does_not_offer_is_none_and_not_zero() -> None:
    stats = {key: value for key, value in USED["inference_stats"].items() if key != "queue"}
    metrics = difference(read_counters(FRESH), read_counters(USED | {"inference_stats": stats}))

    assert metrics.queue_ms is None
    assert metrics.compute_infer_ms == pytest.approx(5.0)


def test_reasons_of_the_metrics_page_replace_the_bare_count() -> None:
    before = read_counters(FRESH, {"OTHER": 0, "REJECTED": 3})
    after = read_counters(USED, {"OTHER": 0, "REJECTED": 5, "BACKEND": 1})

    assert difference(before, after).failures == {"BACKEND": 1, "REJECTED": 2}


def test_a_scrape_that_failed_at_the_end_is_no_reset() -> None:
    metrics = difference(read_counters(FRESH, {"OTHER": 7}), read_counters(USED, None))

    assert not metrics.counters_reset
    assert metrics.failures == {"UNSPECIFIED": 2}


def test_a_restart_is_seen_and_leaves_no_numbers() -> None:
    assert difference(read_counters(USED), read_counters(FRESH)) == ServerMetrics(
        counters_reset=True
    )


counters = st.builds(
    ModelCounters,
    requests=st.integers(1, 10**12),
    failed=st.integers(1, 10**6),
    inferences=st.integers(1, 10**12),
    executions=st.integers(1, 10**12),
    duration_ns=st.fixed_dictionaries(
        dict.fromkeys(
            ("queue", "compute_input", "compute_infer", "compute_output"), st.integers(1, 10**15)
        )
    ),
    executions_by_batch=st.dictionaries(st.integers(1, 64), st.integers(1, 10**9), min_size=1),
    compute_ns_by_batch=st.dictionaries(st.integers(1, 64), st.integers(1, 10**9), min_size=1),
    failed_by_reason=st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 99), min_size=1),
    cache_hits=st.integers(1, 10**12),
    cache_misses=st.integers(1, 10**12),
)


@given(counters, st.data())
def test_any_single_counter_that_fell_is_a_reset(
    before: ModelCounters, data: st.DataObject
) -> None:
    names = [field.name for field in dataclasses.fields(before) if field.name != "version"]
    name = data.draw(st.sampled_from(names))
    value = getattr(before, name)
    if isinstance(value, int):
        fallen: object = data.draw(st.integers(0, value - 1))
    else:
        key = data.draw(st.sampled_from(sorted(value)))
        fallen = value | {key: data.draw(st.integers(0, value[key] - 1))}
    after = dataclasses.replace(before, **{name: fallen})

    assert difference(before, after) == ServerMetrics(counters_reset=True)


@given(st.lists(st.tuples(*[st.integers(0, 10**9)] * 4), min_size=3, max_size=3))
def test_windows_side_by_side_add_up(steps: list[tuple[int, int, int, int]]) -> None:
    """Counting over two adjoining windows is counting over both at once."""
    first, middle, last = (_after(steps[: end + 1]) for end in range(3))

    parts = [difference(first, middle), difference(middle, last)]
    whole = difference(first, last)

    assert whole.requests == sum(part.requests or 0 for part in parts)
    assert whole.executions == sum(part.executions or 0 for part in parts)
    assert whole.batch_sizes.get(8, 0) == sum(part.batch_sizes.get(8, 0) for part in parts)
    if whole.requests:
        queue_ms = sum((part.queue_ms or 0) * (part.requests or 0) for part in parts)
        nothing_lost = all(part.requests for part in parts)
        if nothing_lost:
            assert whole.queue_ms == pytest.approx(queue_ms / whole.requests)


def _after(steps: list[tuple[int, int, int, int]]) -> ModelCounters:
    requests, queue_ns, executions, batches = map(sum, zip(*steps, strict=True))
    return ModelCounters(
        requests=requests,
        failed=0,
        inferences=requests,
        executions=executions,
        duration_ns={"queue": queue_ns},
        executions_by_batch={8: batches},
    )


# Release 24.10 after 22 requests, of which its cache answered 3 (nanoseconds, made round).
CACHED = {
    "name": "m",
    "version": "1",
    "inference_count": 19,
    "execution_count": 4,
    "inference_stats": {
        "success": {"count": 22, "ns": 89_000_000},
        "fail": {"count": 0, "ns": 0},
        "queue": {"count": 22, "ns": 22_000_000},
        "compute_input": {"count": 19, "ns": 19_000_000},
        "compute_infer": {"count": 19, "ns": 76_000_000},
        "compute_output": {"count": 19, "ns": 19_000_000},
        "cache_hit": {"count": 3, "ns": 660_000},
        "cache_miss": {"count": 2, "ns": 440_000},
    },
}


def test_compute_is_divided_by_what_computed_and_the_queue_by_all() -> None:
    metrics = difference(read_counters(FRESH | {"version": "1"}), read_counters(CACHED))
    assert metrics.cache_hits is None, "a reading without them tells nothing"

    cold = FRESH | {
        "inference_stats": FRESH["inference_stats"] | {"cache_hit": {}, "cache_miss": {}}
    }
    metrics = difference(read_counters(cold), read_counters(CACHED))

    assert (metrics.requests, metrics.cache_hits, metrics.cache_misses) == (22, 3, 2)
    assert metrics.queue_ms == pytest.approx(1.0)
    assert metrics.compute_infer_ms == pytest.approx(4.0)
    assert metrics.compute_ms == pytest.approx(6.0)
    assert metrics.cache_ms == pytest.approx(1.1 / 22)
    assert metrics.accounted_ms == pytest.approx(1.0 + 1.1 / 22 + 6.0 * 19 / 22)


def test_where_the_cache_answered_all_nothing_was_computed() -> None:
    before = ModelCounters(
        requests=0, duration_ns={"queue": 0, "compute_infer": 0, "cache_hit": 0}, cache_hits=0
    )
    after = ModelCounters(
        requests=10,
        duration_ns={"queue": 10_000_000, "compute_infer": 0, "cache_hit": 5_000_000},
        cache_hits=10,
    )
    metrics = difference(before, after)
    assert metrics.compute_ms is None
    assert metrics.accounted_ms == pytest.approx(1.5)


def test_another_version_leaves_no_figures_but_its_name() -> None:
    """The new version has counted more already than the old one had: no counter fell."""
    before = read_counters(CACHED)
    after = read_counters(CACHED | {"version": "2", "inference_count": 1000})
    assert difference(before, after) == ServerMetrics(
        version="2", exchanged="version 1 answered first, and version 2 last"
    )


def test_the_version_that_answers_is_the_highest_number() -> None:
    assert answering_version(["9", "10", "2"]) == "10"
    assert answering_version(["nightly", "3"]) == "3"
    assert answering_version([]) == ""


def test_a_part_s_cache_and_version_are_the_ensemble_s() -> None:
    whole = ServerMetrics(requests=10, queue_ms=0.0, compute_infer_ms=9.0, cache_hits=0)
    tokenize = ServerMetrics(requests=10, queue_ms=1.0, compute_infer_ms=2.0, cache_hits=0)
    model = ServerMetrics(
        requests=10, queue_ms=1.0, compute_infer_ms=8.0, cache_hits=9, cache_ms=0.1
    )
    joined = with_parts(whole, {"t": tokenize, "m": model})
    assert joined.from_cache == 9
    assert joined.accounted_ms == pytest.approx(3.0 + 1.0 + 0.1 + 0.8)

    exchanged = with_parts(
        whole, {"t": tokenize, "m": ServerMetrics(exchanged="version 1, then 2")}
    )
    assert exchanged.exchanged == "of 'm', version 1, then 2"

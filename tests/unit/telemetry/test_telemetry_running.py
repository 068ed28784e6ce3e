"""Counters of a running test add up, across restarts and beyond what is kept apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.readings import MOST, RunningCounters
from harness.telemetry.triton import ModelCounters


def reading(requests: int, *, batch: int = 2) -> ModelCounters:
    return ModelCounters(
        requests=requests,
        failed=0,
        inferences=requests * batch,
        executions=requests,
        duration_ns={"queue": requests * 1_000_000, "compute_infer": requests * 3_000_000},
        executions_by_batch={batch: requests} if requests else {},
    )


@given(growths=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=8), min_size=1))
def test_totals_go_on_when_counters_begin_anew(growths: list[list[int]]) -> None:
    counters, at_s, expected, resets, before = RunningCounters(), 0.0, 0, 0, 7
    counters.take(at_s, reading(before))
    for lives, life in enumerate(growths):
        count = before if lives == 0 else 0
        for grown in life:
            count += grown
            at_s += 1
            fell = count < before
            resets += fell
            expected += count if fell else count - before
            before = count
            counters.take(at_s, reading(count))
    total = counters.total()
    assert (total.requests, counters.resets) == (expected, resets)
    assert total.counters_reset == (resets > 0)
    assert sum(total.batch_sizes.values()) == expected
    if expected:
        assert total.queue_ms == pytest.approx(1)
        assert total.compute_infer_ms == pytest.approx(3)


def test_what_a_server_does_not_offer_is_missing_and_not_zero() -> None:
    counters = RunningCounters()
    counters.take(0.0, ModelCounters())
    counters.take(1.0, ModelCounters())
    assert counters.total().requests is None
    assert counters.total().queue_ms is None


def test_a_long_test_takes_no_more_room_and_loses_no_count() -> None:
    counters = RunningCounters()
    for second in range(3 * MOST):
        counters.take(float(second), reading(second))
    assert len(counters.stretches) <= MOST
    assert counters.total().requests == 3 * MOST - 1
    assert counters.cut_at(0.0)


def test_a_restart_that_the_counters_hide_is_told_by_who_asked() -> None:
    counters = RunningCounters()
    counters.take(0.0, reading(3))
    counters.take(3.0, reading(40), restarted=True)
    counters.take(4.0, reading(50))
    assert counters.resets == 1
    assert counters.total().requests == 50
    assert counters.total().counters_reset


def test_another_version_is_told_and_its_counters_begin_at_nothing() -> None:
    counters = RunningCounters()
    for second, (count, version) in enumerate([(50, "1"), (60, "1"), (200, "2"), (230, "2")]):
        counters.take(float(second), replace(reading(count), version=version))
    total = counters.total()
    assert total.exchanged == "version 1 answered first, and version 2 last"
    assert total.requests == 10 + 200 + 30
    assert (counters.resets, total.version) == (0, "2")
    assert counters.total(2.0).exchanged == "", "the stretch after it is sound"


def with_reasons(requests: int, failed: int, *, missed: bool = False) -> ModelCounters:
    told = None if missed else {"OTHER": failed, "REJECTED": 0}
    return replace(reading(requests), failed=failed, failed_by_reason=told)


@pytest.mark.parametrize(
    ("failed", "missed", "expected"),
    [
        ([7, 7, 7, 7, 7], {2}, {}),
        ([7, 8, 9, 9, 10], {2, 3}, {"OTHER": 3}),
        ([7, 9, 12, 13], {2, 3}, {"OTHER": 2, "UNSPECIFIED": 4}),
        ([7, 9, 10, 1, 2], {2, 3}, {"UNSPECIFIED": 5}),
    ],
)
def test_a_metrics_page_that_was_missed_books_no_earlier_failures(
    failed: list[int], missed: set[int], expected: dict[str, int]
) -> None:
    """The third server is not seen again; the fourth is restarted with its page missing."""
    counters = RunningCounters()
    for second, count in enumerate(failed):
        counters.take(float(second), with_reasons(100, count, missed=second in missed))
    assert counters.total().failures == expected


def test_without_a_first_metrics_page_failures_have_no_reason_and_are_not_more() -> None:
    counters = RunningCounters()
    for second, (failed, told) in enumerate([(7, None), (9, {"OTHER": 9}), (10, {"OTHER": 10})]):
        counters.take(float(second), replace(reading(100), failed=failed, failed_by_reason=told))
    assert counters.total().failures == {"UNSPECIFIED": 3}
    assert counters.total(1.0).failures == {"OTHER": 1}


def test_after_a_restart_all_failures_are_new() -> None:
    counters = RunningCounters()
    for second, (count, failed) in enumerate([(50, 7), (60, 7), (3, 2), (9, 4)]):
        counters.take(float(second), with_reasons(count, failed))
    assert counters.total().failures == {"OTHER": 4}


def test_answers_of_the_cache_add_up() -> None:
    counters = RunningCounters()
    for second, (count, hits) in enumerate([(50, 0), (100, 40), (150, 90)]):
        counters.take(float(second), replace(reading(count), cache_hits=hits, cache_misses=1))
    assert (counters.total().requests, counters.total().cache_hits) == (100, 90)
    assert counters.total().compute_infer_ms == pytest.approx(100 * 3 / 10)

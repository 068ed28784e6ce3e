"""What belongs to a window, and that processes merge as if they had been one."""

from __future__ import annotations

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.load.closed_loop import Exchange
from harness.load.recorder import WindowCounts, WindowRecorder, block_count, merge_counts
from harness.load.transports.contract import RequestFailure
from harness.types import RequestRecord

START, END = 1_000_000_000, 2_000_000_000


def exchange(
    scheduled: int, completed: int, *, sent: int | None = None, kind: str = "ok"
) -> Exchange:
    failure = None if kind == "ok" else RequestFailure(kind, f"at {completed}")
    record = RequestRecord(scheduled, scheduled if sent is None else sent, completed, kind)
    return Exchange(record, 0, failure)


def recorded(*exchanges: Exchange) -> WindowCounts:
    recorder = WindowRecorder(START, END)
    for one in exchanges:
        recorder.add(one)
    return recorder.counts()


def counts_by_block(counts: WindowCounts) -> list[int]:
    return [HdrHistogram.decode(block).get_total_count() for block in counts.histograms]


def test_a_request_counts_where_it_was_scheduled() -> None:
    counts = recorded(
        exchange(START - 1, START + 10),  # warm-up: its completion counts, its latency does not
        exchange(START, START + 10),
        exchange(START + 250_000_000, START + 900_000_000),
        exchange(END - 1, END + 50_000_000),  # in flight at the end: drained and counted
        exchange(END, END + 10),  # after the window
    )
    assert counts_by_block(counts) == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert counts.completed == 3


def test_latency_and_schedule_delay_stay_apart() -> None:
    counts = recorded(exchange(START, START + 5_000_000, sent=START + 2_000_000))
    assert HdrHistogram.decode(counts.histograms[0]).get_max_value() == pytest.approx(
        5000, rel=1e-3
    )
    assert HdrHistogram.decode(counts.schedule_delay).get_max_value() == pytest.approx(
        2000, rel=1e-3
    )


def test_failures_are_counted_by_kind_and_have_no_latency() -> None:
    counts = recorded(
        exchange(START + 5, START + 30, kind="timeout"),
        exchange(START + 6, START + 20, kind="http_503"),
        exchange(START + 7, START + 40, kind="timeout"),
        exchange(START - 9, START + 10, kind="connection"),
        exchange(END + 1, END + 10, kind="connection"),
    )
    assert counts.failures == {"timeout": 2, "http_503": 1}
    assert sum(counts_by_block(counts)) == counts.completed == 0
    assert counts.first_failure == f"timeout: at {START + 30}"


def test_the_first_failure_of_all_processes_is_the_earliest() -> None:
    late = recorded(exchange(START, START + 500, kind="timeout"))
    early = recorded(exchange(START, START + 400, kind="connection"))
    merged = merge_counts([recorded(), late, early])
    assert merged.first_failure == f"connection: at {START + 400}"


@pytest.mark.parametrize(
    ("seconds", "blocks"), [(0.1, 10), (2, 10), (30, 30), (30.9, 30), (119, 119), (86400, 120)]
)
def test_blocks_of_a_window(seconds: float, blocks: int) -> None:
    assert block_count(seconds) == blocks


exchanges = st.builds(
    exchange,
    scheduled=st.integers(START - 10**8, END + 10**8),
    completed=st.just(0),
    kind=st.sampled_from(["ok", "ok", "ok", "timeout", "http_503"]),
).flatmap(
    lambda one: st.integers(1, 10**9).map(
        lambda took: exchange(
            one.record.scheduled_ns,
            one.record.scheduled_ns + took,
            kind=one.record.status,
        )
    )
)


@settings(deadline=None)
@given(st.lists(st.tuples(exchanges, st.integers(0, 2)), max_size=40))
def test_processes_merge_as_if_they_were_one(dealt: list[tuple[Exchange, int]]) -> None:
    together = recorded(*(one for one, _ in dealt))
    parts = [recorded(*(one for one, owner in dealt if owner == process)) for process in range(3)]
    merged = merge_counts(parts)
    assert merged.completed == together.completed
    assert merged.failures == together.failures
    # The encoded form holds every count, and equal counts have one form.
    assert merged.histograms == together.histograms
    assert merged.schedule_delay == together.schedule_delay


@settings(deadline=None)
@given(st.integers(0, 999_999_999), st.integers(1, 3_000_000_000_000))
def test_a_latency_is_kept_to_three_digits(offset: int, latency: int) -> None:
    counts = recorded(exchange(START + offset, START + offset + latency))
    values = [HdrHistogram.decode(one) for one in counts.histograms]
    kept = max(one.get_max_value() for one in values)
    assert sum(one.get_total_count() for one in values) == 1
    assert kept == pytest.approx(latency / 1000, rel=1e-3, abs=0.5)

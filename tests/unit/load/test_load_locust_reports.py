"""One clock for all processes of a test, and no report of theirs lost without a word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import hdr
from harness.load.engine.recorder import Recorder
from harness.load.generators.attendance import Attendance
from harness.load.generators.clocks import (
    DRIFT_PER_S,
    SAME_CLOCK,
    ClockEstimate,
    ClockOffset,
    Exchange,
)
from harness.load.generators.messages import LoadProgress
from harness.types import SparseHistogram, TimeSlice
from harness_locust.judgement import (
    brief_remark,
    in_locust_words,
    is_told,
    remark_on,
    troubles_of,
    warnings_of,
)
from harness_locust.results import (
    DRAINING,
    MEASURED,
    RAMP_UP,
    SLICE_S,
    Results,
    edge_after,
    edge_before,
)

NS = 1_000_000_000
MS = 1_000_000


def offset_of(exchanges: Sequence[Exchange], *, same_machine: bool = False) -> ClockOffset:
    """The difference of two clocks right after the last of some exchanges."""
    estimate = ClockEstimate(same_machine=same_machine)
    for one in exchanges:
        estimate.add(one)
    return estimate.at(exchanges[-1].answered_ns)


def report(
    number: int,
    *,
    at_s: float = 1.0,
    interval_s: float = 1.0,
    slices: tuple[TimeSlice, ...] = (),
    final: bool = False,
    start_ns: int = 0,
) -> LoadProgress:
    at_ns = start_ns + round(at_s * NS)
    return LoadProgress(
        at_ns, at_ns, slices, 0.1, SparseHistogram(), 2**20, at_ns - round(interval_s * NS),
        number, final, "t",
    )  # fmt: skip


@given(
    offset_ns=st.integers(-(10**15), 10**15),
    ways_ns=st.lists(
        st.tuples(st.integers(0, 500 * MS), st.integers(0, 500 * MS)), min_size=1, max_size=8
    ),
)
def test_a_clock_is_known_to_within_what_is_said_however_slow_and_uneven_the_ways_are(
    offset_ns: int, ways_ns: list[tuple[int, int]]
) -> None:
    exchanges = [
        Exchange(asked, asked + there + offset_ns, asked + there + back)
        for asked, (there, back) in enumerate(ways_ns)
    ]
    found = offset_of(exchanges)
    assert abs(found.offset_ns - offset_ns) <= found.error_ns + 1
    drift_ns = DRIFT_PER_S * NS  # of a second, which none of these took
    fastest_ns = min(there + back for there, back in ways_ns)
    assert found.error_ns <= fastest_ns / 2 + len(ways_ns) + drift_ns


def test_one_machine_has_one_clock_unless_its_clock_shows_otherwise() -> None:
    slow = Exchange(100 * MS, 400 * MS, 600 * MS)
    assert offset_of([slow], same_machine=True) is SAME_CLOCK
    assert offset_of([slow]).error_ns == 250 * MS
    of_its_own = Exchange(100 * MS, 900 * MS, 101 * MS)
    assert offset_of([of_its_own], same_machine=True).offset_ns == pytest.approx(799.5 * MS)


def served(recorder: Recorder, clock_ns: int, first_s: float, last_s: float) -> None:
    """A server that takes 10 ms answers one request after another: 100 a second, exactly."""
    for at_ms in range(round(1000 * first_s), round(1000 * last_s), 10):
        due_ns = clock_ns + at_ms * MS
        recorder.add(due_ns, due_ns, due_ns + 10 * MS - 1, 1)


@pytest.mark.parametrize("late_s", [0.0, 0.5, 3.2])
@pytest.mark.parametrize("offset_ns", [0, 7 * NS, -(10**12)])
def test_a_worker_that_hears_late_or_has_another_clock_costs_no_throughput(
    late_s: float, offset_ns: int
) -> None:
    """Two workers of 100 requests/s each, of which one starts late, measured from both running."""
    start_ns = 50 * 10**12
    exchange = Exchange(start_ns - 9 * MS, start_ns - 6 * MS + offset_ns, start_ns - 3 * MS)
    there_ns = offset_of([exchange], same_machine=offset_ns == 0).there(start_ns)
    assert abs(there_ns - offset_ns - start_ns) <= 3 * MS
    recorders = [Recorder(one, int(SLICE_S * NS)) for one in (start_ns, start_ns + offset_ns)]
    results = Results("t", start_ns=start_ns)
    results.begin(MEASURED, late_s)
    opened_s = edge_after(late_s)
    results.begin(DRAINING, opened_s + 5.0)
    served(recorders[0], start_ns, 0.0, opened_s + 5.0)
    served(recorders[1], start_ns + offset_ns, late_s, opened_s + 5.0)
    for place, one in enumerate(recorders):
        told = report(0, slices=tuple(one.take()), final=True, start_ns=start_ns)
        results.add(f"worker {place}", told)
    measured = results.phases(opened_s + 6.0)[-2]
    assert (measured.name, measured.duration_s) == (MEASURED, 5.0)
    assert measured.requests_per_s == 200.0
    assert measured.total.completed == hdr.total(measured.total.ok.response) == 1000


def test_edges_of_slices_are_found_in_spite_of_rounding() -> None:
    assert (edge_after(3 * 0.1 + 0.45), edge_before(0.1 + 0.2 + 0.45)) == (0.75, 0.75)
    assert (edge_after(0.26), edge_before(0.49), edge_after(0.0)) == (0.5, 0.25, 0.0)


@given(order=st.permutations(range(6)), last=st.integers(0, 5))
def test_every_report_is_counted_once_in_whatever_order_they_come(
    order: list[int], last: int
) -> None:
    kept = Attendance("t")
    taken = [number for number in [*order, *order] if kept.take("w", report(number))]
    assert sorted(taken) == list(range(6))
    assert (kept.missing("w"), kept.ended("w")) == (0, False)
    one_lost = Attendance("t")
    for number in [*range(last), 6]:
        one_lost.take("w", report(number, final=number == 6))
    assert (one_lost.missing("w"), one_lost.ended("w")) == (6 - last, True)
    assert (one_lost.missing("nobody"), one_lost.ended("nobody")) == (0, False)


def test_reports_that_did_not_arrive_are_named_with_their_number() -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    for number in (0, 1, 4, 5):
        results.add("worker 0", report(number, at_s=1.0 + number))
    (said,) = troubles_of(results, 6.0)
    assert said.startswith("2 of 6 reports of worker 0 did not arrive")
    assert said in warnings_of(results, 6.0)
    assert remark_on(results.worker("worker 0"), results, 6.0) == said
    results.add("worker 0", report(2, at_s=3.0))
    results.add("worker 0", report(3, at_s=4.0))
    assert troubles_of(results, 6.0) == []


@pytest.mark.parametrize(
    ("at_s", "interval_s", "stood_still_s"),
    [
        (8.0, 5.5, 4.5),  # stopped in the middle of what is measured
        (12.0, 5.5, 2.5),  # from 7.5 s on, of which 2.5 s were measured
        (15.0, 4.5, 0.0),  # while it drained
        (8.0, 1.9, 0.0),  # a busy machine
    ],
)
def test_a_process_that_stood_still_is_named_with_how_long(
    at_s: float, interval_s: float, stood_still_s: float
) -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    results.begin(DRAINING, 10.0)
    results.add("worker 0", report(0, at_s=at_s, interval_s=interval_s))
    assert results.worker("worker 0").stood_still_s == pytest.approx(stood_still_s)
    words = f"worker 0 stood still for {stood_still_s:.1f} s: its share of the load was missing"
    said = troubles_of(results, 20.0)
    assert [one.removesuffix(" for so long") for one in said] == [words] * bool(stood_still_s)


def test_a_clock_that_is_known_badly_is_said_and_spoils_nothing() -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    results.add("worker 0", report(0))
    results.worker("worker 0").clock_error_s = 0.12
    assert troubles_of(results, 2.0) == []
    assert "is known to within 120 ms only" in warnings_of(results, 2.0)[0]


def test_counting_anew_keeps_the_phases_that_are_to_come_and_what_is_known_of_workers() -> None:
    results = Results("t", start_ns=5)
    results.begin(MEASURED, 1.0)
    results.begin(DRAINING, 10.0)
    results.add("worker 0", report(0))
    results.worker("worker 0").lost = True
    fresh = results.continued(4.1)
    shape = [(one.name, one.start_s, one.duration_s) for one in fresh.phases(12.0)]
    assert shape == [(RAMP_UP, 0.0, 4.5), (MEASURED, 4.5, 5.5), (DRAINING, 10.0, 2.0)]
    fresh.add("worker 0", report(1, at_s=5.0))
    assert (fresh.attendance.missing("worker 0"), fresh.start_ns) == (0, 5)
    assert fresh.worker("worker 0").lost
    ramping = Results("t").continued(0.5)
    assert ramping.phase_at(9.0) == RAMP_UP


def test_a_fact_that_the_verdict_tells_is_not_told_beside_it() -> None:
    late = "worker 0 woke late (p99 of its event loop's lag 16.4 ms, 10.0 ms are tolerated): add"
    lost = "worker 1 was lost 7 s into the test: what it had reported by then is counted"
    of_the_busiest = "the load generator woke late (p99 of its event loop's lag 16.0 ms; ...)"
    assert is_told(late, f"{lost}; {of_the_busiest}")
    assert is_told(lost, f"{lost}; {of_the_busiest}")
    assert not is_told(late, lost)
    assert not is_told(lost, of_the_busiest)


def test_a_remark_on_a_process_is_short_where_the_whole_stands_elsewhere() -> None:
    results = Results("t")
    results.begin(MEASURED, 0.0)
    results.add("worker 0", report(0))
    assert brief_remark(results.worker("worker 0"), results, 2.0) == "ok"
    results.worker("worker 0").lost = True
    assert brief_remark(results.worker("worker 0"), results, 2.0) == "was lost 1 s into the test"


def test_remedies_name_what_locust_has() -> None:
    said = in_locust_words("latency fell for another 4.2 s): raise warmup_s to 9.5 or more")
    assert (
        said == "latency fell for another 4.2 s): run a short test before this one, to warm it up"
    )

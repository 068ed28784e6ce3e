"""What the parent makes of several processes' reports: sums, and only of what has ended."""

from __future__ import annotations

from harness import hdr
from harness.load.generators.driver import Collector
from harness.load.generators.messages import LoadProgress
from harness.types import RESPONSE, Latencies, SparseHistogram, TimeSlice

START, SLICE = 1_000_000_000, 50_000_000
NOTHING = SparseHistogram()


def seen(index: int, bucket: int, count: int = 1) -> TimeSlice:
    return TimeSlice(
        index, ok=Latencies({RESPONSE: SparseHistogram((bucket,), (count,))}), completed=1
    )


def report(
    at_slice: float,
    *slices: TimeSlice,
    complete: float | None = None,
    cpu_s: float = 0.0,
    lag: SparseHistogram = NOTHING,
    number: int = 0,
    since: float | None = None,
) -> LoadProgress:
    at_ns = START + int(at_slice * SLICE)
    complete_ns = at_ns if complete is None else START + int(complete * SLICE)
    since_ns = at_ns - SLICE if since is None else START + int(since * SLICE)
    return LoadProgress(
        at_ns, complete_ns, slices, cpu_s, lag, 77, since_ns=since_ns, number=number
    )


def test_slices_of_several_reports_and_processes_add_up() -> None:
    collector = Collector({0: "load generator 0", 1: "load generator 1"}, START, SLICE)
    collector.add(0, report(2, seen(0, 10), seen(1, 10)))
    collector.add(1, report(2, seen(1, 11)))
    collector.add(0, report(3, seen(1, 10, 4), number=1))
    collector.add(0, report(3, seen(1, 10, 4), number=1))  # it comes twice, and counts once
    _, second = collector.until(2)
    assert second.ok.response == SparseHistogram((10, 11), (5, 1))
    assert second.completed == 3


def test_a_slice_is_complete_when_every_process_says_so() -> None:
    collector = Collector({0: "load generator 0", 1: "load generator 1"}, START, SLICE)
    assert collector.complete() == []
    collector.add(0, report(4, seen(0, 1), seen(3, 1)))
    assert collector.complete() == []
    collector.add(1, report(4, complete=2.9))
    assert [one.index for one in collector.complete()] == [0, 1]
    collector.add(1, report(4.2, number=1))
    assert [one.index for one in collector.complete()] == [0, 1, 2, 3]


def test_a_request_that_is_long_in_flight_holds_its_slice_back() -> None:
    collector = Collector({0: "load generator 0"}, START, SLICE)
    for at in range(1, 40):
        collector.add(0, report(at, seen(at - 1, 1), complete=min(at, 5.5), number=at - 1))
    assert len(collector.complete()) == 5


def test_a_process_is_judged_by_what_it_did_in_the_window_alone() -> None:
    collector = Collector({0: "load generator 0"}, START, SLICE)
    early, inside, late = (SparseHistogram((bucket,), (1,)) for bucket in (1, 2, 3))
    seen_so = ((10, 5.0, early), (20, 0.4, inside), (30, 0.1, inside), (40, 3.5, late))
    for number, (at, cpu_s, lag) in enumerate(seen_so):
        collector.add(0, report(at, cpu_s=cpu_s, lag=lag, number=number))
    (health,) = collector.health(START + 10 * SLICE, START + 30 * SLICE)
    assert health.cpu_cores == 0.5
    assert hdr.total(health.loop_lag) == 2
    assert health.loop_lag.buckets == (2,)
    assert health.memory_bytes == 77


def test_a_report_that_lacks_is_told_by_the_name_of_its_process() -> None:
    collector = Collector({0: "load generator 0", 1: "load generator 1"}, START, SLICE)
    collector.add(0, report(2, seen(0, 10)))
    assert collector.troubles() == []
    collector.add(1, report(4, number=2))
    (said,) = collector.troubles()
    assert said.startswith("2 of 3 reports of load generator 1 did not arrive")
    collector.add(1, report(2, number=0))
    collector.add(1, report(3, number=1))
    assert collector.troubles() == []
    assert len(collector.complete()) == 2


def test_a_process_that_stood_still_in_the_window_is_named() -> None:
    """Between two reports it was stopped, or starved; outside the window it may be."""
    collector = Collector({0: "worker 0 on host-a", 1: "worker 1 on host-b"}, START, SLICE)
    edges = (START + 20 * SLICE, START + 220 * SLICE)
    for number in range(12):
        at, since = 20.0 * (number + 1), 20.0 * number
        collector.add(0, report(at, number=number, since=since))
    assert list(collector.standstills(*edges)) == []
    for number, at in enumerate((60.0, 62.0, 122.0, 220.0, 300.0)):
        since = (0.0, 60.0, 62.0, 218.0, 220.0)[number]
        collector.add(1, report(at, number=number, since=since))
    (said,) = collector.standstills(*edges)
    # 2 s of the first, from the window's start on, and of the third 3 s but for the tenth in which
    # no report was due.
    assert said.startswith("worker 1 on host-b stood still for 4.9 s")

"""That no request is lost, counted twice or put into the wrong slice, however the load is split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from harness import hdr
from harness.load.engine import recorder as recorder_module
from harness.load.engine.batches import RecordedBatch
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import SliceSums, dense, merged_latencies
from harness.load.transports.contract import RequestFailure
from harness.types import RESPONSE, SCHEDULE_DELAY, SERVICE, Latencies, SparseHistogram, TimeSlice

START_NS, SLICE_NS = 7_000_000_000, 50_000_000
MS = 1_000_000


@dataclass(frozen=True)
class Seen:
    """One request as a load generator sees it; `kind` is empty for a success."""

    scheduled_ns: int
    delay_ns: int = 0
    service_ns: int = 0
    rows: int = 1
    kind: str = ""
    dropped: bool = False

    @property
    def sent_ns(self) -> int:
        return self.scheduled_ns + self.delay_ns

    @property
    def completed_ns(self) -> int:
        return self.sent_ns + self.service_ns

    def tell(self, recorder: Recorder) -> None:
        moments = (self.scheduled_ns, self.sent_ns, self.completed_ns)
        if self.dropped:
            recorder.drop(self.scheduled_ns)
        elif self.kind:
            recorder.fail(*moments, RequestFailure(self.kind, f"at {self.completed_ns}"))
        else:
            recorder.add(*moments, self.rows)


requests = st.builds(
    Seen,
    scheduled_ns=st.integers(START_NS, START_NS + 4 * SLICE_NS),
    delay_ns=st.integers(0, 3 * SLICE_NS),
    service_ns=st.one_of(st.integers(0, 10 * MS), st.integers(0, 10_000_000_000)),
    rows=st.integers(1, 16),
    kind=st.sampled_from(["", "", "timeout", "http_503"]),
    dropped=st.sampled_from([False, False, False, True]),
)


def taken(seen: list[Seen]) -> list[TimeSlice]:
    recorder = Recorder(START_NS, SLICE_NS)
    for one in seen:
        one.tell(recorder)
    return recorder.take()


def counted(seen: list[Seen]) -> dict[int, TimeSlice]:
    """The same, one request at a time."""
    slices: dict[int, TimeSlice] = {}
    indices = {(one.scheduled_ns - START_NS) // SLICE_NS for one in seen}
    answered = [one for one in seen if not one.kind and not one.dropped]
    ended = Counter((one.completed_ns - START_NS) // SLICE_NS for one in answered)
    rows: Counter[int] = Counter()
    for one in answered:
        rows[(one.completed_ns - START_NS) // SLICE_NS] += one.rows
    for index in indices | set(ended):
        here = [one for one in seen if (one.scheduled_ns - START_NS) // SLICE_NS == index]
        sent = [one for one in here if not one.dropped]
        slices[index] = TimeSlice(
            index,
            ok=latencies([one for one in sent if not one.kind]),
            failed=latencies([one for one in sent if one.kind]),
            failures=dict(Counter(one.kind for one in sent if one.kind)),
            dropped=len(here) - len(sent),
            completed=ended[index],
            inferences=rows[index],
        )
    return slices


def latencies(seen: list[Seen]) -> Latencies:
    if not seen:
        return Latencies()
    return Latencies(
        {
            SCHEDULE_DELAY: histogram([one.delay_ns for one in seen]),
            SERVICE: histogram([one.service_ns for one in seen]),
            RESPONSE: histogram([one.delay_ns + one.service_ns for one in seen]),
        }
    )


def histogram(spans_ns: list[int]) -> SparseHistogram:
    counts = Counter(int(hdr.bucket_of(np.array([(one + 500) // 1000]))[0]) for one in spans_ns)
    return SparseHistogram(tuple(sorted(counts)), tuple(counts[at] for at in sorted(counts)))


def added_up(*parts: list[TimeSlice]) -> list[TimeSlice]:
    return list(SliceSums(chain.from_iterable(parts)))


@given(st.lists(requests, max_size=15))
def test_a_slice_holds_what_counting_one_by_one_gives(seen: list[Seen]) -> None:
    slices = taken(seen)
    assert {one.index: one for one in slices} == counted(seen)
    assert [one.index for one in slices] == sorted(one.index for one in slices)


@given(st.lists(st.tuples(requests, st.integers(0, 2), st.booleans()), max_size=40), st.randoms())
def test_any_split_into_processes_and_takes_adds_up_to_one_recorder(seen, random) -> None:
    recorders = [Recorder(START_NS, SLICE_NS) for _ in range(3)]
    parts = []
    for one, process, take in seen:
        one.tell(recorders[process])
        if take:
            parts.append(recorders[process].take())
    parts += [recorder.take() for recorder in recorders]
    assert not any(recorder.take() for recorder in recorders)
    whole = taken([one for one, _, _ in seen])
    assert added_up(*random.sample(parts, len(parts))) == whole
    assert added_up(added_up(*parts[:2]), added_up(*parts[2:])) == whole


@given(st.lists(requests, max_size=30))
def test_the_bound_of_what_is_held_changes_nothing(seen: list[Seen]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder_module, "MOST_HELD", 3)
        batches: list[RecordedBatch] = []
        recorder = Recorder(START_NS, SLICE_NS, listeners=[batches.append])
        for one in seen:
            one.tell(recorder)
        held = recorder.take()
    assert held == taken(seen)
    assert all(len(one.rows) <= 3 for one in batches)
    assert sum(len(one.rows) + len(one.failures) + len(one.dropped_ns) for one in batches) == (
        len(seen)
    )


def test_a_request_counts_where_it_was_scheduled_and_its_end_where_it_ended() -> None:
    first, last = taken([Seen(START_NS, MS, 3 * SLICE_NS, rows=4)])
    assert (first.index, last.index) == (0, 3)
    assert (hdr.total(first.ok.response), first.completed, first.inferences) == (1, 0, 0)
    assert (hdr.total(last.ok.response), last.completed, last.inferences) == (0, 1, 4)
    delay, service, response = (
        hdr.value_at(first.ok.of(span), 0.5) for span in (SCHEDULE_DELAY, SERVICE, RESPONSE)
    )
    assert (delay, service, response) == pytest.approx((1, 150, 151), rel=1e-3)


def test_what_precedes_the_start_counts_in_the_first_slice() -> None:
    (only,) = taken([Seen(START_NS - SLICE_NS, 0, MS), Seen(START_NS - 1, dropped=True)])
    assert (only.index, hdr.total(only.ok.response), only.completed, only.dropped) == (0, 1, 1, 1)


def test_the_first_failure_keeps_its_own_words() -> None:
    recorder = Recorder(START_NS, SLICE_NS)
    for at in (5, 9):
        Seen(START_NS, 0, at, kind="timeout").tell(recorder)
        recorder.take()
    assert recorder.first_failure == f"timeout: at {START_NS + 5}"
    assert recorder.first_failure_ns == START_NS + 5


def test_listeners_get_every_request_once_as_it_was() -> None:
    batches: list[RecordedBatch] = []
    recorder = Recorder(START_NS, SLICE_NS, listeners=[batches.append])
    Seen(START_NS, 1, 2, rows=8).tell(recorder)
    Seen(START_NS, 3, 4, kind="timeout").tell(recorder)
    Seen(START_NS, dropped=True).tell(recorder)
    recorder.take()
    recorder.take()
    (batch,) = batches
    assert (batch.scheduled_ns - START_NS, batch.sent_ns - START_NS) == ([0], [1])
    assert (batch.completed_ns - START_NS, batch.rows) == ([3], [8])
    assert [one.moments_ns for one in batch.failures] == [(START_NS, START_NS + 3, START_NS + 7)]
    assert batch.dropped_ns.tolist() == [START_NS]


def test_a_listener_that_lets_others_record_loses_nothing() -> None:
    late = [Seen(START_NS, 0, 5 * MS)]
    recorder = Recorder(
        START_NS, SLICE_NS, listeners=[lambda _: late and late.pop().tell(recorder)]
    )
    Seen(START_NS, 0, MS).tell(recorder)
    both = added_up(recorder.take(), recorder.take())
    assert both == taken([Seen(START_NS, 0, MS), Seen(START_NS, 0, 5 * MS)])


@given(st.lists(requests, max_size=15))
def test_slices_go_over_the_wire_unchanged(seen: list[Seen]) -> None:
    wire = TypeAdapter(list[TimeSlice])
    assert wire.validate_json(wire.dump_json(taken(seen))) == taken(seen)


def test_gaps_are_filled_and_nothing_is_cut() -> None:
    seen = taken([Seen(START_NS + 2 * SLICE_NS, 0, MS)])
    assert dense(seen, 4) == [TimeSlice(0), TimeSlice(1), *seen, TimeSlice(3)]
    assert dense(seen, 1) == [TimeSlice(0), TimeSlice(1), *seen]
    assert dense([], 0) == []


def test_latencies_of_many_slices_add_up() -> None:
    seen = [Seen(START_NS + at * SLICE_NS, 0, at * MS) for at in range(5)]
    merged = merged_latencies(one.ok for one in taken(seen))
    assert merged.response == histogram([one.service_ns for one in seen])
    assert hdr.total(merged.of(SCHEDULE_DELAY)) == 5

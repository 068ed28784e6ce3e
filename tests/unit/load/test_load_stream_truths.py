"""What other clients of streams have on record as wrong, each with its right value.

In made-up time: the server is a function, its answers are TokenStreams, and nobody waits.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from harness import hdr
from harness.load.engine.closed_loop import FOREVER_NS, ClosedLoop, Ending
from harness.load.engine.open_loop import OpenLoop, requests_in_turn
from harness.load.engine.recorder import Recorder
from harness.load.engine.slices import merged_latencies
from harness.load.engine.streams import StreamSink
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.contract import ClientLeft, WireAnswer
from harness.load.transports.streams.http import STREAMED
from harness.load.transports.streams.tokens import NOTHING_CAME, StreamRequest, TokenStream
from harness.types import SparseHistogram, TimeSlice
from tests.virtual_time import VirtualClock, VirtualTimer

MS = 1_000_000


@dataclass
class OneSlotServer:
    """Answers one request at a time, in the order in which they came: the others wait.

    Each answer takes `ttft_ms` to its first token and `gap_ms` from there to each of the others.
    """

    clock: VirtualClock
    ttft_ms: int = 500
    gap_ms: int = 0
    tokens: int = 1
    free_ns: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> OneSlotTransport:
        return OneSlotTransport(self)


class OneSlotTransport:
    """A `StreamTransport` to it."""

    def __init__(self, server: OneSlotServer) -> None:
        self._server = server
        self.received_ns = 0
        self.identity = b""
        self.stream = NOTHING_CAME

    def connect(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing stays open."""

    def send(self, request: bytes) -> WireAnswer:
        server, clock = self._server, self._server.clock
        leave = request.leave_after if isinstance(request, StreamRequest) else 0
        with server.lock:
            begun_ns = max(clock.now_ns(), server.free_ns)
            whole_ns = (server.ttft_ms + server.gap_ms * (server.tokens - 1)) * MS
            server.free_ns = begun_ns + whole_ns
        stream = self.stream = TokenStream(3)
        for number in range(leave or server.tokens):
            stream.add(begun_ns + (server.ttft_ms + server.gap_ms * number) * MS, 1, b"w")
        clock.let_come(stream.times_ns[-1])
        self.received_ns = stream.times_ns[-1]
        if leave:
            raise ClientLeft(leave)
        return STREAMED


def requests(leave_after: int = 0) -> list[EncodedRequest]:
    request = StreamRequest(b"say")
    request.leave_after = leave_after
    return [EncodedRequest(request, 1, frozenset(), STREAMED.layout)]


def driven(offsets_ms: list[int], *, most_in_flight: int, **server: int) -> list[TimeSlice]:
    """The slices of an open loop whose arrivals fall due at these instants."""
    timer = VirtualTimer()
    one_slot = OneSlotServer(timer.clock, **server)
    recorder = Recorder(0, 50 * MS)
    loop = OpenLoop(
        [np.array(offsets_ms, dtype=np.int64) * MS],
        requests_in_turn(requests()),
        AnswerCheck(),
        recorder,
        open_transport=one_slot.open,
        most_in_flight=most_in_flight,
        timer=timer,
    )
    loop.sink_of = lambda transport: StreamSink(recorder, transport)
    timer.loop = loop
    running = threading.Thread(target=lambda: loop.run(0, Ending()))
    running.start()
    while running.is_alive():
        running.join(0.01)
        if loop.next_ns == FOREVER_NS:  # nobody but their slots waits for the last answers
            wake_next(timer)
    return recorder.take()


def wake_next(timer: VirtualTimer) -> None:
    """Move time on to the next instant that a slot waits for."""
    waiting = timer.clock.waiting
    if waiting:
        first = min(waiting, key=lambda one: one[0])
        waiting.remove(first)
        timer.clock.at_ns = max(timer.clock.at_ns, first[0])
        first[1].set()


def of(slices: list[TimeSlice], span: str) -> SparseHistogram:
    return merged_latencies(one.ok for one in slices).of(span)


def test_waiting_for_the_only_slot_counts() -> None:
    """500 ms of service at 10/s, one slot, 8 requests: a peer reports 506 ms, the truth is 1.9 s.

    Request n falls due at 100 n ms, and its turn comes at 500 n ms: it takes 500 + 400 n ms.
    """
    slices = driven([100 * n for n in range(8)], most_in_flight=8)
    assert hdr.total(of(slices, "response")) == 8
    assert hdr.mean_ms(of(slices, "response")) == pytest.approx(1_900, rel=1e-3)
    assert hdr.mean_ms(of(slices, "ttft")) == pytest.approx(1_900, rel=1e-3)
    assert hdr.value_at(of(slices, "ttft"), 1.0) == pytest.approx(3_300, rel=1e-3)


def test_where_the_client_has_but_one_slot_what_falls_due_meanwhile_is_counted_as_dropped() -> None:
    """Never sent late in silence: of 8 requests, those at 0 and 500 ms find the slot free."""
    slices = driven([100 * n + n // 5 for n in range(8)], most_in_flight=1)
    assert hdr.total(of(slices, "response")) == 2
    assert hdr.mean_ms(of(slices, "ttft")) == pytest.approx(500, rel=1e-3)
    assert sum(one.dropped for one in slices) == 6


def closed(until_ms: int, leave_after: int = 0, **server: int) -> list[TimeSlice]:
    clock = VirtualClock()
    transport = OneSlotServer(clock, **server).open()
    recorder = Recorder(0, 50 * MS)
    sink = StreamSink(recorder, transport)
    loop = ClosedLoop(transport, requests(leave_after), AnswerCheck(), sink, clock=clock)
    loop.run(Ending(until_ms * MS))
    return recorder.take()


def test_a_hundred_tokens_over_a_second_are_a_hundred_a_second() -> None:
    """A peer that read them in one gulp reported four million a second."""
    slices = closed(1, ttft_ms=10, gap_ms=10, tokens=100)
    assert hdr.mean_ms(of(slices, "tpot")) == pytest.approx(10, rel=1e-3)
    assert hdr.value_at(of(slices, "itl"), 0.01) == pytest.approx(10, rel=1e-3)
    assert hdr.total(of(slices, "itl")) == 99
    by_slice = [one.streams.output_tokens for one in slices]
    assert sum(by_slice) == 100
    assert max(by_slice) == 5, "each slice of 50 ms saw five of them"


def test_a_client_that_leaves_does_not_rest_and_the_next_request_is_on_time() -> None:
    slices = closed(600, leave_after=2, ttft_ms=10, gap_ms=5, tokens=100)
    assert sum(one.streams.left for one in slices) == 3
    assert not any(one.failures for one in slices)
    failed = merged_latencies(one.failed for one in slices)
    assert hdr.value_at(failed.of("schedule_delay"), 1.0) == pytest.approx(0, abs=1e-3)

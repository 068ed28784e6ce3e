"""Closed loop: a slot holds one request in flight and sends the next when it completes.

Also one request after another from the calling thread, without Locust: what a cold start is
measured with, where the first requests are the point and not the rate.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from harness.load.engine.clock import MONOTONIC, Clock
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.contract import RequestFailure, Transport
from harness.types import RequestRecord


def drive_alone(
    transport: Transport,
    requests: Sequence[EncodedRequest],
    check: AnswerCheck,
    *,
    most: int,
    longest_s: float,
) -> list[RequestRecord]:
    """Send requests in turn, the next when one is answered; connects with the first.

    Args:
        transport: not connected yet.
        requests: walked through from the first, again and again.
        check: what an answer must be.
        most: requests to send.
        longest_s: after which no further one is sent.

    Raises:
        RequestFailure: a request failed.
    """
    records: list[RequestRecord] = []
    until_ns = time.monotonic_ns() + int(longest_s * 1e9)
    while len(records) < most and (sent_ns := time.monotonic_ns()) < until_ns:
        request = requests[len(records) % len(requests)]
        answer = transport.send(request.body)
        completed_ns = time.monotonic_ns()
        check.check(answer, request)
        records.append(RequestRecord(sent_ns, sent_ns, completed_ns, "ok"))
    return records


BACKOFF_S = 0.02
"""Pause after a failure: a dead server refuses in microseconds, and nobody gains from asking
it fifty thousand times per second."""
MOST_IN_A_ROW = 16
"""Requests of one slot without another's in between. On a busy machine the kernel often runs the
server right in `send`, and the answer is there before anybody had to wait for it: a slot that never
waits never lets the others run."""
FOREVER_NS = 1 << 63
LONGEST_SLEEP_S = 0.2
"""How soon who thinks between two turns notices that the ending was moved."""
NEAR_NS = 500_000
"""Before an instant: a sleep may be longer by that, so that it is let come."""


class RequestSink(Protocol):
    """Where a slot's requests are recorded; `harness.load.engine.recorder.Recorder` is one."""

    def add(
        self, scheduled_ns: int, sent_ns: int, completed_ns: int, rows: int, identity: bytes
    ) -> None:
        """A request that was answered as it should be, and the id that it bore."""

    def fail(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        failure: RequestFailure,
        identity: bytes,
    ) -> None:
        """A request that was not."""

    def drop(self, scheduled_ns: int) -> None:
        """A request that fell due and was never sent."""


class Ending:
    """The instant from which nothing is scheduled; shared by all slots, and may be moved."""

    __slots__ = ("at_ns",)

    def __init__(self, at_ns: int = FOREVER_NS) -> None:
        self.at_ns = at_ns


def think(clock: Clock, until_ns: int, ending: Ending) -> None:
    """Let others run until a turn of a conversation falls due, or the load ends."""
    while (left_ns := min(until_ns, ending.at_ns) - clock.now_ns()) > NEAR_NS:
        clock.sleep(min(LONGEST_SLEEP_S, (left_ns - NEAR_NS) / 1e9))
    if until_ns < ending.at_ns:
        clock.let_come(until_ns)


class Turns:
    """Whose turn it was last; shared by the slots of one event loop, so that none keeps it all."""

    __slots__ = ("give_way", "latest")

    def __init__(self) -> None:
        self.give_way: Callable[[], object] = lambda: None
        """Lets the other slots read the answers that have come; the event loop's process sets it.
        With a thread a slot there is nothing to do."""
        self.latest: object = None


class ClosedLoop:
    """One slot, walking through the requests from its own place on, or with others in turn.

    Args:
        transport: this slot's own.
        requests: shared by all slots.
        check: what an answer must be.
        sink: records every request.
        first: index of the first request; slots start apart so that the server sees all lengths.
        turns: shared by the slots of one event loop.
        clock: for tests.
    """

    def __init__(
        self,
        transport: Transport,
        requests: Sequence[EncodedRequest],
        check: AnswerCheck,
        sink: RequestSink,
        *,
        first: int = 0,
        turns: Turns | None = None,
        clock: Clock = MONOTONIC,
    ) -> None:
        self._transport = transport
        first %= len(requests)
        walk: Iterator[EncodedRequest] = itertools.cycle([*requests[first:], *requests[:first]])
        self._converses = any(one.follow is not None for one in requests)
        self.join(walk)
        self._check = check
        self._sink = sink
        self._turns = turns or Turns()
        self._clock = clock
        self._ending = Ending()
        self._due_ns = 0
        """When the next request falls due, where it is a turn of a conversation."""
        self._went_well = True
        self.scheduled_ns = 0
        """When the request in flight was scheduled (CLOCK_MONOTONIC); 0 between requests."""

    def join(self, walk: Iterator[EncodedRequest]) -> None:
        """Take requests of this walk, which other slots may share: each gets the next one."""
        self._requests = self._turn_by_turn(walk) if self._converses else walk

    def _turn_by_turn(self, walk: Iterator[EncodedRequest]) -> Iterator[EncodedRequest]:
        """Every conversation to its end, or to a turn that failed: the next needs its answer."""
        for opening in walk:
            request = opening
            yield request
            while self._went_well and request.follow is not None:
                request, think_s = request.follow(self._transport)
                self._due_ns = self._transport.received_ns + int(think_s * 1e9)
                think(self._clock, self._due_ns, self._ending)
                yield request
            self._went_well = True

    def run(self, ending: Ending) -> None:
        """Send one request after another until the ending.

        This loop is what a load generator does: everything in it is paid for by each request.
        """
        transport = self._transport
        send, check = transport.send, self._check.check
        add, now_ns = self._sink.add, self._clock.now_ns
        turns, give_way = self._turns, self._turns.give_way
        self._ending = ending
        free_ns, in_a_row = now_ns(), 0
        for request in self._requests:
            free_ns = max(free_ns, self._due_ns)
            if free_ns >= ending.at_ns:
                break
            if turns.latest is not self:
                turns.latest, in_a_row = self, 0
            elif in_a_row >= MOST_IN_A_ROW:
                give_way()
                in_a_row = 0
            in_a_row += 1
            self.scheduled_ns = free_ns
            sent_ns = now_ns()
            completed_ns = 0
            try:
                answer = send(request.body)
                completed_ns = transport.received_ns
                if answer.layout is not request.layout or request.known is not None:
                    check(answer, request)
            except RequestFailure as failure:
                ended_ns = completed_ns or now_ns()
                self._sink.fail(free_ns, sent_ns, ended_ns, failure, transport.identity)
                self.scheduled_ns, self._went_well = 0, False
                if failure.pauses:
                    self._clock.sleep(BACKOFF_S)
                free_ns = now_ns()
            else:
                add(free_ns, sent_ns, completed_ns, request.batch_size, transport.identity)
                free_ns = now_ns()
        self.scheduled_ns = 0

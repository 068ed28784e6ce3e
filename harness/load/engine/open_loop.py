"""Open loop: requests are sent when they fall due, whatever the server does.

One dispatcher walks the arrivals and hands each to a slot: a connection with its own thread (a
greenlet in a Locust process). A slot that was just in use is taken first, so that there are only as
many connections as the load needs. Where as many requests are in flight as may be, a request that
falls due is dropped, and counted: it is never sent late, because a queue in the client would hide
how slow the server is. The latency that counts runs from the scheduled time.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from harness.load.engine.clock import MONOTONIC, Clock
from harness.load.engine.closed_loop import FOREVER_NS, Ending, RequestSink, think
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import EncodedRequest
from harness.load.transports.contract import RequestFailure, Transport

LONGEST_SLEEP_NS = 50_000_000
"""How soon the dispatcher notices that the ending was moved."""


def requests_in_turn(
    requests: Sequence[EncodedRequest], worker: int = 0, workers: int = 1
) -> Iterator[EncodedRequest]:
    """The requests that go with one worker's share of the arrivals, for ever.

    The n-th arrival of the whole load has the n-th request, by whichever process it is sent.
    """
    return itertools.islice(itertools.cycle(requests), worker, None, workers)


class Slot:
    """One connection, which sends what it is handed and then waits for more.

    Args:
        transport: this slot's own.
        check: what an answer must be.
        sink: records every request.
        idle: where the slot puts itself when it is free.
        clock: the load's.
        ending: of the load: no turn of a conversation falls due from then on.
    """

    __slots__ = (
        "_check",
        "_clock",
        "_ending",
        "_idle",
        "_inbox",
        "_sink",
        "_transport",
        "scheduled_ns",
    )

    def __init__(
        self,
        transport: Transport,
        check: AnswerCheck,
        sink: RequestSink,
        idle: list[Slot],
        clock: Clock,
        ending: Callable[[], Ending],
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._ending = ending
        self._check = check
        self._sink = sink
        self._idle = idle
        self._inbox: SimpleQueue[EncodedRequest | None] = SimpleQueue()
        self.scheduled_ns = 0
        """When the request in flight was scheduled (CLOCK_MONOTONIC); 0 where there is none."""

    def hand(self, scheduled_ns: int, request: EncodedRequest) -> None:
        """Give it a request that falls due now or in a moment; only to a slot that is idle."""
        self.scheduled_ns = scheduled_ns
        self._inbox.put(request)

    def dismiss(self) -> None:
        """Let it leave when it is idle."""
        self._inbox.put(None)

    def serve(self) -> None:
        """Send until dismissed; then hang up."""
        try:
            while (request := self._inbox.get()) is not None:
                self._converse(request)
                # In this order: recorded, then no longer in flight, then open for the next.
                self.scheduled_ns = 0
                self._idle.append(self)
        finally:
            self.scheduled_ns = 0
            self._transport.close()

    def _converse(self, request: EncodedRequest) -> None:
        """A request, and all turns that follow it; a turn that fails is the last."""
        while self._exchange(request) and request.follow is not None:
            request, think_s = request.follow(self._transport)
            due_ns = self._transport.received_ns + int(think_s * 1e9)
            ending = self._ending()
            if due_ns >= ending.at_ns:
                return
            self.scheduled_ns = due_ns
            think(self._clock, due_ns, ending)
            if due_ns >= ending.at_ns:  # it was moved
                return

    def _exchange(self, request: EncodedRequest) -> bool:
        """Send a request at its time and wait for the answer; whether there was one."""
        now_ns = self._clock.now_ns
        if self.scheduled_ns > now_ns():
            with suppress(RequestFailure):  # the request will meet it too, and count it
                self._transport.connect()
            self._clock.let_come(self.scheduled_ns)
        sent_ns, completed_ns = now_ns(), 0
        try:
            answer = self._transport.send(request.body)
            completed_ns = self._transport.received_ns
            if answer.layout is not request.layout or request.known is not None:
                self._check.check(answer, request)
        except RequestFailure as failure:
            # No pause, unlike in a closed loop: the schedule says when the next request goes.
            ended_ns, identity = completed_ns or now_ns(), self._transport.identity
            self._sink.fail(self.scheduled_ns, sent_ns, ended_ns, failure, identity)
            return False
        moments_ns = self.scheduled_ns, sent_ns, completed_ns
        self._sink.add(*moments_ns, request.batch_size, self._transport.identity)
        return True


class OpenLoop:
    """Dispatches one load, or one worker's share of it; for a single `run`.

    Args:
        arrivals: chunks of ascending nanoseconds from the load's start.
        requests: what to send, one an arrival, dropped ones included.
        check: what an answer must be.
        sink: records every request; in a process with threads it is called by all of them.
        open_transport: makes a slot's connection.
        most_in_flight: the bound beyond which requests are dropped.
        timer: wakes the dispatcher, and has the load's clock; stays the caller's.
    """

    def __init__(
        self,
        arrivals: Iterable[NDArray[np.int64]],
        requests: Iterator[EncodedRequest],
        check: AnswerCheck,
        sink: RequestSink,
        *,
        open_transport: Callable[[], Transport],
        most_in_flight: int,
        timer: Timer,
    ) -> None:
        self.sink_of: Callable[[Transport], RequestSink] = lambda _: sink
        """What a slot records its requests in, given its transport; may be set before `run`."""
        self._arrivals = arrivals
        self._requests = requests
        self._check = check
        self._sink = sink
        self._open_transport = open_transport
        self._most_in_flight = most_in_flight
        self._timer = timer
        self._clock = timer.clock
        self._slots: list[Slot] = []
        self._idle: list[Slot] = []
        self._threads: list[threading.Thread] = []
        self._next_ns = 0
        """The first arrival that was not dispatched yet; 0 before the load."""
        self._due_ns = 0
        """What falls due by then goes out: the clock at the dispatcher's last waking, or a moment
        later, which the slots let come."""
        self._problem: Exception | None = None
        self._ending = Ending()

    @property
    def settled_before_ns(self) -> int:
        """Everything scheduled before this instant is recorded, and nothing more will be."""
        # The arrival first: it is moved on only after a slot has the one before in flight.
        next_ns = self._next_ns
        return min([next_ns, *(one for slot in self._slots if (one := slot.scheduled_ns))])

    @property
    def next_ns(self) -> int:
        """When the next arrival falls due that was not dispatched yet; 0 before the load."""
        return self._next_ns

    def connect(self, count: int) -> None:
        """Open connections before the load, so that its first requests do not wait for them.

        Raises:
            RequestFailure: the server cannot be reached. The load can be run nevertheless: its
                requests try again, and are counted.
        """
        for _ in range(min(count, self._most_in_flight) - len(self._slots)):
            transport = self._open_transport()
            self._idle.append(self._open_slot(transport))
            transport.connect()

    def run(self, start_ns: int, ending: Ending) -> None:
        """Dispatch until the ending, or the last arrival; then wait for what is in flight.

        Args:
            start_ns: CLOCK_MONOTONIC at the arrivals' 0.
            ending: may be moved while the load runs.
        """
        self._ending = ending
        try:
            self._dispatch(start_ns, ending)
        finally:
            self._next_ns = FOREVER_NS
            self.close()
        for thread in self._threads:
            thread.join()
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Let every slot leave when it is idle; `run` does that by itself."""
        for slot in self._slots:
            slot.dismiss()

    def _dispatch(self, start_ns: int, ending: Ending) -> None:
        for offsets_ns in self._arrivals:
            for scheduled_ns in (offsets_ns + start_ns).tolist():
                self._next_ns = scheduled_ns
                if not self._falls_due(scheduled_ns, ending):
                    return
                self._send_or_drop(scheduled_ns, next(self._requests))

    def _falls_due(self, scheduled_ns: int, ending: Ending) -> bool:
        """Wait for an arrival; false where the load ends before it."""
        while scheduled_ns > self._due_ns:
            if scheduled_ns >= ending.at_ns or self._problem is not None:
                return False
            # In bounded steps, and at least once: a dispatcher that is behind must let slots run.
            goal_ns = min(scheduled_ns, self._clock.now_ns() + LONGEST_SLEEP_NS)
            self._timer.sleep_until_nearly(goal_ns)
            self._due_ns = max(goal_ns, self._clock.now_ns())
        return scheduled_ns < ending.at_ns

    def _send_or_drop(self, scheduled_ns: int, request: EncodedRequest) -> None:
        if self._idle:
            self._idle.pop().hand(scheduled_ns, request)
        elif len(self._slots) < self._most_in_flight:
            self._open_slot(self._open_transport()).hand(scheduled_ns, request)
        else:
            self._sink.drop(scheduled_ns)

    def _open_slot(self, transport: Transport) -> Slot:
        sink = self.sink_of(transport)
        slot = Slot(transport, self._check, sink, self._idle, self._clock, lambda: self._ending)
        thread = threading.Thread(target=self._serve, args=(slot,), daemon=True)
        self._slots.append(slot)
        self._threads.append(thread)
        thread.start()
        return slot

    def _serve(self, slot: Slot) -> None:
        """A slot's life; what no request should raise ends the load."""
        try:
            slot.serve()
        except Exception as error:  # noqa: BLE001  (raised again by `run`)
            self._problem = self._problem or error


EARLY_NS = 400_000
"""How much before the instant the timer is set."""
_EARLY_SHARE = 25
"""But at most a 25th of the wait: what passes in yielding is spent CPU."""
_ABSOLUTE = 1
"""TFD_TIMER_ABSTIME, from <sys/timerfd.h>."""


def wait_readable(file: int) -> None:
    """Wait until a file can be read; in a Locust process `gevent.socket.wait_read` is cheaper."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    poll.poll()


class Timer:
    """A kernel timer, for one sleeper at a time.

    Args:
        wait: waits until a file can be read.
    """

    clock: Clock = MONOTONIC

    def __init__(self, wait: Callable[[int], object] = wait_readable) -> None:
        self._wait = wait
        self._library = ctypes.CDLL(None, use_errno=True)
        self._file = self._library.timerfd_create(time.CLOCK_MONOTONIC, os.O_CLOEXEC)
        if self._file < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd_create: {os.strerror(code)}")
        # struct itimerspec: interval and first expiry, each in seconds and nanoseconds.
        self._setting = (ctypes.c_int64 * 4)()

    def sleep_until_nearly(self, instant_ns: int) -> None:
        """Let others run until shortly before an instant; once, where it is past."""
        remaining_ns = instant_ns - time.monotonic_ns()
        if remaining_ns > 0:
            early_ns = min(EARLY_NS, remaining_ns // _EARLY_SHARE)
            self._setting[2], self._setting[3] = divmod(instant_ns - early_ns, 1_000_000_000)
            self._library.timerfd_settime(self._file, _ABSOLUTE, self._setting, None)
            self._wait(self._file)
        else:
            time.sleep(0)

    def close(self) -> None:
        """Give the timer back; closing twice is fine."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

"""The Locust users: what drives a model on Triton, and checks every answer.

`locustfile.py` runs them by Locust's own command, `session_trial.py` for the harness. What they
send (`traffic`) and where they record it (`sink`) is given to the classes before a test starts.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import gevent
from gevent.event import Event
from gevent.socket import wait_read
from locust import User, constant, task
from locust.exception import StopUser

from harness.load.engine.closed_loop import ClosedLoop, Ending
from harness.load.engine.open_loop import OpenLoop, OpenLoopSink, Timer
from harness.load.requests.traffic import EncodedTraffic
from harness.load.transports.contract import RequestFailure
from harness.types import WireProtocol

REQUESTS_A_TASK = 200
"""Locust's own work between two tasks costs as much as a request: it is done once in this many."""
MOST_BLOCKING_CALLS = 10_000
"""Cap of gevent's native thread pool; threads are made as they are needed."""
_READ = 1
"""Event mask of libev for reading."""
CONNECTED_AHEAD = 4
"""Connections that an open loop opens before its first arrival; it opens more as it needs them."""


@dataclass(frozen=True)
class OpenLoopShare:
    """One process's part of an open loop."""

    make: Callable[[Timer], OpenLoop]
    start_ns: int
    """CLOCK_MONOTONIC at the arrivals' 0."""


class TritonUser(User):
    """One request in flight: the next is sent when the one before is answered."""

    abstract = True
    wait_time = constant(0)
    protocol: ClassVar[WireProtocol]
    request_type: ClassVar[str]
    traffic: ClassVar[EncodedTraffic | None] = None
    sink: ClassVar[OpenLoopSink | None] = None
    present: ClassVar[set[TritonUser]] = set()
    """The users of this process that may have a request in flight."""
    begun: ClassVar[Event] = Event()
    """Set while the process has traffic for them."""
    patience_s: ClassVar[float] = 0.0
    """How long they wait for it: a worker's may be started before it is known where they begin."""
    ending: Ending
    """The end of this user: it sends nothing from then on."""

    loop: ClosedLoop

    def on_start(self) -> None:
        """Take a place in the traffic."""
        self.await_traffic()
        if self.traffic is None:
            raise StopUser  # whoever should have made it said why
        self.ending = Ending(self.traffic.ending.at_ns)
        self.traffic.turns.give_way = look_at_sockets
        self.transport = self.traffic.open_transport()
        if self.sink is not None:
            self.loop = self.traffic.closed_loop(self.transport, self.sink)
        self.present.add(self)

    def await_traffic(self) -> None:
        """Return when there is some, or none can be expected any more."""
        if self.traffic is None and self.patience_s:
            self.begun.wait(self.patience_s)

    def on_stop(self) -> None:
        """Close the connection."""
        if self in self.present:
            self.present.remove(self)
            self.transport.close()

    @task
    def infer(self) -> None:
        """Send requests; the recorder tells Locust what became of them."""
        self.drive()

    def drive(self) -> None:
        """Send one request after another."""
        assert self.traffic is not None  # noqa: S101  (on_start made sure)
        if time.monotonic_ns() >= self.ending.at_ns:
            raise StopUser
        self.loop.run(self.ending, most=REQUESTS_A_TASK)

    def leave(self, at_ns: int = 0) -> None:
        """Send nothing from an instant on; what is in flight then is waited for, and counted."""
        if self in self.present:
            self.ending.at_ns = min(self.ending.at_ns, at_ns)

    def stop(self, force: bool = False) -> bool:
        """Leave, and only then be killed: the slowest requests must not go uncounted.

        Every request has a timeout, so the wait ends.
        """
        if self.sink is not None and self.greenlet is not gevent.getcurrent():
            self.leave()
            self.greenlet.join()
        stopped: bool = super().stop(force)
        return stopped


class TritonHttpUser(TritonUser):
    """Sends KServe v2 requests over HTTP, with binary tensors."""

    protocol = WireProtocol.HTTP
    request_type = "HTTP"


class TritonGrpcUser(TritonUser):
    """Sends KServe v2 requests over gRPC."""

    protocol = WireProtocol.GRPC
    request_type = "gRPC"


class TritonOpenLoopUser(TritonUser):
    """Sends requests when they fall due, whatever the server does, over either protocol.

    There is one in a process: it dispatches the process's share of the arrivals, over as many
    connections as that takes. A second one would have nothing to do, and leaves.
    """

    shares: ClassVar[list[OpenLoopShare]] = []
    """The process's share, for the first user to take."""

    def on_start(self) -> None:
        """Take the share, if it is still there."""
        self.await_traffic()
        if self.traffic is None or not self.shares:
            raise StopUser
        self.ending = self.traffic.ending
        self._share = self.shares.pop()
        self.present.add(self)

    def on_stop(self) -> None:
        """The loop has closed its connections itself."""
        self.present.discard(self)

    def drive(self) -> None:
        """Dispatch every arrival until the ending, or the end of the trace."""
        run_open_loop(self._share.make, self._share.start_ns, self.ending)
        raise StopUser


USERS: dict[WireProtocol, type[TritonUser]] = {
    WireProtocol.HTTP: TritonHttpUser,
    WireProtocol.GRPC: TritonGrpcUser,
}


def run_open_loop(make: Callable[[Timer], OpenLoop], start_ns: int, ending: Ending) -> None:
    """Dispatch an open loop from its first connections to its last answer.

    Args:
        make: the loop, given the timer that wakes it.
        start_ns: CLOCK_MONOTONIC at the arrivals' 0.
        ending: of the load.
    """
    with closing(Timer(wait_read)) as timer:
        loop = make(timer)
        with suppress(RequestFailure):  # its requests try again, and are counted
            loop.connect(CONNECTED_AHEAD)
        loop.run(start_ns, ending)


def read_waiter(connected: socket.socket) -> Callable[[], object]:
    """A `ReadWaiter` of gevent's loop."""
    hub = gevent.get_hub()
    return partial(hub.wait, hub.loop.io(connected.fileno(), _READ))


def look_at_sockets() -> None:
    """Let every greenlet go on whose socket has something to read, without waiting for any.

    An idle watcher of the highest priority: it comes right after the loop has polled, and before
    the loop goes on to what it found. `gevent.sleep(0)` comes back before anything is polled.
    """
    gevent.idle(priority=gevent.get_hub().loop.MAXPRI)


@cache
def make_grpc_yield() -> None:
    """Make grpcio's blocking calls yield to other greenlets; before the first channel, once.

    A blocking call holds a native thread of gevent's pool. With the ten it has by default, the
    eleventh user would wait for another's answer, and its latency would be the generator's fault.
    """
    from grpc.experimental.gevent import init_gevent

    init_gevent()
    gevent.get_hub().threadpool.maxsize = MOST_BLOCKING_CALLS

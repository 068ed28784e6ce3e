"""The Locust users: what drives a model on Triton, and checks every answer.

Locust starts them, or a `LoadPart` by itself; what they send and where they record it it says.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import gevent
from gevent.event import Event
from gevent.socket import wait_read
from locust import User, constant, task
from locust.exception import StopUser

from harness.load.engine.closed_loop import ClosedLoop, Ending
from harness.load.engine.open_loop import Timer
from harness.load.transports.contract import RequestFailure, Transport
from harness.types import WireProtocol

if TYPE_CHECKING:
    from harness_locust.load_part import LoadPart

MOST_BLOCKING_CALLS = 10_000
"""Cap of gevent's native thread pool; threads are made as they are needed."""
CONNECTED_AHEAD = 4
"""Connections that an open loop opens before its first arrival; it opens more as it needs them."""


class TritonUser(User):
    """One request in flight: the next is sent when the one before is answered."""

    abstract = True
    wait_time = constant(0)
    protocol: ClassVar[WireProtocol]
    request_type: ClassVar[str]
    current: ClassVar[LoadPart | None] = None
    """This process's part of the load that runs, or is about to."""
    arrived: ClassVar[Event] = Event()
    """Set while there is one."""
    patience_s: ClassVar[float] = 0.0
    """How long users wait for it: a worker's may be started before it has heard of the load."""
    part: LoadPart | None = None
    """The load that this user is of; None before, and where there was none."""
    transport: Transport
    ending: Ending
    """The end of this user: it sends nothing from then on."""
    loop: ClosedLoop | None = None

    def on_start(self) -> None:
        """Take a place in the load."""
        part = self.join_load()
        part.admit(self)
        self.loop = part.closed_loop(self.transport)

    def join_load(self) -> LoadPart:
        """The load that this process has a part of.

        Raises:
            StopUser: there is none, and none can be expected any more.
        """
        if self.current is None and self.patience_s:
            self.arrived.wait(self.patience_s)
        if self.current is None:
            raise StopUser  # whoever should have prepared it said why
        self.part = self.current
        return self.part

    def on_stop(self) -> None:
        """Give the place back."""
        if self.part is not None:
            self.part.dismiss(self)

    @task
    def infer(self) -> None:
        """Send requests to the end; the recorder tells Locust what became of them.

        One task for all of them: Locust's own work between two costs as much as a request.
        """
        self.drive()

    def drive(self) -> None:
        """Send one request after another."""
        assert self.part is not None  # noqa: S101  (on_start made sure)
        assert self.loop is not None  # noqa: S101  (as of this)
        sleep_until(self.part.start_ns)
        self.loop.run(self.ending)
        raise StopUser

    def leave(self, at_ns: int = 0) -> None:
        """Send nothing from an instant on; what is in flight then is waited for, and counted."""
        self.ending.at_ns = min(self.ending.at_ns, at_ns)

    def stop(self, force: bool = False) -> bool:
        """Leave, and only then be killed: the slowest requests must not go uncounted.

        Every request has a timeout, so the wait ends.
        """
        inside = self.part is not None and self.part.has(self)
        if inside and self.greenlet is not gevent.getcurrent():
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

    def on_start(self) -> None:
        """Take this process's share, if it is still there."""
        part = self.join_load()
        if not part.take_arrivals():
            raise StopUser
        part.admit(self)

    def drive(self) -> None:
        """Dispatch every arrival until the ending, or the end of the trace."""
        assert self.part is not None  # noqa: S101  (on_start made sure)
        with closing(Timer(wait_read)) as timer:
            loop = self.part.open_loop(timer)
            with suppress(RequestFailure):  # its requests try again, and are counted
                loop.connect(CONNECTED_AHEAD)
            loop.run(self.part.arrivals_ns, self.ending)
        raise StopUser


USERS: dict[WireProtocol, type[TritonUser]] = {
    WireProtocol.HTTP: TritonHttpUser,
    WireProtocol.GRPC: TritonGrpcUser,
}


def sleep_until(instant_ns: int) -> None:
    """Let others run until CLOCK_MONOTONIC shows the instant."""
    while (remaining_ns := instant_ns - time.monotonic_ns()) > 0:
        gevent.sleep(remaining_ns / 1e9)


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

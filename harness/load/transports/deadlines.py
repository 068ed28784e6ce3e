"""Deadlines of requests without a timer a wait: one watchdog hangs up on what is overdue.

A socket's own timeout costs a timer for each wait (4 us under gevent) and starts again with each
piece that arrives. Here a request stores its deadline, and a thread that wakes every 50 ms shuts
the sockets of those that have passed: whoever waits in `recv` or `send` then gets the end of the
stream or an OSError, and asks its guard why. So a request may outlive its deadline by 50 ms.

    guard = watch(connected)
    guard.start(timeout_s)
    try:
        ...  # send and receive, on a blocking socket
    finally:
        guard.clear()
    if guard.expired:  # asked after `clear`, whether or not an answer came
        ...  # a timeout: the connection must be given up

Under Locust's patching the thread is a greenlet, the sockets wait cooperatively.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from math import inf
from weakref import WeakSet

WAKE_S = 0.05


class Guard:
    """The deadline of the one request that a connection carries at a time; see `watch`.

    Without a lock no request is hit by the deadline of the one before it: the watchdog says what
    it is about to do before it looks again whether the deadline still stands, and the owner lifts
    the deadline before looking whether anything was said. One of them sees the other.
    """

    __slots__ = ("__weakref__", "_condemned_s", "_deadline_s", "_socket", "_started_s")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._started_s = 0.0
        """The deadline that the present request was given; its name among deadlines."""
        self._deadline_s = inf
        self._condemned_s = 0.0
        """The deadline that the watchdog last acted upon."""

    def start(self, timeout_s: float) -> None:
        """Set the deadline of the request that begins now."""
        self._started_s = self._deadline_s = time.monotonic() + timeout_s

    def clear(self) -> None:
        """Lift the deadline: the request has ended, one way or another."""
        self._deadline_s = inf

    @property
    def expired(self) -> bool:
        """Whether the request last started was too late; true means that the socket is of no use.

        Final only once the deadline is lifted.
        """
        return self._condemned_s == self._started_s

    def enforce(self, now_s: float) -> None:
        """Hang up if the deadline has passed; the watchdog's part."""
        deadline_s = self._deadline_s
        if deadline_s > now_s:
            return
        self._condemned_s = deadline_s
        if self._deadline_s == deadline_s:
            # The plain socket's method: an SSLSocket's would first forget its encryption, under
            # the eyes of the thread that reads from it.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Watchdog:
    """Wakes now and then, and enforces the deadlines of all guards that are still in use."""

    def __init__(self) -> None:
        self._guards: WeakSet[Guard] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, guard: Guard) -> None:
        with self._lock:
            self._guards.add(guard)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while guards := self._in_use():
            now_s = time.monotonic()
            for guard in guards:
                guard.enforce(now_s)
            del guards, guard  # or this frame would keep alive what nobody else uses
            time.sleep(WAKE_S)

    def _in_use(self) -> list[Guard]:
        """Every guard that its connection still holds; with none left the thread ends."""
        with self._lock:
            guards = list(self._guards)
            if not guards:
                self._thread = None
            return guards


_watchdog = _Watchdog()


def watch(connected: socket.socket) -> Guard:
    """Have a connection's deadlines enforced, for as long as the guard is kept.

    Args:
        connected: in blocking mode (`settimeout(None)`); may be an SSLSocket.
    """
    guard = Guard(connected)
    _watchdog.add(guard)
    return guard

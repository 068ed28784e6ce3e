"""What a socket receives, and when it came: by the kernel's clock, not by when it was read.

A latency ends when the answer is there. Between that and this process's reading it lie the waking
of an idle core (0.05 to 0.2 ms) and, in a busy event loop, other users' answers: the generator's
time, which must not count as the server's. The kernel notes when bytes arrive (`SO_TIMESTAMPNS`,
socket(7)) and hands the instant over with them. Where it cannot (TLS, whose records are read ahead;
another operating system, the first moments after the machine's first such socket), the instant at
which they were read stands in.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time
from functools import cache

from harness.load.transports.connecting import ReadWaiter, wait_for

LONGEST_WAIT_NS = 10_000_000_000
"""A stamp that is older, or lies in the future, is not one: the wall clock was set meanwhile."""

_SO_TIMESTAMPNS = 35
"""From <asm-generic/socket.h>; Python's `socket` has no name for it."""
_TIMESPEC = struct.Struct("qq")
"""Seconds and nanoseconds of CLOCK_REALTIME."""
_ROOM_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_PROBE_S = 0.5
_PROBE_PAUSE_S = 0.005
"""The kernel begins to stamp a moment after the first socket has asked for it."""


class Inbox:
    """The receiving side of one connection.

    Args:
        connected: in blocking mode.
        waiter: waits until the socket can be read; None leaves that to the socket.
    """

    __slots__ = ("_receive", "_receive_stamped", "_wait", "received_ns")

    def __init__(self, connected: socket.socket, waiter: ReadWaiter | None = None) -> None:
        self._wait = wait_for(connected, waiter)
        self._receive = connected.recv
        self._receive_stamped = connected.recvmsg if _has_stamps(connected) else None
        self.received_ns = 0
        """CLOCK_MONOTONIC when the last of what was received came."""

    def wait(self, most_bytes: int) -> bytes:
        """Receive what is not expected to be there yet; empty when the peer has closed."""
        if self._wait is not None:
            self._wait()
        return self.receive(most_bytes)

    def receive(self, most_bytes: int) -> bytes:
        """Receive what may be there already, or wait for it; empty when the peer has closed."""
        if self._receive_stamped is None:
            data = self._receive(most_bytes)
            self.received_ns = time.monotonic_ns()
            return data
        data, notes, _, _ = self._receive_stamped(most_bytes, _ROOM_BYTES)
        # In this order: losing the processor in between makes it later than it was, not sooner.
        wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
        if notes:
            seconds, nanoseconds = _TIMESPEC.unpack(notes[0][2])
            waited_ns = wall_ns - seconds * 1_000_000_000 - nanoseconds
            if 0 < waited_ns < LONGEST_WAIT_NS:
                now_ns -= waited_ns
        self.received_ns = now_ns
        return data


@cache
def kernel_stamps() -> bool:
    """Whether this machine's kernel says when bytes came; asked of a connection to itself."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=_PROBE_S) as far,
        listener.accept()[0] as near,
    ):
        if not _has_stamps(near):
            return False
        near.settimeout(_PROBE_S)
        deadline_s = time.monotonic() + _PROBE_S
        while time.monotonic() < deadline_s:
            far.send(b"?")
            _, notes, _, _ = near.recvmsg(1, _ROOM_BYTES)
            if notes:
                return True
            time.sleep(_PROBE_PAUSE_S)
    return False


def _has_stamps(connected: socket.socket) -> bool:
    """Ask the kernel for arrival times; whether it gives them."""
    if isinstance(connected, ssl.SSLSocket) or sys.platform != "linux":
        return False
    try:
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True

"""Sockets of the transports: opened, given a time, and read with the instant of each arrival.

A latency ends when the answer is there. Between that and this process's reading it lie the waking
of an idle core (0.05 to 0.2 ms) and, in a busy event loop, other users' answers: the generator's
time, which must not count as the server's. The kernel notes when bytes arrive (`SO_TIMESTAMPNS`,
socket(7)) and hands the instant over with them. Where it cannot (TLS, whose records are read ahead;
another operating system, the first moments after the machine's first such socket), the instant at
which they were read stands in.

Requests have deadlines without a timer for each wait: one watchdog hangs up on what is overdue. A
socket's own timeout costs a timer for each wait (4 us under gevent) and starts again with each
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
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from math import inf
from typing import Protocol
from weakref import WeakSet

from harness.load.transports.address import Target
from harness.system.connections import connect

_ESTABLISHED = 1  # TCP_ESTABLISHED of Linux's include/net/tcp_states.h

Taken = Callable[[bytes, int], bool]
"""Callback that takes received bytes and their arrival time (CLOCK_MONOTONIC), and returns whether
it dealt with them; it must not wait."""
Came = bytes | Exception
"""What ends a wait: what was read, or why it could not be."""


class SocketWaiter(Protocol):
    """Waits in an event loop for one socket.

    In an event loop a read that is tried before the answer can be there costs a system call and an
    exception, a sixth of all that a request costs: with a waiter it is not tried. Whoever knows the
    event loop brings one; without, sockets wait by themselves.
    """

    bare: socket.socket
    """The socket as the system has it: a read that would wait raises BlockingIOError."""

    def wait(self) -> None:
        """Wait until the socket can be read."""

    def watch(self, look: Callable[[Callable[[Came], object]], None]) -> Came:
        """Have the loop itself call `look` whenever the socket can be read, until that is enough.

        Args:
            look: given what to call with what this is to return; neither waits nor raises.
        """


ReadWaiter = Callable[[socket.socket], SocketWaiter]
"""Callback that makes the waiter of a socket."""


def open_socket(target: Target, *, alpn: str, timeout_s: float) -> socket.socket:
    """Connect, with TLS where the target asks for it; the socket then blocks without a timeout.

    Args:
        target: the server.
        alpn: application protocol to offer over TLS, and the only one taken: `http/1.1`, `h2`.
        timeout_s: for all of it, the name's resolution and every address included.

    Raises:
        OSError: unresolvable, refused, unreachable, TLS that does not verify (`ssl.SSLError` is
            an OSError), or another application protocol.
        UsageError: the certificates to trust cannot be read.
    """
    connected = connect(target.host, target.port, timeout_s=timeout_s)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if target.encrypted:
            connected = _encrypt(connected, target, alpn)
        connected.settimeout(None)
    except BaseException:
        connected.close()
        raise
    return connected


def _encrypt(connected: socket.socket, target: Target, alpn: str) -> ssl.SSLSocket:
    context = _tls_context(target, alpn)
    encrypted = context.wrap_socket(connected, server_hostname=target.host)
    chosen = encrypted.selected_alpn_protocol()
    if chosen not in {alpn, None}:
        encrypted.close()
        raise ConnectionError(f"the server speaks {chosen}, not {alpn}")
    return encrypted


@lru_cache(maxsize=8)
def _tls_context(target: Target, alpn: str) -> ssl.SSLContext:
    """One for all connections: reading the system's certificates takes tens of milliseconds."""
    return target.tls_context(alpn)


def stands(connected: socket.socket) -> bool:
    """Whether the server has not hung up yet, as far as this machine has heard.

    Asks for the state of TCP (the first byte of `tcp_info`): unlike a look at what can be read
    it is not misled by what TLS sends on its own, and never waits, under gevent neither.
    """
    state = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == _ESTABLISHED


WAKE_S = 0.05


def _never() -> int:
    return 0


class Guard:
    """The deadline of the one request that a connection carries at a time; see `watch`.

    Without a lock no request is hit by the deadline of the one before it: the watchdog says what
    it is about to do before it looks again whether the deadline still stands, and the owner lifts
    the deadline before looking whether anything was said. One of them sees the other.
    """

    __slots__ = (
        "__weakref__",
        "_condemned_s",
        "_deadline_s",
        "_heard_ns",
        "_socket",
        "_started_s",
        "_timeout_s",
    )

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._started_s = 0.0
        """The deadline that the present request was given; its name among deadlines."""
        self._deadline_s = inf
        self._condemned_s = 0.0
        """The deadline that the watchdog last acted upon."""
        self._timeout_s = 0.0
        self._heard_ns: Callable[[], int] = _never

    def start(self, timeout_s: float, heard_ns: Callable[[], int] | None = None) -> None:
        """Set the deadline of the request that begins now.

        Args:
            timeout_s: from now, and from whatever comes that is waited for.
            heard_ns: says when that last came (CLOCK_MONOTONIC; 0: it never did). It is asked when
                the time is up, so that what comes costs nothing here.
        """
        self._timeout_s, self._heard_ns = timeout_s, heard_ns or _never
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
        if deadline_s > now_s or self._heard_ns() / 1e9 + self._timeout_s > now_s:
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
        begun = None
        with self._lock:
            self._guards.add(guard)
            if self._thread is None:
                begun = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread = begun
        # Not under the lock: a greenlet's start lets others run, and the lock may be from before
        # Locust patched the interpreter.
        if begun is not None:
            begun.start()

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


_APART_NS = 20_000
"""Read at once, two clocks lie 0.1 us apart; what a latency shows begins far above this."""
_MOST_READINGS = 3


def _both_clocks_ns() -> tuple[int, int]:
    """CLOCK_REALTIME and CLOCK_MONOTONIC of one instant, in nanoseconds.

    Where the processor was lost in between they are read again: by so much a stamp would come out
    too late.
    """
    before_ns = time.monotonic_ns()
    for _ in range(_MOST_READINGS):
        wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
        if now_ns - before_ns < _APART_NS:
            break
        before_ns = now_ns
    return wall_ns, now_ns


class Inbox:
    """The receiving side of one connection.

    Args:
        connected: in blocking mode.
        waiter: waits until the socket can be read; None leaves that to the socket.
    """

    __slots__ = ("_receive", "_receive_stamped", "_waiter", "received_ns")

    def __init__(self, connected: socket.socket, waiter: ReadWaiter | None = None) -> None:
        # What TLS has decrypted already makes no socket readable.
        awaited = waiter is not None and not isinstance(connected, ssl.SSLSocket)
        self._waiter = waiter(connected) if waiter is not None and awaited else None
        read = connected if self._waiter is None else self._waiter.bare
        self._receive = read.recv
        self._receive_stamped = read.recvmsg if _has_stamps(connected) else None
        self.received_ns = 0
        """CLOCK_MONOTONIC when the last of what was received came."""

    def wait(self, most_bytes: int, taken: Taken | None = None) -> bytes:
        """Receive what is not expected to be there yet; empty when the peer has closed.

        Args:
            most_bytes: of one piece.
            taken: asked of each piece that comes; the first that it leaves is returned. In an event
                loop it is the loop that asks: waking whoever waits costs more than a token should.
        """
        if self._waiter is None:
            piece = self._receive_now(most_bytes)
            while taken and piece and taken(piece, self.received_ns):
                piece = self._receive_now(most_bytes)
            return piece
        if taken is None:
            self._waiter.wait()
            return self.receive(most_bytes)

        def look(found: Callable[[Came], object]) -> None:
            try:
                piece = self._receive_now(most_bytes)
                if not piece or not taken(piece, self.received_ns):
                    found(piece)
            except BlockingIOError:
                pass
            except Exception as error:  # noqa: BLE001  (raised where it is waited for)
                found(error)

        came = self._waiter.watch(look)
        if isinstance(came, Exception):
            raise came
        return came

    def receive(self, most_bytes: int) -> bytes:
        """Receive what may be there already, or wait for it; empty when the peer has closed."""
        while True:
            try:
                return self._receive_now(most_bytes)
            except BlockingIOError:
                assert self._waiter is not None  # noqa: S101  (other sockets wait by themselves)
                self._waiter.wait()

    def _receive_now(self, most_bytes: int) -> bytes:
        if self._receive_stamped is None:
            data = self._receive(most_bytes)
            self.received_ns = time.monotonic_ns()
            return data
        data, notes, _, _ = self._receive_stamped(most_bytes, _ROOM_BYTES)
        wall_ns, now_ns = _both_clocks_ns()
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

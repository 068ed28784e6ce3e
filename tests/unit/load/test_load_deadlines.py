"""Deadlines: what is overdue is ended, whatever it waits for, and nothing else is."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness.load.transports import sockets
from harness.load.transports.sockets import Guard, watch


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def wait_until_hung_up(guard: Guard, ours: socket.socket) -> tuple[bool, float]:
    """Whether a guarded wait for bytes that never come ends as expired, and after how long."""
    started_s = time.monotonic()
    with suppress(OSError):
        assert ours.recv(10) == b""
    guard.clear()
    return guard.expired, time.monotonic() - started_s


def test_a_wait_ends_with_its_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    guard = watch(pair[0])
    guard.start(0.2)
    expired, waited_s = wait_until_hung_up(guard, pair[0])
    assert expired
    assert 0.2 <= waited_s < 1.2


def test_a_stalled_send_ends_too(pair: tuple[socket.socket, socket.socket]) -> None:
    guard = watch(pair[0])
    guard.start(0.2)
    with pytest.raises(OSError, match=r"Broken pipe|reset|shutdown"):
        pair[0].sendall(bytes(50_000_000))
    guard.clear()
    assert guard.expired


def test_a_request_in_time_leaves_the_next_alone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    guard = watch(ours)
    for _ in range(3):
        guard.start(0.15)
        theirs.sendall(b"answer")
        assert ours.recv(10) == b"answer"
        guard.clear()
        assert not guard.expired
        time.sleep(0.1)
    time.sleep(0.2)  # at rest for longer than any deadline
    theirs.sendall(b"still there")
    assert ours.recv(20) == b"still there"


def test_what_is_heard_lets_the_time_begin_anew(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    guard = Guard(ours)
    begun_s = time.monotonic()
    guard.start(5.0, lambda: int((begun_s + 4.0) * 1e9))
    guard.enforce(begun_s + 8.5)
    assert not guard.expired
    guard.enforce(begun_s + 9.5)
    assert guard.expired
    assert theirs.recv(1) == b""


def test_only_the_overdue_connection_is_ended() -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    guards = [watch(ours) for ours, _ in pairs]
    for index, guard in enumerate(guards):
        guard.start(0.1 if index % 2 else 30)
    time.sleep(0.4)
    for guard in guards:
        guard.clear()
    assert [guard.expired for guard in guards] == [False, True] * 10
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_a_deadline_lifted_while_the_watchdog_looks_is_reported_and_not_enforced(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    # The one interleaving that matters: the watchdog has condemned the deadline, the owner lifts
    # it before the watchdog looks again. The owner must then see it; the socket is left alone.
    ours, theirs = pair

    class Interrupted(Guard):
        __slots__ = ()

        def __setattr__(self, name: str, value: float) -> None:
            super().__setattr__(name, value)
            if name == "_condemned_s" and value:
                self.clear()

    guard = Interrupted(ours)
    guard.start(0.0)
    guard.enforce(time.monotonic())
    assert guard.expired
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"
    guard.start(30)
    assert not guard.expired


def test_one_thread_watches_and_ends_when_nothing_is_left(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    guards = [watch(pair[0]) for _ in range(50)]
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("deadlines") == 1
    seen = weakref.ref(guards[0])
    guards.clear()
    until_s = time.monotonic() + 5
    while seen() is not None and time.monotonic() < until_s:
        gc.collect()
        time.sleep(sockets.WAKE_S)
    assert seen() is None


PATCH = "from gevent import monkey; monkey.patch_all()\n"
IMPORT = "from harness.load.transports.sockets import watch\n"
GEVENT = """
import socket, time, threading
pairs = [socket.socketpair() for _ in range(100)]
expired = []
def wait(ours, timeout_s):
    guard = watch(ours)
    guard.start(timeout_s)
    try:
        ours.recv(1)
    except OSError:
        pass
    guard.clear()
    expired.append(guard.expired)
threads = [threading.Thread(target=wait, args=(ours, 0.2)) for ours, _ in pairs]
started_s = time.monotonic()
for thread in threads: thread.start()
for thread in threads: thread.join()
assert 0.2 <= time.monotonic() - started_s < 3, time.monotonic() - started_s
print(sum(expired))
"""


@pytest.mark.parametrize("first", [PATCH + IMPORT, IMPORT + PATCH], ids=["patched", "imported"])
def test_under_gevent_a_hundred_waits_end_together(first: str) -> None:
    """Whether or not the sockets' module was there before the interpreter was patched."""
    ended = subprocess.run(
        [sys.executable, "-c", first + GEVENT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("100\n", "")

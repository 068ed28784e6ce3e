"""When an answer came, by the kernel's clock, however late it is read."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from http1_server import make_certificate

from harness.load.transports.sockets import LONGEST_WAIT_NS, Inbox

READ_LATE_S = 0.05
SWITCH_ON_S = 0.05
"""The kernel begins to stamp packets a moment after the first socket has asked for it."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection over loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        yield near, far


def stamped(near: socket.socket) -> Inbox:
    inbox = Inbox(near)
    time.sleep(SWITCH_ON_S)
    return inbox


def receive_late(inbox: Inbox, far: socket.socket) -> tuple[int, int]:
    """Before sending, and after having read it late."""
    before_ns = time.monotonic_ns()
    far.sendall(b"answer")
    time.sleep(READ_LATE_S)
    assert inbox.receive(100) == b"answer"
    return before_ns, time.monotonic_ns()


def test_an_answer_that_is_read_late_came_when_it_came(pair):
    near, far = pair
    inbox = stamped(near)
    before_ns, after_ns = receive_late(inbox, far)
    assert before_ns <= inbox.received_ns < after_ns - 0.9 * READ_LATE_S * 1e9


def test_of_an_answer_in_pieces_the_last_one_counts(pair):
    near, far = pair
    inbox = stamped(near)
    far.sendall(b"first")
    time.sleep(READ_LATE_S)
    between_ns = time.monotonic_ns()
    far.sendall(b"second")
    time.sleep(READ_LATE_S)
    assert inbox.receive(100) == b"firstsecond"
    assert between_ns <= inbox.received_ns < time.monotonic_ns() - 0.9 * READ_LATE_S * 1e9


def test_a_reader_that_is_held_up_between_its_clocks_reads_them_again(pair, monkeypatch):
    near, far = pair
    inbox = stamped(near)
    before_ns, real_ns = time.monotonic_ns(), time.time_ns
    far.sendall(b"answer")
    time.sleep(READ_LATE_S)
    held_up_s = [4 * READ_LATE_S]

    def wall_ns() -> int:
        now_ns = real_ns()
        if held_up_s:
            time.sleep(held_up_s.pop())
        return now_ns

    monkeypatch.setattr(time, "time_ns", wall_ns)
    read_ns = time.monotonic_ns()
    assert inbox.receive(100) == b"answer"
    assert not held_up_s
    assert before_ns <= inbox.received_ns < read_ns


def test_the_end_of_the_stream_is_empty(pair):
    near, far = pair
    far.shutdown(socket.SHUT_WR)
    assert Inbox(near).wait(100) == b""


@pytest.mark.parametrize("set_by_ns", [-3_600_000_000_000, 2 * LONGEST_WAIT_NS])
def test_a_wall_clock_that_was_set_meanwhile_is_not_believed(pair, monkeypatch, set_by_ns):
    near, far = pair
    inbox = stamped(near)
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + set_by_ns)
    before_ns, after_ns = receive_late(inbox, far)
    assert before_ns + READ_LATE_S * 1e9 <= inbox.received_ns <= after_ns


def test_under_tls_it_came_when_it_was_read(pair, tmp_path: Path):
    near, far = pair
    certificate, theirs = make_certificate(tmp_path)
    ours = ssl.create_default_context(cafile=certificate)
    with ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(theirs.wrap_socket, far, server_side=True)
        encrypted = ours.wrap_socket(near, server_hostname="localhost")
        accepted = accepting.result()
    with encrypted, accepted:
        inbox = Inbox(encrypted)
        before_ns, after_ns = receive_late(inbox, accepted)
    assert before_ns + READ_LATE_S * 1e9 <= inbox.received_ns <= after_ns

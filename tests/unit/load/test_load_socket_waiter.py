"""What gevent's loop does with a socket's pieces itself, and what it wakes a greenlet for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

from harness.load.transports.sockets import Inbox
from harness_locust.socket_waiter import GeventWaiter
from tests.held_up import HeldUp

PATIENCE_S = 60.0
HERE = Path(__file__).parent
IN_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys, pytest
from functools import wraps
from harness.load.transports import opening
from harness_locust.socket_waiter import GeventWaiter
real = opening.stream_opener
opening.stream_opener = wraps(real)(lambda *a, **k: real(*a, **{"waiter": GeventWaiter, **k}))
class Failures:
    kinds = set()
    def pytest_exception_interact(self, call):
        self.kinds.add(call.excinfo.type.__name__)
code = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Failures()])
sys.exit(75 if Failures.kinds == {"HeldUp"} else code)
"""
HELD_UP = 75
"""Exit code, where nothing failed but what the machine held up: only there it is known."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def tokens_taken(near: socket.socket, taken: list[bytes]) -> gevent.Greenlet:
    """A greenlet that waits for a piece without a `t`; ends with it, and whether others ran it."""

    def take(piece: bytes, at_ns: int) -> bool:
        assert gevent.getcurrent() is gevent.get_hub()
        assert at_ns > 0
        if piece.startswith(b"t"):
            taken.append(piece)
        return piece.startswith(b"t")

    inbox = Inbox(near, GeventWaiter)
    waiting: gevent.Greenlet = gevent.spawn(inbox.wait, 100, take)
    return waiting


def send_apart(far: socket.socket, taken: list[bytes], *pieces: bytes) -> None:
    for number, piece in enumerate(pieces, 1):
        far.sendall(piece)
        with gevent.Timeout(PATIENCE_S):
            while len(taken) < number:
                gevent.sleep(0.001)


def test_what_is_taken_wakes_nobody(pair):
    near, far = pair
    taken: list[bytes] = []
    waiting = tokens_taken(near, taken)
    send_apart(far, taken, b"t1", b"t2", b"t3")
    assert not waiting.ready()
    far.sendall(b"end")
    assert waiting.get(timeout=PATIENCE_S) == b"end"
    assert taken == [b"t1", b"t2", b"t3"]
    far.sendall(b"next")  # nobody looks any more
    gevent.sleep(0.02)
    assert near.recv(100) == b"next"


def test_the_end_of_the_connection_is_not_taken(pair):
    near, far = pair
    waiting = tokens_taken(near, [])
    gevent.sleep(0)
    far.shutdown(socket.SHUT_WR)
    assert waiting.get(timeout=PATIENCE_S) == b""


def test_what_goes_wrong_in_the_loop_is_raised_where_it_is_waited_for(pair):
    near, far = pair

    def take(piece: bytes, at_ns: int) -> bool:
        raise ValueError(piece.decode())

    waiting = gevent.spawn(Inbox(near, GeventWaiter).wait, 100, take)
    far.sendall(b"bad")
    with pytest.raises(ValueError, match="bad"):
        waiting.get(timeout=PATIENCE_S)


def test_who_is_killed_while_waiting_leaves_the_socket_alone(pair):
    near, far = pair
    taken: list[bytes] = []
    waiting = tokens_taken(near, taken)
    send_apart(far, taken, b"t1")
    waiting.kill()
    far.sendall(b"t2")
    gevent.sleep(0.02)
    assert near.recv(100) == b"t2"
    assert taken == [b"t1"]


@pytest.mark.parametrize(
    "files",
    [
        ["test_load_stream_fidelity.py", "-k", "every_gap and (grpc or chat)"],
        pytest.param(
            [f"test_load_{name}.py" for name in ("streams", "stream_truths", "conversations")],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["fidelity", "faults"],
)
def test_streams_are_read_in_gevent_as_they_are_in_threads(files: list[str]) -> None:
    """The same tests once more, with the loop that load generators run."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_GEVENT, "-p", "no:xdist", *files],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    if ended.returncode == HELD_UP:
        raise HeldUp(ended.stdout[-4000:])
    assert ended.returncode == 0, ended.stdout[-4000:]

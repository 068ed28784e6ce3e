"""The open loop against servers that are functions: what is sent, when, and what is dropped."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from harness.load.engine.closed_loop import FOREVER_NS, Ending
from harness.load.engine.open_loop import OpenLoop, Timer, requests_in_turn
from harness.load.requests.answers import AnswerCheck
from harness.load.requests.payloads import EncodedRequest
from harness.load.schedule.arrivals import arrival_times_ns, share
from harness.load.transports.contract import Layout, OutputTensor, RequestFailure, WireAnswer
from harness.types import ArrivalKind, ArrivalProcess
from tests.load_sink import Seen
from tests.virtual_time import VirtualClock, VirtualTimer

MS = 1_000_000
SECOND = 1_000_000_000
RIGHT = Layout((OutputTensor("scores", "FP32", (1, 1), 0, 4),))
EMPTY = Layout((OutputTensor("scores", "FP32", (1, 1), 0, 0),))


@dataclass
class Server:
    """Answers each request by a function; what it was sent is kept in order."""

    behave: Callable[[bytes], WireAnswer]
    now_ns: Callable[[], int] = time.monotonic_ns
    bodies: list[bytes] = field(default_factory=list)
    opened: int = 0
    connected: int = 0
    closed: int = 0
    received_ns: int = 0
    identity: bytes = b""

    def open(self) -> Server:
        self.opened += 1
        return self

    def connect(self) -> None:
        self.connected += 1

    def send(self, body: bytes) -> WireAnswer:
        self.bodies.append(body)
        self.identity = b"id-" + body
        answer = self.behave(body)
        self.received_ns = self.now_ns()
        return answer

    def close(self) -> None:
        self.closed += 1

    def encode(self, model: str, inputs: object) -> bytes:
        raise NotImplementedError


def right(_: bytes) -> WireAnswer:
    return WireAnswer(RIGHT, b"\0\0\0\0")


@pytest.fixture
def timer() -> Iterator[Timer]:
    one = Timer()
    yield one
    one.close()


def requests(count: int = 5) -> list[EncodedRequest]:
    return [EncodedRequest(b"%d" % n, n + 1, frozenset({8}), RIGHT) for n in range(count)]


def open_loop(
    server: Server, seen: Seen, timer: Timer, offsets_ns: list[int], *, most_in_flight: int = 8
) -> OpenLoop:
    return OpenLoop(
        [np.array(offsets_ns, dtype=np.int64)],
        requests_in_turn(requests()),
        AnswerCheck(),
        seen,
        open_transport=server.open,
        most_in_flight=most_in_flight,
        timer=timer,
    )


def in_virtual_time(
    server: Server, seen: Seen, offsets_ns: list[int], **options: int
) -> tuple[OpenLoop, VirtualClock]:
    """A loop whose load begins at 0, and its clock; the server answers by it."""
    timer = VirtualTimer()
    server.now_ns = timer.clock.now_ns
    timer.loop = open_loop(server, seen, timer, offsets_ns, **options)
    return timer.loop, timer.clock


def test_every_arrival_is_sent_in_its_turn_when_it_falls_due() -> None:
    server, seen = Server(right), Seen()
    offsets_ns = [n * 10 * MS for n in range(12)]
    loop, _ = in_virtual_time(server, seen, offsets_ns)
    loop.run(0, Ending())
    sizes = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]
    assert seen.ok == [(at, at, at, size) for at, size in zip(offsets_ns, sizes, strict=True)]
    assert server.bodies == [b"%d" % (n % 5) for n in range(12)]
    assert server.opened == 1
    assert not seen.failed
    assert not seen.dropped


def test_no_arrival_is_sent_before_it_by_the_kernels_timer_either(timer: Timer) -> None:
    server, seen = Server(right), Seen()
    offsets_ns = [n * 10 * MS for n in range(12)]
    start_ns = time.monotonic_ns() + 20 * MS
    open_loop(server, seen, timer, offsets_ns, most_in_flight=12).run(start_ns, Ending())
    assert sorted(one[0] - start_ns for one in seen.ok) == offsets_ns
    assert sorted(server.bodies) == sorted(b"%d" % (n % 5) for n in range(12))
    assert all(scheduled <= sent <= completed for scheduled, sent, completed, _ in seen.ok)
    assert not seen.failed
    assert not seen.dropped


def test_one_connection_is_enough_while_one_request_is_in_flight() -> None:
    server, seen = Server(right), Seen()
    loop, _ = in_virtual_time(server, seen, [n * 20 * MS for n in range(10)])
    loop.connect(1)
    assert (server.opened, server.connected) == (1, 1)
    loop.run(0, Ending())
    assert server.opened == server.closed == 1


def test_the_ending_is_the_first_instant_without_requests(timer: Timer) -> None:
    server, seen = Server(right), Seen()
    start_ns = time.monotonic_ns()
    loop = open_loop(server, seen, timer, [0, 10 * MS, 20 * MS, 30 * MS, 10_000 * MS])
    loop.run(start_ns, Ending(start_ns + 20 * MS))
    assert sorted(one[0] - start_ns for one in seen.ok) == [0, 10 * MS]
    assert time.monotonic_ns() - start_ns < 5 * SECOND
    assert loop.settled_before_ns == FOREVER_NS


def test_an_ending_that_is_moved_ends_a_sleeping_dispatcher(timer: Timer) -> None:
    seen, ending = Seen(), Ending()
    loop = open_loop(Server(right), seen, timer, [0, 60 * SECOND])
    start_ns = time.monotonic_ns()
    thread = threading.Thread(target=loop.run, args=(start_ns, ending))
    thread.start()
    while loop.settled_before_ns != start_ns + 60 * SECOND:
        assert time.monotonic_ns() - start_ns < 5 * SECOND
        time.sleep(0.001)
    ending.at_ns = time.monotonic_ns()
    thread.join(5)
    assert not thread.is_alive()
    assert len(seen.ok) == 1


def test_what_exceeds_the_bound_is_dropped_and_counted_exactly(timer: Timer) -> None:
    over = threading.Event()

    def hold(_: bytes) -> WireAnswer:
        assert over.wait(10)
        return right(b"")

    server, seen = Server(hold), Seen()
    offsets_ns = [n * MS for n in range(20)]
    loop = open_loop(server, seen, timer, offsets_ns, most_in_flight=3)
    start_ns = time.monotonic_ns()
    thread = threading.Thread(target=loop.run, args=(start_ns, Ending()))
    thread.start()
    while len(seen.dropped) < 17:
        assert time.monotonic_ns() - start_ns < 5 * SECOND
        time.sleep(0.001)
    assert loop.settled_before_ns == start_ns  # the first of the three that are held
    over.set()
    thread.join(5)
    assert [one - start_ns for one in seen.dropped] == offsets_ns[3:]
    assert sorted(one[0] - start_ns for one in seen.ok) == offsets_ns[:3]
    assert server.opened == server.closed == 3


def test_a_server_that_stalls_shows_in_every_request_that_was_due() -> None:
    """Theory: due `x` into a stall of 1 s waits 1 s - x, so a ramp; the others wait nothing."""
    stall_ns = (500 * MS, 1500 * MS)

    def stall(_: bytes) -> WireAnswer:
        if stall_ns[0] <= clock.now_ns() < stall_ns[1]:
            clock.let_come(stall_ns[1])
        return right(b"")

    seen = Seen()
    offsets_ns = [n * 10 * MS + 5 * MS for n in range(200)]
    server = Server(stall)
    loop, clock = in_virtual_time(server, seen, offsets_ns, most_in_flight=128)
    loop.run(0, Ending())
    scheduled_ns, sent_ns, completed_ns, _ = np.array(sorted(seen.ok)).T
    assert scheduled_ns.tolist() == sent_ns.tolist() == offsets_ns
    inside = (scheduled_ns >= stall_ns[0]) & (scheduled_ns < stall_ns[1])
    assert inside.sum() == server.opened == 100
    expected_ns = np.where(inside, stall_ns[1] - scheduled_ns, 0)
    assert (completed_ns - scheduled_ns).tolist() == expected_ns.tolist()


def test_what_a_stalled_server_leaves_no_room_for_is_dropped_when_it_falls_due() -> None:
    """A stall of 200 ms, eight in flight at most: the twelve that fall due beyond are dropped."""

    def stall(_: bytes) -> WireAnswer:
        clock.let_come(200 * MS)
        return right(b"")

    seen = Seen()
    offsets_ns = [n * 10 * MS for n in range(40)]
    loop, clock = in_virtual_time(Server(stall), seen, offsets_ns)
    loop.run(0, Ending(300 * MS))
    assert seen.dropped == offsets_ns[8:20]
    assert sorted(one[0] for one in seen.ok) == offsets_ns[:8] + offsets_ns[20:30]
    assert {one[2] for one in seen.ok if one[0] < 200 * MS} == {200 * MS}


def test_latency_runs_from_the_schedule_when_the_dispatcher_is_late(timer: Timer) -> None:
    seen = Seen()
    start_ns = time.monotonic_ns() - 80 * MS
    loop = open_loop(Server(right), seen, timer, [0, 10 * MS, 20 * MS], most_in_flight=8)
    loop.run(start_ns, Ending())
    assert len(seen.ok) == 3
    assert all(sent - scheduled >= 60 * MS for scheduled, sent, _, _ in seen.ok)


def test_failures_are_recorded_and_hold_nobody_up(timer: Timer) -> None:
    def refuse(body: bytes) -> WireAnswer:
        if body == b"0":
            raise RequestFailure("connection", "refused")
        return WireAnswer(EMPTY if body == b"1" else RIGHT, b"\0\0\0\0")

    seen = Seen()
    start_ns = time.monotonic_ns()
    open_loop(Server(refuse), seen, timer, [n * MS for n in range(50)], most_in_flight=50).run(
        start_ns, Ending()
    )
    kinds = [failure.kind for *_, failure in seen.failed]
    assert sorted(kinds) == ["connection"] * 10 + ["empty_output"] * 10
    assert len(seen.ok) == 30
    assert all(
        scheduled <= sent <= completed and (scheduled - start_ns) % MS == 0
        for scheduled, sent, completed, _ in seen.failed
    )


def test_a_fault_of_the_harness_itself_ends_the_load(timer: Timer) -> None:
    def break_down(_: bytes) -> WireAnswer:
        raise ZeroDivisionError("not a failed request")

    server, seen = Server(break_down), Seen()
    loop = open_loop(server, seen, timer, [0, 100 * MS, 60 * SECOND])
    with pytest.raises(ZeroDivisionError):
        loop.run(time.monotonic_ns(), Ending())
    assert server.opened == server.closed
    assert not seen.ok


def test_an_unreachable_server_can_still_be_asked() -> None:
    class Unreachable(Server):
        def connect(self) -> None:
            raise RequestFailure("connection", "refused")

    server, seen = Unreachable(right), Seen()
    loop, _ = in_virtual_time(server, seen, [0, 20 * MS])
    with pytest.raises(RequestFailure, match="refused"):
        loop.connect(4)
    loop.run(0, Ending())
    assert len(seen.ok) == 2
    assert server.opened == server.closed == 1


def test_closing_lets_go_of_connections_that_never_ran(timer: Timer) -> None:
    server = Server(right)
    loop = open_loop(server, Seen(), timer, [0], most_in_flight=6)
    loop.connect(100)
    assert server.connected == 6
    loop.close()
    for _ in range(1000):
        if server.closed == 6:
            break
        time.sleep(0.005)
    assert server.closed == 6


def test_workers_send_together_what_one_would_have_sent(timer: Timer) -> None:
    process = ArrivalProcess(ArrivalKind.POISSON)

    def scheduled_by(worker: int, workers: int) -> list[int]:
        server, seen = Server(right), Seen()
        chunks = itertools.islice(arrival_times_ns(process, rate_per_s=1e5, seed=4), 1)
        loop = OpenLoop(
            share(chunks, worker, workers),
            requests_in_turn(requests(), worker, workers),
            AnswerCheck(),
            seen,
            open_transport=server.open,
            most_in_flight=1,
            timer=timer,
        )
        start_ns = 1  # long ago: what is due comes all at once, and in order
        loop.run(start_ns, Ending(start_ns + 3 * MS))
        return [*(one[0] for one in seen.ok), *seen.dropped]

    whole = scheduled_by(0, 1)
    assert len(whole) > 200
    parts = [scheduled_by(worker, 3) for worker in range(3)]
    assert sorted(itertools.chain(*parts)) == sorted(whole)
    assert min(map(len, parts)) >= len(whole) // 3


def test_the_nth_arrival_has_the_nth_request_whoever_sends_it() -> None:
    pool = requests(7)
    whole = list(itertools.islice(requests_in_turn(pool), 30))
    for worker in range(4):
        mine = itertools.islice(requests_in_turn(pool, worker, 4), len(whole[worker::4]))
        assert list(mine) == whole[worker::4]


GREENLETS = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent.socket, sys, time
import numpy as np
import test_load_open_loop as rig
from harness.load.engine.closed_loop import Ending
from harness.load.engine.open_loop import Timer

def slow(body):
    time.sleep(0.05)
    return rig.right(body)

seen = rig.Seen()
offsets_ns = [n * 2 * rig.MS for n in range(500)]
timer = Timer(gevent.socket.wait_read)
server = rig.Server(slow)
loop = rig.open_loop(server, seen, timer, offsets_ns, most_in_flight=500)
start_ns = time.monotonic_ns()
loop.run(start_ns, Ending())
assert sorted(one[0] - start_ns for one in seen.ok) == offsets_ns
late_ms = (np.array(seen.ok)[:, 1] - np.array(seen.ok)[:, 0]) / 1e6
print(float(np.median(late_ms)), server.opened)
assert "threading" in gevent.monkey.saved
"""


def test_greenlets_do_as_threads_do() -> None:
    """In a Locust process slots are greenlets: the same files, under gevent's patches."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    ran = subprocess.run(
        [sys.executable, "-c", GREENLETS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    late_ms, connections = ran.stdout.split()
    # Usually 0.1; a dispatcher that waited for answers of 50 ms would be late by seconds.
    assert float(late_ms) < 25
    assert 25 <= int(connections) <= 500  # 500/s of 50 ms each: 25 in flight

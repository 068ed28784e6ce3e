"""Replicas behind a balancer: requests that are spread, servers that come and go, none left."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.errors import ServerError
from harness.serving.replicas.balancer import Balancer
from harness.serving.replicas.replica_set import ReplicaSet, RunningReplica


class Named:
    """A server that answers with its name and what it was sent; held while `gate` is shut."""

    def __init__(self, name):
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.answered = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.arrived.release()
                outer.gate.wait(60)
                outer.answered += 1
                answer = name.encode() + b":" + body
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def servers():
    found = [Named("a"), Named("b")]
    yield found
    for one in found:
        one.gate.set()
        one.close()


def ask(balancer, body=b"x"):
    request = urllib.request.Request(f"http://{balancer.address}/v2", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_a_request_comes_back_whole(servers):
    body = bytes(range(256)) * 300
    with Balancer() as balancer:
        balancer.add(servers[0].address)
        assert ask(balancer, body) == b"a:" + body


def test_the_least_busy_server_is_asked(servers):
    """While one holds a request, all others go to the other."""
    busy, free = servers
    with Balancer() as balancer, ThreadPoolExecutor(8) as pool:
        balancer.add(busy.address)
        busy.gate.clear()
        held = pool.submit(ask, balancer)
        assert busy.arrived.acquire(timeout=60)
        balancer.add(free.address)
        assert {ask(balancer)[:1] for _ in range(6)} == {b"b"}
        busy.gate.set()
        assert held.result(60) == b"a:x"


def test_requests_wait_for_the_first_server(servers):
    with Balancer() as balancer, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(ask, balancer)
        time.sleep(0.05)
        assert not waiting.done()
        balancer.add(servers[0].address)
        assert waiting.result(60) == b"a:x"


def test_what_waits_for_a_server_and_what_is_at_one_are_in_flight(servers):
    with Balancer() as balancer, ThreadPoolExecutor(3) as pool:
        assert balancer.in_flight == 0
        waiting = [pool.submit(ask, balancer) for _ in range(2)]
        until(lambda: balancer.in_flight == 2)
        servers[0].gate.clear()
        balancer.add(servers[0].address)
        assert servers[0].arrived.acquire(timeout=60)
        assert balancer.in_flight == 2
        servers[0].gate.set()
        assert [one.result(60) for one in waiting] == [b"a:x"] * 2
        until(lambda: balancer.in_flight == 0)


def test_a_server_is_removed_when_its_requests_have_ended(servers):
    one, _ = servers
    with Balancer() as balancer, ThreadPoolExecutor(2) as pool:
        balancer.add(one.address)
        one.gate.clear()
        held = pool.submit(ask, balancer)
        assert one.arrived.acquire(timeout=60)
        removal = pool.submit(balancer.remove, one.address)
        time.sleep(0.05)
        assert not removal.done()
        one.gate.set()
        removal.result(60)
        assert held.result(60) == b"a:x"


def test_a_server_that_is_gone_is_a_failure_and_not_a_hang(servers):
    with Balancer() as balancer:
        balancer.add("127.0.0.1:1")
        with pytest.raises(urllib.error.HTTPError) as raised:
            ask(balancer)
        assert raised.value.code == 502


class Frontend:
    def __init__(self):
        self.served = []

    def add(self, address):
        self.served.append(address)

    def remove(self, address):
        self.served.remove(address)


class Launches:
    """Replicas that come up when they are let, and how many live."""

    def __init__(self):
        self.may_serve = threading.Semaphore(0)
        self.living = set()
        self.dead = set()
        self.fails = False

    @contextmanager
    def __call__(self, number):
        self.living.add(number)
        try:
            assert self.may_serve.acquire(timeout=60)
            if self.fails:
                raise RuntimeError("no memory")
            yield RunningReplica(f"replica:{number}", "", lambda: self.check(number))
        finally:
            self.living.discard(number)

    def check(self, number):
        if number in self.dead or number not in self.living:
            raise ServerError(f"replica {number} was killed")


def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("never came to be")


def test_replicas_are_announced_when_they_serve_and_none_is_left():
    launches, frontend = Launches(), Frontend()
    with ReplicaSet(launches, frontend) as replicas:
        replicas.resize(2)
        assert (replicas.ordered, replicas.running) == (2, [])
        launches.may_serve.release(2)
        replicas.wait_for(2)
        assert sorted(frontend.served) == ["replica:0", "replica:1"]
        assert len(replicas.start_times_s) == 2
    assert (frontend.served, launches.living) == ([], set())


def test_those_that_come_up_are_retired_before_those_that_serve():
    launches, frontend = Launches(), Frontend()
    with ReplicaSet(launches, frontend) as replicas:
        replicas.resize(1)
        launches.may_serve.release()
        replicas.wait_for(1)
        replicas.resize(2)
        replicas.resize(1)
        assert [one.address for one in replicas.running] == ["replica:0"]
        launches.may_serve.release()
        until(lambda: launches.living == {0})
        assert frontend.served == ["replica:0"]


def test_a_replica_that_does_not_come_up_is_said_and_none_is_left():
    launches = Launches()
    launches.fails = True
    with ReplicaSet(launches, Frontend()) as fleet:
        fleet.resize(1)
        launches.may_serve.release()
        with pytest.raises(RuntimeError, match="no memory"):
            fleet.wait_for(1)
    assert launches.living == set()


def test_a_replica_that_dies_while_it_serves_is_said():
    launches = Launches()
    with ReplicaSet(launches, Frontend()) as fleet:
        fleet.resize(3)
        launches.may_serve.release(3)
        fleet.wait_for(3)
        fleet.check()
        launches.dead.add(1)
        with pytest.raises(ServerError, match="replica 1 was killed"):
            fleet.check()


def test_a_replica_that_died_before_it_was_retired_is_said_and_one_that_was_retired_is_not():
    launches, frontend = Launches(), Frontend()
    with ReplicaSet(launches, frontend) as fleet:
        fleet.resize(2)
        launches.may_serve.release(2)
        fleet.wait_for(2)
        newest = int(fleet.running[-1].address.removeprefix("replica:"))
        fleet.resize(1)
        until(lambda: newest not in launches.living)
        fleet.check()
        launches.dead.add(1 - newest)
    assert (frontend.served, launches.living) == ([], set())
    with pytest.raises(ServerError, match=f"replica {1 - newest} was killed"):
        fleet.check()

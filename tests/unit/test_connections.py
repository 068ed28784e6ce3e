"""Names: asked for once, bounded in time, and asked again where it did not help."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from http1_server import ScriptedServer, kserve_answer, make_certificate

from harness.errors import ServerError
from harness.load.transports.address import Target, parse_target
from harness.load.transports.contract import RequestFailure
from harness.load.transports.grpc.transport import GrpcTransport
from harness.load.transports.http.transport import HttpTransport
from harness.serving.external.http import HttpServer
from harness.serving.external.server import check_alive
from harness.system import connections
from harness.system.connections import forget, resolve
from harness.telemetry.prometheus import client as prometheus_client
from harness.telemetry.prometheus.client import Prometheus, QueryFailure
from harness.telemetry.triton import scrape

PLACE = ("triton.test", 8000)
TRITON = Target(*PLACE)
FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 8000))]


class NameServer:
    """Stands in for the system's: counts the questions, and answers as it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[str, int], list[connections.Address]] = lambda _host, _port: list(
            FOUND
        )
        self.hold = threading.Event()
        """Answers wait for it."""
        self.hold.set()

    def __call__(self, host: str, port: int, **_: object) -> list[connections.Address]:
        self.asked.append(host)
        assert self.hold.wait(10)
        return self.answer(host, port)


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(connections, "_lookups", {})
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.hold.set()


def test_users_that_connect_together_and_again_ask_once(name_server: NameServer) -> None:
    name_server.hold.clear()
    with ThreadPoolExecutor(16) as users:
        found = [users.submit(resolve, *PLACE, timeout_s=10) for _ in range(16)]
        time.sleep(0.05)
        name_server.hold.set()
        assert [one.result() for one in found] == [FOUND] * 16
    assert resolve(*PLACE, timeout_s=10) == FOUND
    assert name_server.asked == ["triton.test"]


def test_a_late_answer_is_a_timeout_for_who_asked_and_there_for_who_asks_next(
    name_server: NameServer,
) -> None:
    name_server.hold.clear()
    started_s = time.monotonic()
    with pytest.raises(TimeoutError, match=r"triton\.test is not resolved yet"):
        resolve(*PLACE, timeout_s=0.1)
    assert time.monotonic() - started_s < 5
    name_server.hold.set()
    assert resolve(*PLACE, timeout_s=10) == FOUND
    assert name_server.asked == ["triton.test"]


def test_a_name_that_is_not_known_is_asked_for_again(name_server: NameServer) -> None:
    def unknown(_host: str, _port: int) -> list[connections.Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    known, name_server.answer = name_server.answer, unknown
    with pytest.raises(socket.gaierror, match="not known"):
        resolve(*PLACE, timeout_s=10)
    name_server.answer = known
    assert resolve(*PLACE, timeout_s=10) == FOUND
    assert len(name_server.asked) == 2


def test_what_is_forgotten_is_asked_for_again_and_ports_are_apart(name_server: NameServer) -> None:
    resolve(*PLACE, timeout_s=10)
    forget(*PLACE)
    resolve(*PLACE, timeout_s=10)
    resolve("triton.test", 8001, timeout_s=10)
    assert len(name_server.asked) == 3


@pytest.mark.parametrize("transport", [HttpTransport, GrpcTransport])
def test_a_request_ends_in_time_however_long_the_name_takes(
    transport: type[HttpTransport | GrpcTransport], name_server: NameServer
) -> None:
    name_server.hold.clear()
    user = transport(TRITON, timeout_s=0.2)
    started_s = time.monotonic()
    with pytest.raises(RequestFailure, match=r"timeout: .* is not resolved yet") as failure:
        user.send(user.encode("m", {"ids": np.zeros((1, 4), np.int64)}))
    assert failure.value.kind == "timeout"
    assert 0.2 <= time.monotonic() - started_s < 5


def test_a_server_that_moved_is_found_at_its_new_address(name_server: NameServer) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as gone,
        ScriptedServer(lambda peer: peer.answer(kserve_answer(1.5))) as server,
    ):
        places = [gone.getsockname(), ("127.0.0.1", parse_target(server.address).port)]
        name_server.answer = lambda _host, _port: [(*FOUND[0][:4], places[0])]
        user = HttpTransport(TRITON, timeout_s=5)
        gone.close()
        with pytest.raises(RequestFailure, match=r"connection: .*refused"):
            user.connect()
        places.pop(0)
        user.connect()
        user.close()
    assert len(name_server.asked) == 2


def test_of_several_addresses_the_first_that_answers_is_taken(name_server: NameServer) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as gone,
        ScriptedServer(lambda peer: peer.answer(kserve_answer(1.5))) as server,
    ):
        places = [gone.getsockname(), ("127.0.0.1", parse_target(server.address).port)]
        name_server.answer = lambda _host, _port: [(*FOUND[0][:4], one) for one in places]
        gone.close()
        for _ in range(2):
            user = HttpTransport(TRITON, timeout_s=5)
            user.connect()
            user.close()
    assert len(name_server.asked) == 1  # one that was not reached makes nobody forget the others


@pytest.mark.parametrize("encrypted", [False, True])
def test_pages_are_read_without_asking_for_the_name_again(
    encrypted: bool, name_server: NameServer, tmp_path: Path
) -> None:
    """A metrics page stands at a window's edge; and the certificate is the name's all the same."""
    certificate, context = make_certificate(tmp_path)
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n"
    scripts = [lambda peer: peer.say(page) if peer.read_some() else None] * 2
    with ScriptedServer(*scripts, tls=context if encrypted else None) as server:
        port = parse_target(server.address).port
        name_server.answer = lambda _host, _port: [(*FOUND[0][:4], ("127.0.0.1", port))]
        trusted = ssl.create_default_context(cafile=certificate) if encrypted else None
        url = f"http{'s' if encrypted else ''}://localhost:{port}/metrics"
        assert [scrape(url, tls=trusted) for _ in range(2)] == ["up 1\n"] * 2
        if encrypted:
            assert scrape(url.replace("localhost", "triton.test"), tls=trusted) is None
            assert name_server.asked.pop() == "triton.test"
    assert name_server.asked == ["localhost"]


def test_whoever_reads_waits_no_longer_for_a_name_than_for_the_page(
    name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_client, "QUERY_TIMEOUT_S", 0.2)
    name_server.hold.clear()
    started_s = time.monotonic()
    assert scrape("http://triton.test:8002/metrics", timeout_s=0.2) is None
    check_alive(TRITON)  # not known to be dead
    with pytest.raises(ServerError, match=r"no answer from .*: the name .* is not resolved yet"):
        HttpServer(TRITON)._call("/v2", timeout_s=0.2)
    with pytest.raises(QueryFailure, match=r"the name triton\.test is not resolved yet"):
        Prometheus("http://triton.test:9090").clock_offset_s()
    assert time.monotonic() - started_s < 5


UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import socket, time, gevent
from harness.system.connections import resolve

asked = []
def slow(*place, **_):
    asked.append(place)
    time.sleep(1)
    return [place]
socket.getaddrinfo = slow

def ask(timeout_s):
    try:
        return resolve("triton.test", 8000, timeout_s=timeout_s)[0]
    except TimeoutError:
        return "late"

users = [gevent.spawn(ask, 0.1 if index < 20 else 30) for index in range(40)]
gevent.joinall(users)
outcomes = [user.value for user in users]
print(len(asked), outcomes.count("late"), outcomes.count(("triton.test", 8000)))
"""


def test_under_gevent_users_wait_side_by_side() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_GEVENT],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "20", "20"], done.stderr

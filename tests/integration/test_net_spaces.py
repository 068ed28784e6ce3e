"""The made-up machines themselves: their slow lines, their cuts, their clocks."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from load_rig import PATIENCE_S, wait_until
from locust_command import end
from net_spaces import NetSpaces, Space, refusal
from net_wire import Link

pytestmark = pytest.mark.skipif(bool(refusal()), reason=refusal())

PORT = 5557
ECHO = f"""
import socket, sys, time
server = socket.create_server((sys.argv[1], {PORT}))
print("up", flush=True)
peer, _ = server.accept()
while peer.recv(1):
    peer.sendall(str(time.monotonic_ns()).encode().ljust(20))
"""
ASK = f"""
import socket, sys, time
peer = socket.create_connection((sys.argv[1], {PORT}))
for _ in range(10):
    sent = time.monotonic_ns()
    peer.sendall(b"?")
    there = int(peer.recv(20, socket.MSG_WAITALL))
    print(sent, there, time.monotonic_ns(), flush=True)
    time.sleep(0.05)
"""
LISTEN = "import socket; socket.create_connection(({address!r}, {port}), timeout=60)"


@pytest.fixture
def net() -> Iterator[NetSpaces]:
    with NetSpaces() as made:
        yield made


def exchange(asker: Space, answerer: Space, folder: Path) -> list[tuple[int, int, int]]:
    """Ten questions after another: when each was asked, answered there, and its answer read."""
    log, answers = folder / "echo.log", folder / "answers.log"
    server = answerer.start(sys.executable, "-c", ECHO, answerer.address, log=log)
    try:
        wait_until(lambda: "up" in log.read_text())
        asking = asker.start(sys.executable, "-c", ASK, answerer.address, log=answers)
        assert asking.wait(PATIENCE_S) == 0, answers.read_text()
    finally:
        end(server)
    rows = [line.split() for line in answers.read_text().splitlines()]
    return [(int(sent), int(there), int(read)) for sent, there, read in rows]


def test_frames_take_as_long_as_said_and_clocks_are_shifted(net: NetSpaces, tmp_path: Path) -> None:
    """Each way has its own delay: what lies between is the clock's difference, to the bound."""
    near = net.add(Link(delay_s=0.005))
    far = net.add(Link(delay_s=0.04, delay_back_s=0.01), clock_shift_s=3)
    for sent, there, read in exchange(near, far, tmp_path):
        assert read - sent >= 60e6  # 5 and 10 ms there, 40 and 5 ms back
        assert 15e6 <= there - sent - 3e9 <= read - sent - 45e6


def test_a_cut_line_carries_nothing_and_then_goes_on(net: NetSpaces, tmp_path: Path) -> None:
    """TCP sends again what was lost; later questions may wait for longer than the cut."""
    one, other = net.add(), net.add()
    log, answers = tmp_path / "echo.log", tmp_path / "answers.log"
    server = other.start(sys.executable, "-c", ECHO, other.address, log=log)
    wait_until(lambda: "up" in log.read_text())
    asking = one.start(sys.executable, "-c", ASK, other.address, log=answers)
    try:
        wait_until(lambda: len(answers.read_text().splitlines()) >= 2)
        with other.cut_off():
            time.sleep(0.1)  # what was under way arrives
            before = answers.read_text()
            time.sleep(0.5)
            assert answers.read_text() == before
        assert asking.wait(PATIENCE_S) == 0
    finally:
        end(server, asking)
    assert len(answers.read_text().splitlines()) == 10


def test_servers_of_the_test_are_reached_without_the_slow_line(net: NetSpaces) -> None:

    space = net.add(Link(cut=True))
    with socket.create_server((net.server_address, 0)) as server:
        asked = LISTEN.format(address=net.server_address, port=server.getsockname()[1])
        subprocess.run(space.command(sys.executable, "-c", asked), check=True, timeout=PATIENCE_S)


def test_nothing_is_left(tmp_path: Path) -> None:
    """Also where a connection is still open when its machine goes."""
    with NetSpaces() as net:
        one, other = net.add(), net.add(clock_shift_s=-3)
        assert len(interfaces(net)) == 4
        log = tmp_path / "echo.log"
        server = other.start(sys.executable, "-c", ECHO, other.address, log=log)
        wait_until(lambda: "up" in log.read_text())
        asking = one.start(sys.executable, "-c", ASK, other.address, log=tmp_path / "answers.log")
        wait_until((tmp_path / "answers.log").read_text)
        end(server, asking)
    assert not interfaces(net)


def interfaces(net: NetSpaces) -> list[str]:
    """Those in the test's own namespace: the bridge, the slow line, and a machine's end each."""
    listed = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    return [
        one for one in names if one.startswith((net._bridge, f"ht{net._lane}", f"hv{net._lane}-"))
    ]

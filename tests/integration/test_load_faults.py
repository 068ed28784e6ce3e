"""What a server and a machine can do to a load test, and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, Fault, constant
from load_rig import (
    REQUEST_TIMEOUT_S,
    Rig,
    environment,
    is_running,
    load_rig,
    merged,
    percentile_ms,
    wait_until_gone,
)

from harness.errors import GeneratorError
from harness.load import generators, process
from harness.load.closed_loop import BACKOFF_S
from harness.types import WireProtocol

ANSWER_FAULTS = [
    Fault.EMPTY_OUTPUT,
    Fault.WRONG_SHAPE,
    Fault.WRONG_DATATYPE,
    Fault.WRONG_SIZE,
    Fault.MISSING_OUTPUT,
    Fault.NON_FINITE,
]
KINDS = [
    *[(protocol, fault, fault.value) for protocol in WireProtocol for fault in ANSWER_FAULTS],
    ("http", Fault.UNAVAILABLE, "http_503"),
    ("grpc", Fault.UNAVAILABLE, "grpc_UNAVAILABLE"),
    ("http", Fault.RESET, "connection"),
    ("http", Fault.GARBAGE, "malformed"),
]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with load_rig(tmp_path_factory.mktemp("faults"), processes=2) as made:
        yield made


@pytest.mark.parametrize(("protocol", "fault", "kind"), KINDS)
def test_a_faulty_answer_is_a_failure_of_its_kind(
    rig: Rig, protocol: str, fault: Fault, kind: str
) -> None:
    behaviour = Behaviour(constant(0.002), fault=fault, fault_every=3)
    result = rig.run(behaviour, protocol=protocol, duration_s=0.3, warmup_s=0.05)
    assert set(result.failures) == {kind}
    assert result.first_failure.startswith(f"{kind}: ")
    right = merged(result).get_total_count()
    assert right > 0
    assert result.failures[kind] / (right + result.failures[kind]) == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_a_stall_is_a_timeout_and_delays_nobody_else(rig: Rig, protocol: str) -> None:
    behaviour = Behaviour(constant(0.005), fault=Fault.STALL, fault_every=40)
    result = rig.run(behaviour, protocol=protocol, concurrency=6, duration_s=1.0)
    assert set(result.failures) == {"timeout"}
    assert percentile_ms(result, 50) < REQUEST_TIMEOUT_S * 1000 / 2
    assert percentile_ms(result, 100) < REQUEST_TIMEOUT_S * 1000


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_a_server_that_is_down_is_asked_with_restraint(rig: Rig, protocol: str) -> None:
    addresses = rig.generators._addresses
    there = dict(addresses)
    addresses.update(dict.fromkeys(addresses, "127.0.0.1:1"))
    try:
        result = rig.run(Behaviour(), protocol=protocol, concurrency=4, duration_s=0.5)
    finally:
        addresses.update(there)
    assert set(result.failures) == {"connection" if protocol == "http" else "grpc_UNAVAILABLE"}
    assert result.completed == merged(result).get_total_count() == 0
    assert sum(result.failures.values()) <= 4 * (0.5 / BACKOFF_S + 1)


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_a_server_that_dies_and_comes_back_is_met_again(protocol: str, tmp_path: Path) -> None:
    """The new server is met within the same window, and the gap is seen as failures."""
    with load_rig(tmp_path) as own:
        successor = FakeServer(ports=own.server.ports)

        def replace() -> None:
            own.server.stop()
            for port in successor.ports:
                _wait_until_refused(port)
            time.sleep(0.2)
            successor.start()

        result = own.run(Behaviour(), protocol=protocol, duration_s=3.0, on_window_start=replace)
        successor.stop()
    assert successor.served
    assert result.completed > 0
    gap = {"connection"} if protocol == "http" else {"grpc_UNAVAILABLE", "grpc_CANCELLED"}
    assert set(result.failures) <= gap
    assert sum(result.failures.values()) > 0


def _wait_until_refused(port: int) -> None:
    """grpcio closes its listening socket a while after the server has stopped."""
    while True:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.02)


def test_a_killed_worker_is_named_and_replaced(rig: Rig) -> None:
    doomed, other = rig.generators.pids

    def kill() -> None:
        os.kill(doomed, signal.SIGKILL)

    started = time.monotonic()
    with pytest.raises(GeneratorError, match=f"process {doomed}.*SIGKILL") as caught:
        rig.run(Behaviour(), duration_s=30, on_window_start=kill)
    assert time.monotonic() - started < 15  # at once, not when the window would have ended
    assert "generator-0.log" in caught.value.next_step
    assert wait_until_gone([doomed, other])  # the other would have gone on sending
    assert rig.run(Behaviour()).completed > 0
    assert not {doomed, other} & set(rig.generators.pids)


def test_a_worker_that_died_between_trials_is_replaced(rig: Rig) -> None:
    doomed = rig.generators.pids[1]
    os.kill(doomed, signal.SIGKILL)
    while doomed in rig.generators.pids:
        time.sleep(0.01)
    assert rig.run(Behaviour()).completed > 0
    assert len(rig.generators.pids) == 2


def test_a_worker_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SESSION", "pyproject.toml")  # no Python at all
    with (
        load_rig(tmp_path) as broken,
        pytest.raises(GeneratorError, match=r"(?s)died: exit status 1.*SyntaxError"),
    ):
        broken.run(Behaviour())


def test_a_hanging_worker_is_killed_at_the_deadline(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generators, "DRAIN_GRACE_S", 0.5)
    hanging = rig.generators.pids[0]

    def hang() -> None:
        os.kill(hanging, signal.SIGSTOP)

    with pytest.raises(GeneratorError, match=f"process {hanging}.*hangs"):
        rig.run(Behaviour(), on_window_start=hang)
    assert wait_until_gone([hanging])
    monkeypatch.undo()
    assert rig.run(Behaviour()).completed > 0


def test_an_interrupt_stops_the_load_at_once(rig: Rig) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    rig.run(Behaviour())
    pids = rig.generators.pids
    with pytest.raises(KeyboardInterrupt):
        rig.run(Behaviour(), duration_s=30, on_window_start=interrupt)
    assert wait_until_gone(pids)
    sent = len(rig.server.served)
    time.sleep(0.2)
    assert len(rig.server.served) == sent


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    with load_rig(tmp_path, processes=3) as made:
        pids = made.generators.pids
        assert len(pids) == 3
        assert made.run(Behaviour(), concurrency=2).completed > 0  # one of the three had no share
    assert not any(is_running(pid) for pid in pids)


PARENT = """
    import sys
    from pathlib import Path
    from fake_server import Behaviour, constant
    from load_rig import load_rig

    with load_rig(Path(sys.argv[1]), processes=2) as rig:
        rig.run(Behaviour())
        print(*rig.generators.pids, flush=True)
        rig.run(Behaviour(constant(0.01)), duration_s=60)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another Python that drives load for a minute, in a process group of its own."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def _workers_of(parent: subprocess.Popen[str]) -> list[int]:
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.5)  # into the minute
    assert all(is_running(pid) for pid in pids)
    return pids


def test_no_worker_outlives_a_killed_parent(parent: subprocess.Popen[str]) -> None:
    workers = _workers_of(parent)
    parent.kill()
    assert wait_until_gone(workers)


def test_no_worker_outlives_a_killed_parent_even_if_it_hangs(
    parent: subprocess.Popen[str],
) -> None:
    """It cannot see the end of its orders; the kernel ends it."""
    workers = _workers_of(parent)
    os.kill(workers[0], signal.SIGSTOP)
    parent.kill()
    assert wait_until_gone(workers)


def test_ctrl_c_in_the_foreground_group_ends_all(parent: subprocess.Popen[str]) -> None:
    workers = _workers_of(parent)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert wait_until_gone(workers, timeout_s=5)


def test_generators_may_be_closed_from_another_thread_and_twice(tmp_path: Path) -> None:
    with FakeServer() as server:
        made = generators.LoadGenerators(
            http=server.http, grpc=server.grpc, processes=1, log_dir=tmp_path
        )
        with made:
            pids = made.pids
            closer = threading.Thread(target=made.close)
            closer.start()
            closer.join()
        assert not any(is_running(pid) for pid in pids)

"""What a server can do to a load test, and what the load test says of it."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_server import Behaviour, FakeServer, Fault, constant, right_answer
from load_rig import (
    LONGEST_S,
    Rig,
    Watcher,
    count_ok,
    enough,
    failures_in,
    load_rig,
    read_records,
    wait_until,
    wait_until_gone,
)

from harness.errors import ServerError
from harness.load.engine.closed_loop import BACKOFF_S
from harness.load.requests.answers import make_known_answers, write_known_answers
from harness.load.requests.payloads import draw_payloads, read_payloads
from harness.types import TimeSlice, WireProtocol
from tests.ports import free_port

WRONG_FORMS = [
    Fault.EMPTY_OUTPUT,
    Fault.WRONG_SHAPE,
    Fault.WRONG_DATATYPE,
    Fault.WRONG_SIZE,
    Fault.MISSING_OUTPUT,
    Fault.NON_FINITE,
]
OVERLOADED = {WireProtocol.HTTP: "http_503", WireProtocol.GRPC: "grpc_UNAVAILABLE"}
ENOUGH_FAILURES = 30
SHORT_TIMEOUT_S = 1.0
"""For the tests of what does not answer in time."""
BROKEN = {
    WireProtocol.HTTP: {"connection"},
    WireProtocol.GRPC: {"connection", "grpc_UNAVAILABLE", "grpc_CANCELLED"},
}
"""Kinds of failure when the server has gone; grpcio has the status codes for it."""


def known_answers(rig: Rig, folder: Path) -> Path:
    """The right answers to every request of the pool."""
    payloads = draw_payloads(read_payloads(rig.payloads), batch_size=2, seed=5)
    path = folder / "known.npz"
    write_known_answers(path, make_known_answers(payloads, right_answer), 0.01)
    return path


def check_share(rig: Rig, fault: Fault, kind: str, known: Path | None = None) -> None:
    """Every third answer is at fault: so many failures, of that kind, and the rest is right."""
    result = rig.run(
        Behaviour(constant(0.002), fault=fault, fault_every=3),
        Watcher(decided=lambda window: failures_in(window).total() >= ENOUGH_FAILURES),
        warmup_s=0.05,
        known_answers=known,
    )
    assert set(result.failures) == {kind}
    assert result.first_failure.startswith(f"{kind}: ")
    everything = rig.reported(result)
    right = count_ok(everything)
    failed = failures_in(everything)[kind]
    assert right > 0
    assert abs(failed - right / 2) <= 2


@pytest.mark.parametrize("fault", WRONG_FORMS)
def test_an_answer_of_a_wrong_form_is_a_failure_of_its_kind(native: Rig, fault: Fault) -> None:
    check_share(native, fault, fault.value)


@pytest.mark.parametrize("fault", [Fault.WRONG_ANSWER, Fault.WRONG_ROW])
def test_an_answer_that_is_not_the_known_one_is_wrong(
    native: Rig, fault: Fault, tmp_path: Path
) -> None:
    """A tenth too much, or the neighbour's: the form is right, and so is the status."""
    check_share(native, fault, "wrong_answer", known_answers(native, tmp_path))


@pytest.mark.parametrize(
    ("fault", "kind"), [(Fault.RESET, "connection"), (Fault.GARBAGE, "malformed")]
)
def test_a_fault_of_the_connection_is_a_failure_of_its_kind(
    rig: Rig, fault: Fault, kind: str
) -> None:
    check_share(rig, fault, kind)


def test_a_refusal_is_a_failure_with_the_servers_status(wired: Rig) -> None:
    check_share(wired, Fault.UNAVAILABLE, OVERLOADED[wired.protocol])


def test_grpc_at_a_door_of_http_is_no_answer(rig: Rig) -> None:
    """A frequent mistake: the two ports swapped."""
    grpc = dataclasses.replace(rig, protocol=WireProtocol.GRPC)
    with rig.aimed_at(rig.server.http):
        result = grpc.run(Behaviour())
    assert count_ok(result.slices) == 0
    assert sum(result.failures.values()) > 0
    assert set(result.failures) <= {"malformed", "grpc_UNAVAILABLE", "connection"}


def test_http_at_a_door_of_grpc_is_no_answer(rig: Rig) -> None:
    with rig.aimed_at(rig.server.grpc):
        result = rig.run(Behaviour())
    assert count_ok(result.slices) == 0
    assert sum(result.failures.values()) > 0
    assert set(result.failures) <= {"malformed", "connection"}


def test_a_server_that_never_answers_is_a_timeout_and_delays_nobody_else(
    wired: Rig, tmp_path: Path
) -> None:
    behaviour = Behaviour(constant(0.005), fault=Fault.STALL, fault_every=40)
    result = wired.run(
        behaviour,
        Watcher(decided=lambda window: bool(failures_in(window)) and count_ok(window) > 0),
        concurrency=6,
        request_timeout_s=SHORT_TIMEOUT_S,
        records=tmp_path,
    )
    assert set(result.failures) == {"timeout"}
    assert f"in {SHORT_TIMEOUT_S:g} s" in result.first_failure
    late, ok = read_records(tmp_path, "timeout"), read_records(tmp_path)
    assert (late.completed_ns - late.sent_ns >= SHORT_TIMEOUT_S * 1e9).all()
    # While the first of them waited, others were sent and answered.
    meanwhile = (ok.sent_ns > late.sent_ns[0]) & (ok.completed_ns < late.completed_ns[0])
    assert meanwhile.any()


def test_a_stall_shorter_than_the_timeout_is_latency(native: Rig, tmp_path: Path) -> None:
    stall_s, server = 0.3, native.server

    def stall() -> None:
        server.hold()
        wait_until(lambda: server.held == 4)
        time.sleep(stall_s)
        server.release()

    watcher = Watcher(decided=enough(8), on_window_start=stall)
    result = native.run(Behaviour(constant(0.005)), watcher, records=tmp_path)
    assert result.failures == {}
    response_ns = read_records(tmp_path).spans_ns()["response"]
    assert (response_ns >= stall_s * 1e9).sum() >= 4
    assert count_ok(native.reported(result)) == len(server.served)


def test_a_stall_longer_than_the_timeout_is_failures_until_it_ends(
    native: Rig, tmp_path: Path
) -> None:
    """Until each slot has failed; then connections are replaced, and the load goes on."""
    server = native.server
    shown: list[Sequence[TimeSlice]] = []

    def recovered(window: Sequence[TimeSlice]) -> bool:
        if failures_in(window)["timeout"] >= 4:
            server.release()
        shown.append(window)
        return failures_in(window)["timeout"] >= 4 and all_is_well(window)

    watcher = Watcher(decided=recovered, on_window_start=server.hold)
    result = native.run(
        Behaviour(constant(0.005)), watcher, request_timeout_s=0.5, records=tmp_path
    )
    assert set(result.failures) == {"timeout"}
    assert result.duration_s < LONGEST_S
    late = read_records(tmp_path, "timeout")
    assert (late.completed_ns - late.sent_ns >= 0.5e9).all()  # nobody was asked again sooner
    assert all_is_well(shown[-1])


def test_a_server_that_is_down_is_asked_with_restraint(wired: Rig) -> None:
    with wired.aimed_at("127.0.0.1:1"):
        result = wired.run(Behaviour())
    assert set(result.failures) <= BROKEN[wired.protocol]
    assert result.completed == count_ok(result.slices) == 0
    assert 4 <= sum(result.failures.values()) <= 4 * (result.duration_s / BACKOFF_S + 1)


@contextmanager
def shared_server(rig: Rig, behaviour: Behaviour) -> Iterator[FakeServer]:
    """A separate server for a test that ends it, and the rig aims at it."""
    server = FakeServer(behaviour)
    server.start()
    address = server.http if rig.protocol is WireProtocol.HTTP else server.grpc
    with rig.aimed_at(address):
        try:
            yield server
        finally:
            server.stop()


def test_a_server_that_dies_leaves_failures_and_keeps_what_it_answered(wired: Rig) -> None:
    with shared_server(wired, Behaviour(constant(0.01))) as server:
        watcher = Watcher(
            steady=lambda slices: count_ok(slices) >= 4,
            decided=lambda window: failures_in(window).total() >= 4,
            on_window_start=server.stop,
        )
        result = wired.run(Behaviour(), watcher)
    assert set(result.failures) <= BROKEN[wired.protocol]
    assert sum(result.failures.values()) >= 4
    # An answer that was on its way when the server ended its connections may be lost.
    assert 0 < count_ok(result.slices) <= len(server.served) <= count_ok(result.slices) + 4


def test_the_runs_own_check_ends_a_load_on_a_dead_server(rig: Rig) -> None:
    def check() -> None:
        if server.served and not server.running:
            raise ServerError("the server is dead")

    pids = rig.generators.pids
    with shared_server(rig, Behaviour(constant(0.01))) as server:
        watcher = Watcher(steady=enough(), on_window_start=server.stop)
        with pytest.raises(ServerError, match="the server is dead"):
            rig.run(Behaviour(), watcher, duration_s=LONGEST_S, check=check)
    wait_until_gone(pids)  # nobody goes on sending
    assert rig.run(Behaviour()).completed > 0


def test_a_server_that_dies_and_comes_back_is_met_again(wired: Rig) -> None:
    """The new server is met within the same window, and the gap is seen as failures."""
    with shared_server(wired, Behaviour(constant(0.002))) as server:
        successor = FakeServer(ports=server.ports)

        def replace() -> None:
            server.stop()
            for port in successor.ports:
                wait_until_refused(port)
            time.sleep(0.1)
            successor.start()

        watcher = Watcher(
            on_window_start=replace,
            decided=lambda window: bool(failures_in(window)) and all_is_well(window),
        )
        try:
            result = wired.run(Behaviour(), watcher)
        finally:
            successor.stop()
    assert successor.served
    assert set(result.failures) <= BROKEN[wired.protocol]
    assert result.duration_s < LONGEST_S


def all_is_well(window: Sequence[TimeSlice]) -> bool:
    """Whether there are successes at the window's end, and no failures."""
    recent = window[-4:]
    return count_ok(recent) > 0 and not failures_in(recent)


def wait_until_refused(port: int) -> None:
    """grpcio closes its listening socket a while after the server has stopped."""

    def refused() -> bool:
        with socket.socket() as knock:
            return knock.connect_ex(("127.0.0.1", port)) != 0

    wait_until(refused)


def test_a_server_that_comes_up_late_is_met(native: Rig) -> None:
    """Nobody could connect when the trial was prepared."""
    port = free_port()
    ports = (port, 0) if native.protocol is WireProtocol.HTTP else (0, port)
    late = FakeServer(ports=ports)
    with native.aimed_at(f"127.0.0.1:{port}"):
        try:
            watcher = Watcher(on_window_start=late.start, decided=all_is_well)
            result = native.run(Behaviour(), watcher)
        finally:
            late.stop()
    assert result.duration_s < LONGEST_S
    assert set(failures_in(result.slices)) <= BROKEN[native.protocol]
    assert failures_in(result.slices)


def test_connections_that_fail_are_not_leaked(tmp_path: Path) -> None:
    with load_rig(tmp_path) as own:
        own.run(Behaviour())
        (pid,) = own.generators.pids
        before = open_files(pid)
        for fault in (Fault.RESET, Fault.GARBAGE, Fault.UNAVAILABLE):
            own.run(Behaviour(fault=fault, fault_every=2), concurrency=32)
        wait_until(lambda: open_files(pid) <= before + 4)


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))

"""Tests of Locust's command and page that end otherwise than was asked: judged, kept and said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import make_payloads, wait_until
from locust_command import LIMIT_S, end, read, start
from locust_fleet import CLOSED, Fleet, patched_locustfile, plan, wait_until_served
from locust_site import Site

from harness.errors import EXIT_UNDECIDED, EnvironmentFailure
from harness.runs.folder import read_run

pytestmark = pytest.mark.slow

FAILS = """
from harness_locust.load_part import LoadPart

report = LoadPart._report

def fail_soon(self, *, final):
    if self._reports == 2:
        raise RuntimeError("made up")
    report(self, final=final)

LoadPart._report = fail_soon
"""

NEVER_READY = """
from harness_locust.load_part import LoadPart

def prepare(self):
    print("preparing", flush=True)
    gevent.sleep(1000)

LoadPart.prepare = prepare
"""

FAILS_AT_FIRST = """
from harness_locust.load_part import LoadPart

prepare = LoadPart.prepare

def fail_at_first(self):
    if not os.path.exists({mended!r}):
        raise RuntimeError("made up")
    prepare(self)

LoadPart.prepare = fail_at_first
"""

READS_LATE = """
from harness_locust import serving_watch

serving_watch.BOOKED_WITHIN_S = 3.0
"""

RARE = "error_rate < 0.0001%"
"""Too few requests are sent to decide that, however late the test is to end the load."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


def test_a_worker_that_fails_is_lost_from_then_on_and_not_waited_for(
    server: FakeServer, tmp_path: Path
) -> None:
    failing = patched_locustfile(tmp_path, FAILS)
    fleet = Fleet(
        tmp_path, *plan(server, tmp_path, *CLOSED), worker_cwd=tmp_path, locustfile=failing
    )
    said = fleet.end_when(lambda: "RuntimeError: made up" in fleet.said())
    assert "no last report in time" not in fleet.said(), said
    document = read(tmp_path / "histograms.json")
    assert sorted(one["lost"] for one in document["workers"]) == [False, True]


def test_an_objective_of_a_test_that_never_began_is_an_error(
    server: FakeServer, tmp_path: Path
) -> None:
    slow = patched_locustfile(tmp_path, NEVER_READY)
    asked = plan(server, tmp_path, "--objective", "p95 < 10 s", *CLOSED)
    fleet = Fleet(tmp_path, *asked, worker_cwd=tmp_path, locustfile=slow)
    code = fleet.end_when(lambda: "preparing" in (tmp_path / "worker-0.log").read_text())
    assert code == EnvironmentFailure.exit_code, fleet.said()
    told = ("nothing was measured: there is no verdict", "invalid: no request was measured")
    assert any(words in fleet.said() for words in told), fleet.said()


@pytest.mark.parametrize(
    ("run_time", "number"),
    [
        pytest.param("200s", signal.SIGTERM, id="terminated"),
        # The first answers come when the load is over: those in flight are waited for.
        pytest.param("2s", signal.SIGINT, id="interrupted as it drains"),
    ],
)
def test_a_timed_test_that_is_ended_early_is_judged_and_kept(
    tmp_path: Path, run_time: str, number: signal.Signals
) -> None:
    with FakeServer(Behaviour(constant(3.0))) as server:
        process = start(
            *("--headless", "--run-time", run_time, "--objective", RARE),
            *("--out", "run"),
            *(*plan(server, tmp_path), "--rate", "10", "--arrivals", "constant"),
            log=tmp_path / "log", cwd=tmp_path,
        )  # fmt: skip
        try:
            wait_until_served(server, 1)
            process.send_signal(number)
            code = process.wait(LIMIT_S)
        finally:
            end(process)
    said = (tmp_path / "log").read_text()
    assert code in {EXIT_UNDECIDED, EnvironmentFailure.exit_code}, said
    assert "Traceback" not in said
    assert said.count(f"Verdict on {RARE}") == 1
    assert (tmp_path / "histograms.json").is_file()
    (trial,) = read_run(tmp_path / "run").trials
    assert trial.requests > 0


def test_a_start_that_failed_on_the_page_is_followed_by_one_that_does_not(
    server: FakeServer, tmp_path: Path
) -> None:
    # Not by a count of their own: the second may hear of the end before it had to prepare anything.
    mended = tmp_path / "mended"
    locustfile = patched_locustfile(tmp_path, FAILS_AT_FIRST.format(mended=str(mended)))
    hosts = {"http": server.http, "grpc": server.grpc}
    site = Site(tmp_path, hosts, make_payloads(tmp_path), "m", locustfile=locustfile)
    try:
        site.wait_for_both()
        site.swarm(4)
        wait_until(lambda: "RuntimeError: made up" in site.log.read_text())
        assert not server.served
        wait_until(lambda: site.get("stats/requests")["state"] in {"ready", "stopped"})
        mended.touch()
        site.begin(4)
        wait_until_served(server, 50)
        site.stop()
    finally:
        site.close()


def test_a_verdict_is_final_once_all_of_the_test_was_read_and_judged(
    server: FakeServer, tmp_path: Path
) -> None:
    """Between the load's end and that the page used to say that no request was measured."""
    hosts = {"http": server.http, "grpc": server.grpc}
    late = patched_locustfile(tmp_path, READS_LATE)
    site = Site(tmp_path, hosts, make_payloads(tmp_path), "m", masters_locustfile=late)
    told: list[dict[str, Any]] = []

    def is_final() -> bool:
        told.append(site.get("serving/data.json"))
        return bool(told[-1]["shown"]["verdict"]["final"])

    try:
        site.wait_for_both()
        site.begin(4)
        wait_until(lambda: site.shown["totals"]["requests"] > 20)
        stopping = threading.Thread(target=site.stop)
        stopping.start()
        wait_until(is_final)
        stopping.join()
    finally:
        site.close()
    verdict = told[-1]["shown"]["verdict"]
    assert verdict["reasons"] != ["No request was measured."]
    # What is kept of the session is there by then.
    assert [one["decision"] for one in told[-1]["tests"]] == [verdict["decision"]]

"""Workers that hear late, stall or come back: what is told is right, or said not to be.

Every request that the server answered stands in the workers' own records (Parquet, by the kernel's
one clock): what the master tells of any stretch of time is compared with those.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import checkout, make_payloads
from locust_command import end, free_port, read, response_of, start
from locust_fleet import Fleet, plan, wait_until_served
from numpy.typing import NDArray
from web_rig import wait_until

from harness import hdr
from harness.runs.folder import read_run

LATE = """
import sys, time
sys.path.insert(0, {locustfiles!r})
from locustfile import *
from locust.runners import WorkerRunner

heard = WorkerRunner.handle_message

def hear(self, msg):
    if msg.type == "spawn":
        time.sleep(0.7)  # nothing in this process goes on
    heard(self, msg)

WorkerRunner.handle_message = hear
"""

ELSEWHERE = """
import sys, time
shown_here = time.monotonic_ns
time.monotonic_ns = lambda: shown_here() + {offset_ns}
sys.path.insert(0, {locustfiles!r})
from locustfile import *
import worker

worker.this_machine = lambda: "another"
"""
OFFSET_NS = 10**15


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


def completed_ns(records: Path) -> NDArray[np.int64]:
    """When each request ended, of all workers."""
    parts = [pq.read_table(file)["completed_ns"].to_numpy() for file in records.glob("*.parquet")]
    return np.concatenate(parts)


@pytest.mark.parametrize("load", [("--users", "4", "--spawn-rate", "4"), ("--rate", "120")])
def test_what_a_phase_holds_is_what_ended_in_it_though_a_worker_hears_late(
    server: FakeServer, tmp_path: Path, load: tuple[str, ...]
) -> None:
    late = tmp_path / "late.py"
    late.write_text(LATE.format(locustfiles=str(checkout() / "locustfiles")))
    records = tmp_path / "records"
    arguments = plan(server, tmp_path, "--records", str(records), "--run-time", "5s", *load)
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path, locustfile=late)
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    ended = completed_ns(records)
    told = {phase["name"]: phase["completed"] for phase in document["phases"]}
    for phase in document["phases"]:
        first_ns = document["start_monotonic_ns"] + phase["start_s"] * 1e9
        within = (ended >= first_ns) & (ended < first_ns + phase["duration_s"] * 1e9)
        if phase["name"] == "draining":
            within |= ended >= first_ns
        assert phase["completed"] == within.sum(), phase["name"]
    assert sum(told.values()) == len(ended) == len(server.served)
    assert told["measured"] > 50
    assert all(one["clock_error_s"] == 0 for one in document["workers"])


def test_a_worker_on_another_machine_is_counted_by_its_clock_to_within_what_is_known_of_it(
    server: FakeServer, tmp_path: Path
) -> None:
    """The first worker's clock is eleven days ahead."""
    elsewhere = tmp_path / "elsewhere.py"
    locustfiles = str(checkout() / "locustfiles")
    elsewhere.write_text(ELSEWHERE.format(offset_ns=OFFSET_NS, locustfiles=locustfiles))
    records = tmp_path / "records"
    asked = ["--records", str(records), "--users", "4", "--spawn-rate", "4", "--run-time", "5s"]
    fleet = Fleet(
        tmp_path, *plan(server, tmp_path, *asked), worker_cwd=tmp_path, locustfile=elsewhere
    )
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    start_ns = document["start_monotonic_ns"]
    shown = completed_ns(records)
    there = shown > start_ns + OFFSET_NS // 2
    assert 50 < there.sum() < len(shown)
    ended = np.where(there, shown - OFFSET_NS, shown)
    errors_s = sorted(one["clock_error_s"] for one in document["workers"])
    assert errors_s[0] == 0.0 < errors_s[1]
    slack_ns = 1e9 * errors_s[1] + 1
    (phase,) = [one for one in document["phases"] if one["name"] == "measured"]
    first_ns = start_ns + phase["start_s"] * 1e9
    last_ns = first_ns + phase["duration_s"] * 1e9
    surely = ((ended >= first_ns + slack_ns) & (ended < last_ns - slack_ns)).sum()
    perhaps = ((ended >= first_ns - slack_ns) & (ended < last_ns + slack_ns)).sum()
    assert 50 < surely <= phase["completed"] <= perhaps
    assert sum(one["completed"] for one in document["phases"]) == len(server.served)


def test_a_worker_that_stood_still_around_the_end_has_its_reports_taken_in(
    server: FakeServer, tmp_path: Path
) -> None:
    arguments = plan(server, tmp_path, "--users", "4", "--spawn-rate", "4", "--run-time", "6s")
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path)
    try:
        wait_until_served(server, 100)
        fleet.workers[0].send_signal(signal.SIGSTOP)
        fleet.wait_until_said("is gone; the test goes on")
        time.sleep(1.5)
        fleet.workers[0].send_signal(signal.SIGCONT)
    except BaseException:
        end(fleet.master, *fleet.workers)
        raise
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    assert hdr.total(response_of(document)) == len(server.served)
    assert [one["lost"] for one in document["workers"]] == [False, False]
    assert any("stalled for" in one for one in document["warnings"])


def test_the_verdict_on_a_test_with_workers_is_said_kept_and_the_exit_code(
    server: FakeServer, tmp_path: Path
) -> None:
    """The server takes 20 ms: no machine makes that 5."""
    asked = ["--objective", "p50 < 5 ms", "--out", "run", "--users", "2", "--spawn-rate", "2"]
    fleet = Fleet(
        tmp_path, *plan(server, tmp_path, *asked, "--run-time", "5s"), worker_cwd=tmp_path
    )
    code = fleet.wait()
    (stored,) = read_run(tmp_path / "run").trials
    assert code == {"fail": 3, "invalid": 5}[stored.decision], fleet.said()
    assert f"Verdict on p50 < 5 ms: {stored.decision}: " in fleet.said()


class Site:
    """A page with two workers, without a browser."""

    def __init__(self, folder: Path, server: FakeServer) -> None:
        self.port, bind = free_port(), str(free_port())
        self.log = folder / "master.log"
        self.payloads = make_payloads(folder)
        self.server = server
        self.master = start(
            "--master", "--master-bind-port", bind, "--web-host", "127.0.0.1",
            "--web-port", str(self.port), log=self.log,
        )  # fmt: skip
        self.workers = [
            start("--worker", "--master-port", bind, log=folder / f"worker-{one}.log")
            for one in range(2)
        ]
        wait_until(lambda: self.get("worker-count")["worker_count"] == 2)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def begin(self, users: int, spawn_rate: int = 100) -> None:
        form = (
            f"user_count={users}&spawn_rate={spawn_rate}&host=http://{self.server.http}&model=m"
            f"&payloads={self.payloads}&objective=p95 < 5 s"
        )
        self.post("swarm", form)

    def stop(self) -> None:
        """Returns when all was reported that will be."""
        self.post("stop", "")
        wait_until(lambda: self.shown["verdict"]["final"])

    def post(self, path: str, form: str) -> None:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, data=form.encode(), timeout=60) as answer:
            assert json.loads(answer.read())["success"]

    @property
    def shown(self) -> Any:
        """Of the newest test; its number is 0 while there is none."""
        return self.get("serving/data.json")["shown"] or {"number": 0, "totals": {"requests": 0}}


@pytest.fixture
def site(server: FakeServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, server)
    try:
        yield made
    finally:
        for one in made.workers:
            one.send_signal(signal.SIGCONT)
        end(made.master, *made.workers)


def in_flight_of(server: FakeServer, last: int) -> float:
    """How many requests the server had in its hands on average, of the last so many."""
    served = sorted(server.served, key=lambda one: one.answered_ns)[-last:]
    length_ns = served[-1].answered_ns - served[0].received_ns
    return sum(one.answered_ns - one.received_ns for one in served) / length_ns


def test_a_worker_lost_over_the_end_is_named_with_what_is_missing_and_is_there_for_the_next_test(
    server: FakeServer, site: Site
) -> None:
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 100)
    site.workers[0].send_signal(signal.SIGSTOP)
    site.stop()
    first = site.shown
    assert first["verdict"]["decision"] == "invalid"
    assert any("was lost" in one for one in first["verdict"]["reasons"]), first["verdict"]
    assert sorted(one["lost"] for one in first["generators"]) == [False, True]

    site.workers[0].send_signal(signal.SIGCONT)
    wait_until(lambda: "which is over: not counted" in site.log.read_text())
    wait_until(lambda: site.get("worker-count")["worker_count"] == 2)
    site.begin(4)
    wait_until(lambda: site.shown["number"] == 2 and site.shown["totals"]["requests"] > 200)
    second = site.shown
    assert [one["lost"] for one in second["generators"]] == [False, False]
    assert 3.0 < in_flight_of(server, 150) <= 4.01
    site.stop()


def test_a_worker_that_comes_back_in_the_middle_of_the_next_test_takes_its_part(
    server: FakeServer, site: Site
) -> None:
    """The first test leaves it standing still; the second begins without it."""
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 50)
    site.workers[0].send_signal(signal.SIGSTOP)
    site.stop()
    site.begin(4)
    wait_until(lambda: site.shown["number"] == 2 and site.shown["totals"]["requests"] > 200)
    assert 3.0 < in_flight_of(server, 150) <= 4.01, "the other worker runs all of them"
    assert len(site.shown["generators"]) == 1

    site.workers[0].send_signal(signal.SIGCONT)
    wait_until(lambda: len(site.shown["generators"]) == 2)
    wait_until(lambda: site.get("stats/requests")["user_count"] == 4)
    before = len(server.served)
    wait_until(lambda: len(server.served) > before + 300)
    assert 3.0 < in_flight_of(server, 150) <= 4.01
    seen = site.shown["series"]["at_s"]
    assert seen
    site.stop()


def test_the_page_moves_every_second_with_workers(site: Site) -> None:
    """Numbers that change once per second change more often than those that do every third."""
    site.begin(2)
    wait_until(lambda: site.shown["totals"]["requests"] > 20)
    settled, deadline_s = set(), time.monotonic() + 60
    while len(settled) < 8 and time.monotonic() < deadline_s:
        settled.add(len(site.shown["series"]["at_s"]))
        time.sleep(0.2)
    steps = np.diff(sorted(settled))
    assert np.median(steps) == 1
    site.stop()


def test_a_test_that_is_stopped_before_its_users_have_started_says_that_nothing_was_measured(
    server: FakeServer, site: Site
) -> None:
    site.begin(1000, spawn_rate=1)
    wait_until_served(server, 50)
    site.stop()
    verdict = site.shown["verdict"]
    assert (verdict["decision"], verdict["reasons"]) == ("invalid", ["No request was measured."])
    assert [one["name"] for one in site.shown["phases"]] == ["ramp-up", "draining"]
    document = site.get("hdr-histograms.json")
    assert hdr.total(response_of(document)) == len(server.served)

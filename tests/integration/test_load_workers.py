"""Workers that hear late, stall or come back: what is told is right, or said not to be.

Every request that the server answered stands in the workers' own records (Parquet, by the kernel's
one clock): what the master tells of any stretch of time is compared with those.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_server import Behaviour, FakeServer, constant
from load_rig import checkout, make_payloads, wait_until, wait_until_stopped
from locust_command import LIMIT_S, end, interrupt, read, response_of, served
from locust_fleet import (
    CLOSED,
    Fleet,
    master_that_waits,
    patched_locustfile,
    plan,
    wait_until_served,
)
from locust_site import Site
from numpy.typing import NDArray

from harness import hdr
from harness.errors import EnvironmentFailure
from harness.runs.folder import read_run
from tests.stored_records import histogram_of_records

LATE = """
from locust.runners import WorkerRunner

heard = WorkerRunner.handle_message

def hear(self, msg):
    if msg.type == "spawn":
        time.sleep(0.7)  # nothing in this process goes on
    if msg.type == "harness_need":
        {asked_for_records}
    heard(self, msg)

WorkerRunner.handle_message = hear
"""

SENDS_LATE = "gevent.sleep(3.0)  # longer than the master takes to leave"
DIES = "os._exit(1)"

ELSEWHERE = """
import sys, time
shown_here = time.monotonic_ns
time.monotonic_ns = lambda: shown_here() + {offset_ns}
sys.path.insert(0, {locustfiles!r})
from locustfile import *
import harness_locust.hub_worker as worker

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


def late_worker(folder: Path, asked_for_records: str) -> Path:
    """A locustfile whose worker hears of users late, and does so when the master wants records."""
    return patched_locustfile(folder, LATE.format(asked_for_records=asked_for_records))


OPEN = ("--rate", "120", "--arrivals", "constant", "--run-time", "2s")


@pytest.mark.parametrize(
    "load",
    [pytest.param(CLOSED, id="closed", marks=pytest.mark.slow), pytest.param(OPEN, id="open")],
)
def test_what_a_phase_holds_is_what_ended_in_it_though_a_worker_hears_late(
    server: FakeServer, tmp_path: Path, load: tuple[str, ...]
) -> None:
    late = late_worker(tmp_path, SENDS_LATE)
    records = tmp_path / "records"
    arguments = plan(server, tmp_path, "--records", str(records), *load)
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path, locustfile=late)
    if load is not OPEN:
        # Or all could be over before the late worker's users run: what is measured begins then.
        fleet.wait_until_said("All users spawned", "Spawning is complete")
        before = len(server.served)
        code = fleet.end_when(lambda: len(server.served) >= before + 400)
    else:
        code = fleet.wait()
    assert code == 0, fleet.said()
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
    assert len(ended) == 240 if load is OPEN else told["measured"] > 0
    assert all(one["clock_error_s"] == 0 for one in document["workers"])


@pytest.mark.slow
def test_records_that_do_not_come_are_told_and_end_in_an_error(
    server: FakeServer, tmp_path: Path
) -> None:
    arguments = plan(server, tmp_path, "--records", str(tmp_path / "records"), *OPEN)
    fleet = Fleet(
        tmp_path, *arguments, worker_cwd=tmp_path,
        locustfile=late_worker(tmp_path, DIES),
        masters_locustfile=master_that_waits(tmp_path, seconds=0.5),
    )  # fmt: skip
    assert fleet.wait() == EnvironmentFailure.exit_code, fleet.said()
    assert "its records did not come" in fleet.said()
    assert len(list((tmp_path / "records").glob("*.parquet"))) == 1


def test_a_worker_on_another_machine_is_counted_by_its_clock_to_within_what_is_known_of_it(
    server: FakeServer, tmp_path: Path
) -> None:
    """The first worker's clock is eleven days ahead."""
    elsewhere = tmp_path / "elsewhere.py"
    locustfiles = str(checkout() / "locustfiles")
    elsewhere.write_text(ELSEWHERE.format(offset_ns=OFFSET_NS, locustfiles=locustfiles))
    records = tmp_path / "records"
    asked = ["--records", str(records), *CLOSED]
    fleet = Fleet(
        tmp_path, *plan(server, tmp_path, *asked), worker_cwd=tmp_path, locustfile=elsewhere
    )
    assert fleet.end_when(lambda: len(server.served) >= 400) == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    start_ns = document["start_monotonic_ns"]
    shown = completed_ns(records)
    there = shown > start_ns + OFFSET_NS // 2
    assert 0 < there.sum() < len(shown)
    ended = np.where(there, shown - OFFSET_NS, shown)
    errors_s = sorted(one["clock_error_s"] for one in document["workers"])
    assert errors_s[0] == 0.0 < errors_s[1]
    slack_ns = 1e9 * errors_s[1] + 1
    (phase,) = [one for one in document["phases"] if one["name"] == "measured"]
    first_ns = start_ns + phase["start_s"] * 1e9
    last_ns = first_ns + phase["duration_s"] * 1e9
    surely = ((ended >= first_ns + slack_ns) & (ended < last_ns - slack_ns)).sum()
    perhaps = ((ended >= first_ns - slack_ns) & (ended < last_ns + slack_ns)).sum()
    assert surely <= phase["completed"] <= perhaps
    assert sum(one["completed"] for one in document["phases"]) == len(server.served)


@pytest.mark.slow
def test_a_worker_that_stood_still_around_the_end_has_its_reports_taken_in(
    server: FakeServer, tmp_path: Path
) -> None:
    patient = master_that_waits(tmp_path, seconds=LIMIT_S)
    arguments = plan(server, tmp_path, *CLOSED)
    fleet = Fleet(tmp_path, *arguments, worker_cwd=tmp_path, masters_locustfile=patient)
    try:
        wait_until_served(server, 100)
        fleet.workers[0].send_signal(signal.SIGSTOP)
        fleet.wait_until_said("is gone; the test goes on")
        interrupt(fleet.master)
        wait_until_at_rest(server)
        fleet.workers[0].send_signal(signal.SIGCONT)
    except BaseException:
        end(fleet.master, *fleet.workers)
        raise
    assert fleet.wait() == 0, fleet.said()
    document = read(tmp_path / "histograms.json")
    assert hdr.total(response_of(document)) == len(server.served)
    assert [one["lost"] for one in document["workers"]] == [False, False]
    assert any("stood still for" in one for one in document["warnings"])


def wait_until_at_rest(server: FakeServer) -> None:
    """Until nothing more comes: the other worker has heard of the end."""
    seen = -1
    while seen != (seen := len(server.served)):
        time.sleep(0.5)


def test_the_verdict_on_a_test_with_workers_is_said_kept_and_the_exit_code(
    server: FakeServer, tmp_path: Path
) -> None:
    """The server takes 20 ms: no machine makes that 5, and a slow one takes longer to tell."""
    for lasting_s in (2.0, 8.0, 32.0):
        server.served.clear()
        folder = tmp_path / f"{lasting_s:.0f}"
        folder.mkdir()
        asked = ["--objective", "p50 < 5 ms", "--out", "run", *CLOSED]
        fleet = Fleet(folder, *plan(server, folder, *asked), worker_cwd=folder)
        enough = served(server, 300, for_s=lasting_s)
        code = fleet.end_when(lambda enough=enough: enough(""))
        (stored,) = read_run(folder / "run").trials
        if stored.decision != "undecided":
            break
    assert code == {"fail": 3, "invalid": 5}[stored.decision], fleet.said()
    assert f"Verdict on p50 < 5 ms: {stored.decision}: " in fleet.said()


@pytest.fixture(scope="module")
def site_server() -> Iterator[FakeServer]:
    with FakeServer(Behaviour(constant(0.02))) as made:
        yield made


@pytest.fixture(scope="module")
def shared_site(
    site_server: FakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Started once: its processes outlive each test and what happens in it."""
    folder = tmp_path_factory.mktemp("site")
    hosts = {"http": site_server.http, "grpc": site_server.grpc}
    made = Site(folder, hosts, make_payloads(folder), "m")
    try:
        made.wait_for_both()
        yield made
    finally:
        made.close()


@pytest.fixture
def site(shared_site: Site, site_server: FakeServer) -> Iterator[Site]:
    shared_site.wait_for_both()
    site_server.begin(Behaviour(constant(0.02)))
    yield shared_site
    shared_site.wake()
    if not shared_site.shown.get("verdict", {"final": True})["final"]:
        shared_site.stop()


def test_the_pages_workers_send_nothing_once_their_master_is_killed(
    server: FakeServer, tmp_path: Path
) -> None:
    """They notice within 2 s, on a machine that has time for them; Locust itself after a minute."""
    hosts = {"http": server.http, "grpc": server.grpc}
    site = Site(tmp_path, hosts, make_payloads(tmp_path), "m")
    try:
        site.wait_for_both()
        site.begin(4)
        wait_until_served(server, 50)
        killed_ns = time.monotonic_ns()
        site.master.kill()
        wait_until_at_rest(server)
        assert all(one.poll() is None for one in site.workers)
        assert server.served[-1].received_ns - killed_ns < 20e9
    finally:
        site.close()


def wait_until_in_flight(server: FakeServer, count: int) -> None:
    """Until so many requests are in the server's hands where it answers nobody, and no more.

    While Locust moves users to a worker that came back there are a few more: what a user had sent
    whom it ended stays with the server, and who takes his place sends another. They go once the
    server answers; a user too many would not.
    """

    def so_many() -> bool:
        server.hold()
        wait_until(lambda: server.held >= count)
        time.sleep(0.3)  # for one that should not come
        held = server.held
        server.release()
        return held == count

    wait_until(so_many)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_masters_histogram_is_the_union_of_all_requests(
    site: Site, site_server: FakeServer, tmp_path: Path, protocol: str
) -> None:
    site.begin(5, protocol, records=str(tmp_path))
    wait_until(lambda: len(site_server.served) > 200)
    site.stop()
    wait_until(lambda: len(list(tmp_path.glob("*.parquet"))) == 2)
    document = site.get("hdr-histograms.json")
    merged = response_of(document)
    assert merged == histogram_of_records(tmp_path)
    assert hdr.total(merged) == len(site_server.served)
    assert len(document["workers"]) == 2
    # Locust's own table, which its page is told two seconds late.
    wait_until(
        lambda: site.get("stats/requests")["stats"][-1]["num_requests"] == len(site_server.served)
    )


def test_an_open_loop_is_split_over_the_workers_exactly(
    site: Site, site_server: FakeServer, tmp_path: Path
) -> None:
    site.begin(1, records=str(tmp_path), rate=100, arrivals="constant", run_time="2s")
    wait_until(lambda: site.shown["verdict"]["final"])
    wait_until(lambda: len(list(tmp_path.glob("*.parquet"))) == 2)
    scheduled_ns = [pq.read_table(one)["scheduled_ns"] for one in tmp_path.glob("*.parquet")]
    for mine in scheduled_ns:
        gaps_ns = np.diff(np.sort(mine.to_numpy()))
        assert len(gaps_ns) == 99
        assert (abs(gaps_ns - 20_000_000) <= 1000).all()
    merged = response_of(site.get("hdr-histograms.json"))
    assert merged == histogram_of_records(tmp_path)
    assert hdr.total(merged) == len(site_server.served) == 200


@pytest.mark.slow
def test_a_worker_lost_over_the_end_is_named_with_what_is_missing_and_is_there_for_the_next_test(
    site: Site,
    site_server: FakeServer,
) -> None:
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 100)
    site.workers[0].send_signal(signal.SIGSTOP)
    wait_until_stopped(site.workers[0].pid)
    site.stop()
    first = site.shown
    assert first["verdict"]["decision"] == "invalid"
    assert any("was lost" in one for one in first["verdict"]["reasons"]), first["verdict"]
    assert sorted(one["lost"] for one in first["generators"]) == [False, True]

    site.workers[0].send_signal(signal.SIGCONT)
    wait_until(lambda: "which is over: not counted" in site.log.read_text())
    site.wait_for_both()
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 20)
    wait_until(lambda: [one["lost"] for one in site.shown["generators"]] == [False, False])
    wait_until_in_flight(site_server, 4)
    site.stop()


@pytest.mark.slow
def test_a_worker_that_comes_back_in_the_middle_of_the_next_test_takes_its_part(
    site: Site,
    site_server: FakeServer,
) -> None:
    """The first test leaves it standing still; the second begins without it."""
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 50)
    site.workers[0].send_signal(signal.SIGSTOP)
    wait_until_stopped(site.workers[0].pid)
    site.stop()
    wait_until(lambda: site.workers_there() == 1)
    site.begin(4)
    wait_until(lambda: site.shown["totals"]["requests"] > 20)
    wait_until_in_flight(site_server, 4)  # the other worker runs all of them
    assert len(site.shown["generators"]) == 1

    site.workers[0].send_signal(signal.SIGCONT)
    wait_until(lambda: len(site.shown["generators"]) == 2)
    wait_until(lambda: site.get("stats/requests")["user_count"] == 4)
    before = len(site_server.served)
    wait_until(lambda: len(site_server.served) > before + 50)
    wait_until_in_flight(site_server, 4)
    wait_until(lambda: site.shown["series"]["at_s"])
    site.stop()


def test_the_page_moves_every_second_with_workers(site: Site) -> None:
    """Where numbers changed every third second, no two that follow each other were ever seen."""
    site.begin(2)
    wait_until(lambda: site.shown["totals"]["requests"] > 20)
    seen: set[int] = set()

    def moved_by_one() -> bool:
        seen.add(len(site.shown["series"]["at_s"]))
        return int((np.diff(sorted(seen)) == 1).sum()) >= 3

    wait_until(moved_by_one)
    site.stop()


def test_a_test_that_is_stopped_before_its_users_have_started_says_that_nothing_was_measured(
    site: Site,
    site_server: FakeServer,
) -> None:
    site.begin(1000, spawn_rate=1)
    wait_until_served(site_server, 50)
    site.stop()
    verdict = site.shown["verdict"]
    assert (verdict["decision"], verdict["reasons"]) == ("invalid", ["No request was measured."])
    assert [one["name"] for one in site.shown["phases"]] == ["ramp-up", "draining"]
    document = site.get("hdr-histograms.json")
    assert hdr.total(response_of(document)) == len(site_server.served)

"""The page against Triton's own count, over many starts and stops: nothing lost, or told twice.

Two workers, some of the time beside busy loops, some of the time with one of them frozen over the
stop: whatever a worker had not told by then is told all the same, in the test that it belongs to.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from load_rig import make_payloads, wait_until
from locust_command import LIMIT_S
from locust_site import Site
from tiny_model import TINY_MODEL, make_tiny_variant

from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient

pytestmark = pytest.mark.triton
MOST_USERS = 12
LEAST_PER_S = 40
"""A round goes on until so many times its seconds were answered, however slow the machine is."""


@dataclass(frozen=True)
class Round:
    """One start and stop."""

    users: int
    spawn_rate: int
    protocol: str
    rate: int
    """Requests a second of an open loop; 0: a closed one."""
    more_users: int
    """To so many the number is changed in the middle; 0: it is not."""
    lasts_s: float
    busy: bool
    frozen_s: float
    """How long a worker stands still over the stop."""


def drawn(place: int, draw: random.Random) -> Round:
    """Every kind of start and stop comes in every six rounds."""
    is_open = place % 6 == 4
    return Round(
        users=1 if is_open else draw.randint(1, MOST_USERS),
        spawn_rate=draw.choice([3, 100]),
        protocol=draw.choice(["http", "grpc"]),
        rate=draw.randint(20, 200) if is_open else 0,
        more_users=draw.randint(1, MOST_USERS) if place % 6 == 1 else 0,
        lasts_s=draw.uniform(0.0, 2.0),
        busy=place % 3 == 2,
        frozen_s=draw.uniform(0.1, 4.0) if place % 2 else 0.0,
    )


@pytest.fixture(scope="module")
def triton(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedTriton]:
    folder = tmp_path_factory.mktemp("triton")
    make_tiny_variant(folder / "repository")
    log = folder / "triton.log"
    with EmbeddedTriton(server_environment, folder / "repository", log_file=log) as server:
        with TritonClient(server.endpoint) as client:
            client.load(TINY_MODEL)
        yield server


@pytest.fixture(scope="module")
def site(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    hosts = {"http": triton.endpoint.http, "grpc": triton.endpoint.grpc}
    made = Site(folder, hosts, make_payloads(folder), TINY_MODEL)
    try:
        made.wait_for_both()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "rounds", [pytest.param(6, id="short"), pytest.param(200, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(7200)
def test_tritons_count_and_ours_are_the_same_over_starts_and_stops(
    site: Site, triton: EmbeddedTriton, rounds: int
) -> None:
    draw = random.Random(15)
    told_of_all = 0
    for place in range(rounds):
        asked = drawn(place, draw)
        site.wait_for_both()
        before = counted(triton)
        with busy_loops(asked.busy):
            live(site, asked, place % 2, lambda before=before: counted(triton) - before)
        document, shown = site.get("hdr-histograms.json"), site.shown
        told = sum(answered(phase) + failed(phase) for phase in document["phases"])
        told_of_all += told
        wait_until(lambda before=before, told=told: counted(triton) - before >= told)
        assert told == counted(triton) - before, (place, asked, document["warnings"])
        assert not any(failed(phase) for phase in document["phases"]), (place, asked)
        assert not any(one["lost"] for one in document["workers"]), (place, asked)
        # What the page itself read of the server: by its own clock, so that what was in flight at
        # either end of its reading may stand on one side alone.
        if (polled := shown["server"]["requests"]) is not None:
            assert abs(polled - told) <= 2 * MOST_USERS, (place, asked)
    assert told_of_all > 20 * rounds


def test_users_that_change_within_the_measurement_make_it_invalid(site: Site) -> None:
    def measured() -> bool:
        shown = site.shown
        phases = [one["name"] for one in shown["phases"]]
        return "measured" in phases and len(shown["series"]["at_s"]) > 1

    site.wait_for_both()
    site.begin(2)
    wait_until(measured)
    site.swarm(5)
    wait_until(lambda: site.get("stats/requests")["user_count"] == 5)
    site.stop()
    verdict = site.shown["verdict"]
    assert verdict["decision"] == "invalid"
    assert "2 users became 5 while the test was measured" in " ".join(verdict["reasons"])
    site.begin(5)
    wait_until(measured)
    site.stop()
    assert "became" not in " ".join(site.shown["verdict"]["reasons"])


def live(site: Site, asked: Round, worker: int, answered_so_far: Callable[[], int]) -> None:
    """From the start to the moment that all was reported."""
    load = {"rate": asked.rate} if asked.rate else {"spawn_rate": asked.spawn_rate}
    site.begin(asked.users, asked.protocol, **load)
    time.sleep(asked.lasts_s / 2)
    if asked.more_users:
        site.swarm(asked.more_users, asked.protocol, spawn_rate=asked.spawn_rate)
    time.sleep(asked.lasts_s / 2)
    wait_until(lambda: answered_so_far() >= LEAST_PER_S * asked.lasts_s)
    waker = threading.Timer(asked.frozen_s, site.wake)
    if asked.frozen_s:
        site.workers[worker].send_signal(signal.SIGSTOP)
        waker.start()
    try:
        site.stop()
    finally:
        waker.cancel()
        site.wake()


def answered(phase: dict[str, Any]) -> int:
    return int(phase["ok"]["response"]["count"])


def failed(phase: dict[str, Any]) -> int:
    return sum(phase["failures"].values())


def counted(triton: EmbeddedTriton) -> int:
    """Requests that Triton itself has answered well."""
    with TritonClient(triton.endpoint) as client:
        statistics = client.statistics(TINY_MODEL) or {}
    return int(statistics["inference_stats"]["success"]["count"])


@contextmanager
def busy_loops(wanted: bool) -> Iterator[None]:
    """Two processes that leave nobody a core of his own."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * wanted)
    ]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait(LIMIT_S)

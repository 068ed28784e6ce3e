"""Trials on the real Triton of which something else than the model set the numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from burning_model import MODEL, ROWS, BurningServer, burning_server, write_version
from locust_command import locust
from prometheus_process import PrometheusProcess
from tiny_model import counters_at_rest

from harness.errors import EXIT_ENVIRONMENT
from harness.load.generators.driver import TrialWatcher
from harness.load.generators.messages import LoadProgress
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.transports.address import parse_target
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.external.http import HttpServer
from harness.telemetry.prometheus.client import Prometheus
from harness.telemetry.readings import DirectReadings
from harness.types import Decision, LoadMode, LoadResult
from harness.types.limits import LOST_SHARE, lost_share

pytestmark = pytest.mark.triton
BURN_S = 0.02
CACHE = {"response_cache": {"enable": True}}
FIRST_ANSWERS = 4 * ROWS
"""What a cache leaves to the model of any closed loop of four: each of them may ask for a row
before its first answer is there."""
ALL_VERSIONS = {"version_policy": {"all": {}}}
LOW_VERSIONS = {"version_policy": {"specific": {"versions": [1, 9]}}}
STEADY: dict[str, Any] = {"load_mode": LoadMode.OPEN, "rate_per_s": 60.0, "concurrency": 64}
"""What a cache answers without work; as fast as it can, it would take both cores."""


@pytest.fixture(scope="module")
def burning(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BurningServer]:
    folder = tmp_path_factory.mktemp("burning")
    with burning_server(
        server_environment, folder, burn_s=BURN_S, response_cache_bytes=1 << 20
    ) as made:
        write_version(folder / "repository", 9, burn_s=BURN_S)
        write_version(folder / "repository", 10, burn_s=BURN_S)
        yield made


@pytest.fixture(autouse=True)
def unloaded(burning: BurningServer) -> Iterator[None]:
    yield
    burning.client.unload(MODEL)


def test_a_cached_model_is_not_measured(burning: BurningServer) -> None:
    """20 ms of computing read as a tenth of one: the model saw the first answers alone."""
    burning.load(**CACHE)
    result = burning.measure()
    assert (result.valid, result.decision) == (False, Decision.INVALID)
    assert "response cache answered" in result.invalid_reason
    assert result.server.cache_hits is not None
    assert result.server.requests is not None
    assert result.server.cache_hits > 0
    computed = result.server.requests - result.server.cache_hits
    assert computed == result.server.inferences
    assert computed <= FIRST_ANSWERS
    assert result.server.compute_ms is None or result.server.compute_ms > 1000 * BURN_S * 0.9
    assert result.client_ms is not None

    wanted = burning.measure(cached_answers=True, duration_s=0.5)
    assert wanted.server.cache_hits is not None
    assert burning.client.statistics(MODEL)["inference_count"] <= FIRST_ANSWERS
    assert "response cache" not in wanted.invalid_reason


def test_without_a_cache_nothing_is_said_of_one(burning: BurningServer) -> None:
    burning.load()
    result = burning.measure()
    assert result.server.cache_hits == 0
    assert "cache" not in result.invalid_reason
    assert result.server.compute_ms is not None
    assert result.server.compute_ms > 1000 * BURN_S * 0.9


@contextmanager
def counted_loads(burning: BurningServer) -> Iterator[list[tuple[int, int]]]:
    """Answers to each load of the block, from its warm-up to its drain: of clients and server."""
    loads: list[tuple[int, int]] = []
    run = LoadGenerators.run

    def answered() -> int:
        return int(counters_at_rest(burning.client, MODEL)["inference_stats"]["success"]["count"])

    def counting(
        generators: LoadGenerators,
        job: LoadJob,
        watcher: TrialWatcher,
        *,
        listen: Callable[[int, LoadProgress], None],
        **more: Any,
    ) -> LoadResult:
        before, seen = answered(), list[LoadProgress]()

        def note(worker: int, report: LoadProgress) -> None:
            seen.append(report)
            listen(worker, report)

        load = run(generators, job, watcher, listen=note, **more)
        by_clients = sum(one.completed for report in seen for one in report.slices)
        loads.append((by_clients, answered() - before))
        return load

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoadGenerators, "run", counting)
        yield loads


def test_the_version_that_answers_is_the_one_that_is_read(burning: BurningServer) -> None:
    """Three are loaded; the highest answers, though 9 comes after 10 in the alphabet."""
    burning.load(**ALL_VERSIONS)
    with counted_loads(burning) as loads:
        result = burning.measure()
    assert result.server.version == "10"
    assert result.server.exchanged == ""
    ((by_clients, by_server),) = loads
    assert by_server == by_clients
    assert result.server.requests is not None
    assert 0 < result.server.requests <= by_server
    over_http = HttpServer(parse_target(burning.server.endpoint.http))
    for client in (burning.client, over_http):
        statistics = client.statistics(MODEL)
        assert statistics["version"] == "10"
        assert statistics["inference_stats"]["success"]["count"] >= result.server.requests


def test_another_version_inside_the_window_makes_a_trial_invalid(
    burning: BurningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded just before the window's end, however long that takes."""
    burning.load(**LOW_VERSIONS)
    close = DirectReadings.close

    def load_and_close(window: DirectReadings) -> None:
        burning.load(**ALL_VERSIONS)
        close(window)

    monkeypatch.setattr(DirectReadings, "close", load_and_close)
    result = burning.measure()
    assert not result.valid
    assert result.server.exchanged == "version 9 answered first, and version 10 last"
    assert "more than one version of the model answered" in result.invalid_reason
    assert result.server.requests is None


@pytest.mark.slow
def test_a_prometheus_tells_of_the_version_that_answers_and_of_its_cache(
    burning: BurningServer, tmp_path: Path
) -> None:
    """Two are loaded beside version 1, whose counters are the higher ones, warm-up apart."""
    burning.load(version_policy={"specific": {"versions": [1]}}, **CACHE)
    burning.measure(duration_s=1.0)
    burning.load(**ALL_VERSIONS, **CACHE)
    target = burning.server.endpoint.metrics.split("/")[2]
    with PrometheusProcess(tmp_path / "p", {"triton": target}, interval="500ms") as scraping:
        scraping.wait_for('nv_inference_request_success{version="10"}')
        watched = burning.watched_by(Prometheus(scraping.url))
        there = watched.measure(**STEADY, duration_s=4.0).server
    direct = burning.client.statistics(MODEL)["inference_stats"]
    assert not there.problem, there.problem
    assert (there.version, there.exchanged) == ("10", "")
    assert there.requests is not None
    assert 0 < there.requests <= direct["success"]["count"] + there.requests_uncertainty
    # A request is answered by the cache or computed. How many are computed first, while the cache
    # still fills, depends on how many are in flight.
    assert there.cache_hits is not None
    assert there.inferences is not None
    assert 0 < there.cache_hits <= direct["cache_hit"]["count"] + there.requests_uncertainty
    answered = there.cache_hits + there.inferences
    assert abs(answered - there.requests) <= there.requests_uncertainty


@pytest.mark.parametrize("wanted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_locust_says_that_the_cache_answered(
    burning: BurningServer, tmp_path: Path, wanted: bool
) -> None:
    burning.load(**CACHE)
    done = locust(
        *("--host", f"http://{burning.server.endpoint.http}", "--model", MODEL),
        *("--payloads", str(burning.payloads), "--rate", "60"),
        *("--run-time", "6s", "--objective", "p95 < 10 s"),
        *(("--response-cache",) if wanted else ()),
    )
    said = done.stdout + done.stderr
    if wanted:
        assert "response cache answered" not in said
    else:
        assert done.returncode == EXIT_ENVIRONMENT, said
        assert "the response cache answered" in said


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Each in a session of its own, because Linux may first divide a core between sessions."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_others_on_its_cores_make_a_slow_model_s_trial_invalid(burning: BurningServer) -> None:
    """How much of its time that is, is held against host figures that are made up: test_limits."""
    burning.load()
    with busy_loops(4):
        result = burning.measure(concurrency=1, duration_s=4.0)
    assert not result.valid
    assert "the server was short of a core" in result.invalid_reason
    lost = lost_share(result.host, result.in_flight_mean)
    assert lost is not None
    assert lost > LOST_SHARE
    assert result.host.foreign_cpu is not None
    assert result.host.foreign_cpu > 0.5

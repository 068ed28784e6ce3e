"""A model's figures out of Prometheus' raw samples; the queries, against a scripted answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from harness.errors import UsageError
from harness.telemetry.prometheus.client import Prometheus, QueryFailure, Series, parse_prometheus
from harness.telemetry.prometheus.readings import (
    ScrapedReadings,
    await_scrape,
    server_metrics,
    without_vanished,
)
from harness.types import HostMetrics, ServerMetrics

SECONDS = tuple(float(at) for at in range(12))


def counter(name: str, a_second: float, **labels: str) -> Series:
    values = tuple(a_second * at for at in SECONDS)
    return Series({"__name__": name, "model": "m", **labels}, SECONDS, values)


def of_triton(**labels: str) -> list[Series]:
    return [
        counter("nv_inference_request_success", 100, **labels),
        counter("nv_inference_request_failure", 0, reason="OTHER", **labels),
        counter("nv_inference_request_failure", 2, reason="REJECTED", **labels),
        counter("nv_inference_count", 400, **labels),
        counter("nv_inference_exec_count", 50, **labels),
        counter("nv_inference_queue_duration_us", 300_000, **labels),
        counter("nv_inference_compute_input_duration_us", 10_000, **labels),
        counter("nv_inference_compute_infer_duration_us", 500_000, **labels),
        counter("nv_inference_compute_output_duration_us", 20_000, **labels),
    ]


def test_every_figure_of_triton_but_the_batch_histogram_is_there() -> None:
    found = server_metrics(of_triton(), 1.3, 9.8)
    assert found.requests == 850
    assert found.inferences == 3400
    assert found.executions == 425
    assert found.batch_mean == pytest.approx(8)
    assert found.failures == {"REJECTED": 17}
    assert found.queue_ms == pytest.approx(3)
    assert found.compute_ms == pytest.approx(5.3)
    assert found.batch_sizes == {}
    assert found.cache_ms is None, "nothing is told of a cache"
    assert 0 < found.requests_uncertainty <= 200
    assert not found.problem


def test_the_highest_version_alone_is_read() -> None:
    """Version 9 is loaded beside it, and somebody asks it by name."""
    other = [counter("nv_inference_request_success", 70, version="9")]
    found = server_metrics([*other, *of_triton(version="10")], 1.3, 9.8)
    assert (found.requests, found.version) == (850, "10")
    assert found.compute_ms == pytest.approx(5.3)


def test_a_version_that_appears_inside_the_window_is_told() -> None:
    late = Series(
        {"__name__": "nv_inference_request_success", "model": "m", "version": "2"},
        SECONDS[6:],
        tuple(100.0 * at for at in range(6)),
    )
    found = server_metrics([*of_triton(version="1"), late], 1.3, 9.8)
    assert found == ServerMetrics(
        version="2", exchanged="version 1 answered first, and version 2 last"
    )
    assert server_metrics([*of_triton(version="1"), late], 1.3, 4.9).exchanged == ""


def test_servers_with_different_versions_are_told() -> None:
    series = [*of_triton(instance="a", version="1"), *of_triton(instance="b", version="2")]
    found = server_metrics(series, 1.3, 9.8)
    assert found.exchanged == "versions 1 and 2 answered, each at another server"


def test_what_the_cache_answered_is_not_computed() -> None:
    cache = [
        counter("nv_cache_num_hits_per_model", 80, version="1"),
        counter("nv_cache_num_misses_per_model", 20, version="1"),
        counter("nv_cache_hit_duration_per_model", 800, version="1"),
        counter("nv_cache_miss_duration_per_model", 200, version="1"),
    ]
    found = server_metrics([*of_triton(version="1"), *cache], 1.3, 9.8)
    assert (found.cache_hits, found.cache_misses) == (680, 170)
    assert found.queue_ms == pytest.approx(3)
    assert found.compute_ms == pytest.approx(5.3 * 5)
    assert found.cache_ms == pytest.approx(0.01)


def test_several_servers_that_were_asked_for_are_summed() -> None:
    found = server_metrics([*of_triton(instance="a"), *of_triton(instance="b")], 1.3, 9.8)
    assert found.requests == 1700
    assert found.queue_ms == pytest.approx(3)


def test_a_reset_leaves_nothing_but_itself() -> None:
    series = of_triton()
    fallen = Series(series[0].labels, SECONDS, (*series[0].values[:5], *range(7)))
    assert server_metrics([fallen, *series[1:]], 1.3, 9.8) == ServerMetrics(counters_reset=True)


def test_a_short_window_is_missing_not_zero() -> None:
    found = server_metrics(of_triton(), 3.2, 3.9)
    assert found.requests is None
    assert found.queue_ms is None
    assert "holds no scrape" in found.problem


def test_a_model_that_prometheus_does_not_know_is_missing() -> None:
    assert "has no nv_inference_request_success" in server_metrics([], 0.0, 9.0).problem


def test_a_failure_that_first_shows_inside_the_window_began_at_zero() -> None:
    late = Series(
        {"__name__": "nv_inference_request_failure", "reason": "BACKEND"}, (6.0, 7.0), (3.0, 4.0)
    )
    assert server_metrics([*of_triton(), late], 1.3, 7.5).failures["BACKEND"] == 4


def test_the_scrape_behind_the_window_is_waited_for() -> None:
    known = [1.0, 2.0, 3.0]
    asked = 0

    def ask() -> list[Series]:
        nonlocal asked
        asked += 1
        if asked == 3:
            known.append(4.0)
        labels = {"__name__": "nv_inference_request_success"}
        return [Series(labels, tuple(known), tuple(known))]

    found = await_scrape(ask, 0.5, 3.5, now_s=lambda: 3.6, sleep=lambda _: None)
    assert found[0].times_s[-1] == 4.0
    assert asked == 3


def test_a_scrape_that_does_not_come_is_not_waited_for_long() -> None:
    clock = iter([3.6, 3.8, 4.2, 4.4, 5.1, 5.2])
    labels = {"__name__": "nv_inference_request_success"}
    series = [Series(labels, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))]
    found = await_scrape(lambda: series, 0.5, 3.5, now_s=lambda: next(clock), sleep=lambda _: None)
    assert found == series


class Scripted:
    """A Prometheus that answers what it is told to."""

    def __init__(self) -> None:
        self.result: list[dict[str, Any]] = []
        self.status = 200
        self.ahead_s = 0.0
        self.asked: list[dict[str, str]] = []
        self.headers: list[str | None] = []
        handler = type("Handler", (_Handler,), {"scripted": self})
        self.server = HTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def fill(self, series: list[Series], shift_s: float) -> None:
        self.result = [
            {
                "metric": dict(one.labels),
                "values": [
                    [at + shift_s, str(value)]
                    for at, value in zip(one.times_s, one.values, strict=True)
                ],
            }
            for one in series
        ]


class _Handler(BaseHTTPRequestHandler):
    scripted: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.scripted.asked.append(form)
        self.scripted.headers.append(self.headers.get("X-Scope-OrgID"))
        if form["query"] == "time()":
            now_s = time.time() + self.scripted.ahead_s
            data: Any = {"resultType": "scalar", "result": [now_s, str(now_s)]}
        else:
            wanted = "nv_inference" in form["query"]
            data = {"resultType": "matrix", "result": self.scripted.result if wanted else []}
        answer = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(self.scripted.status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    made = Scripted()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def window_of(scripted: Scripted, **changes: Any) -> ScrapedReadings:
    prometheus = Prometheus(scripted.url, **changes)
    return ScrapedReadings(
        prometheus, metrics_url="http://gpu1:8002/metrics", server_pid=None, model='m"1'
    )


def opened_and_closed(window: ScrapedReadings) -> tuple[ServerMetrics, HostMetrics]:
    window.open()
    time.sleep(0.05)
    window.close()
    return window.figures()


def test_a_clock_that_is_ahead_is_allowed_for(scripted: Scripted) -> None:
    scripted.ahead_s = 100.0
    window = window_of(scripted)
    window.open()
    began_s = time.time()
    time.sleep(0.35)
    window.close()
    times_s = tuple(began_s - 1 + 0.1 * at + 100 for at in range(30))
    labels = {"__name__": "nv_inference_request_success", "instance": "a"}
    series = Series(labels, times_s, tuple(10.0 * at for at in range(30)))
    scripted.fill([series], 0.0)
    server, _ = window.figures()
    assert not server.problem
    opened_ns, closed_ns = window.edges_ns
    assert server.requests == pytest.approx((closed_ns - opened_ns) / 1e9 * 100, abs=15)


def test_names_are_quoted_and_matchers_go_along(scripted: Scripted) -> None:
    opened_and_closed(window_of(scripted, match='job="triton"', headers=(("X-Scope-OrgID", "7"),)))
    query = scripted.asked[-1]["query"]
    assert 'model="m\\"1"' in query
    assert ',job="triton"}' in query
    assert set(scripted.headers) == {"7"}


def test_two_servers_of_one_model_must_be_told_apart(scripted: Scripted) -> None:
    scripted.fill([*of_triton(instance="a:1"), *of_triton(instance="b:1")], time.time() - 12)
    server, _ = opened_and_closed(window_of(scripted))
    assert "several servers serve" in server.problem
    assert "--prometheus-match 'instance=\"a:1\"'" in server.problem


def moved(series: list[Series], by_s: float) -> list[Series]:
    return [
        Series(one.labels, tuple(at + by_s for at in one.times_s), one.values) for one in series
    ]


def test_a_server_that_was_gone_before_the_window_is_none_of_it() -> None:
    dead, ours = moved(of_triton(instance="a:1"), -60.0), of_triton(instance="b:1")
    there = without_vanished([*dead, *ours], 1.3, 9.8)
    assert there == ours
    assert server_metrics(there, 1.3, 9.8).requests == 850
    assert server_metrics([*dead, *ours], 1.3, 9.8).problem, "what the dead one's series did"
    once = Series(dead[0].labels, (-5.0,), (3.0,))
    assert without_vanished([once, *ours], 1.3, 9.8) == ours


def test_a_server_that_ends_with_the_window_s_start_or_in_it_is_one() -> None:
    ours = of_triton(instance="b:1")
    for by_s in (-11.0, -5.0):
        both = [*moved(of_triton(instance="a:1"), by_s), *ours]
        assert without_vanished(both, 1.3, 9.8) == both


def test_where_no_server_was_scraped_in_the_window_all_that_there_is_is_told_of() -> None:
    dead = moved(of_triton(instance="a:1"), -60.0)
    assert without_vanished(dead, 1.3, 9.8) == dead
    assert "no scrape" in server_metrics(dead, 1.3, 9.8).problem


def test_a_replaced_server_is_not_a_second_one(scripted: Scripted) -> None:
    window = window_of(scripted)
    window.open()
    began_s = time.time()
    time.sleep(0.35)
    window.close()
    labels = {"__name__": "nv_inference_request_success", "instance": "new:1"}
    times_s = tuple(began_s - 1 + 0.1 * at for at in range(30))
    new = Series(labels, times_s, tuple(10.0 * at for at in range(30)))
    old = Series({**labels, "instance": "old:1"}, tuple(at - 60 for at in times_s), new.values)
    scripted.fill([old, new], 0.0)
    server, _ = window.figures()
    assert not server.problem
    assert server.requests is not None


def test_the_target_that_is_known_is_taken(scripted: Scripted) -> None:
    ours, other = of_triton(instance="gpu1:8002"), of_triton(instance="gpu2:8002")
    scripted.fill([*ours, *other], time.time() - 12)
    server, _ = opened_and_closed(window_of(scripted))
    assert "holds" in server.problem, "too short a window, but no doubt about the server"


def test_a_prometheus_that_is_gone_leaves_the_figures_missing(scripted: Scripted) -> None:
    scripted.status = 503
    server, host = opened_and_closed(window_of(scripted))
    assert server.requests is None
    assert "refuses the query (503)" in server.problem
    assert host.memory_used_bytes, "of this machine"


def test_an_address_where_none_is_ends_before_anything_starts(scripted: Scripted) -> None:
    with pytest.raises(UsageError, match="does not answer"):
        Prometheus("http://127.0.0.1:9").check()
    Prometheus(scripted.url).check()
    scripted.status = 400
    with pytest.raises(UsageError, match="refuses"):
        Prometheus(scripted.url).check()


def test_a_native_histogram_among_the_series_has_no_values(scripted: Scripted) -> None:
    labels = {"__name__": "http_request_seconds", "job": "triton"}
    buckets = {"count": "3", "sum": "1.5", "buckets": [[0, "0.5", "1", "3"]]}
    scripted.result = [{"metric": labels, "histograms": [[1.0, buckets]]}]
    found = Prometheus(scripted.url).samples(
        '{job="triton",a!="nv_inference"}', end_s=2, length_s=1
    )
    assert found == [Series(labels)]


def test_a_password_in_an_address_is_said_where_it_belongs_and_not_shown() -> None:
    with pytest.raises(UsageError, match="holds a name or a password") as raised:
        parse_prometheus("https://me:secret@host:9090")
    assert "secret" not in str(raised.value)
    assert "--prometheus-header" in raised.value.next_step


@pytest.mark.parametrize(
    "url",
    ["prometheus:9090", "ftp://host", "http://", "", "http://host:90900", "http://host:port"],
)
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        parse_prometheus(url)


def test_headers_and_braces_are_read() -> None:
    made = parse_prometheus("http://h:9090/", ["A: b:c"], '{job="x"}')
    assert made == Prometheus("http://h:9090", (("A", "b:c"),), 'job="x"')
    with pytest.raises(UsageError, match="colon"):
        parse_prometheus("http://h:9090/", ["no"])


def test_a_query_failure_is_no_harness_error() -> None:
    assert not issubclass(QueryFailure, UsageError)

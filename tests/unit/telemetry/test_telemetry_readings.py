"""A window over a server that is there, and over one that goes away."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from harness.errors import ServerError
from harness.telemetry.readings import DirectReadings
from harness.types import ServerMetrics


class CountingServer:
    """Counts as Triton does: one more request, one more rejection, with every reading."""

    def __init__(self) -> None:
        self.requests = 0
        self.alive = True

    def statistics(self, model: str) -> dict[str, Any]:
        if not self.alive:
            raise ServerError("connection refused")
        self.requests += 10
        return {
            "name": model,
            "inference_count": 2 * self.requests,
            "execution_count": self.requests,
            "inference_stats": {
                "success": {"count": self.requests, "ns": 0},
                "fail": {"count": 0, "ns": 0},
                "queue": {"count": self.requests, "ns": 3_000_000 * self.requests},
                "compute_infer": {"count": self.requests, "ns": 2_000_000 * self.requests},
            },
        }


class Metrics(BaseHTTPRequestHandler):
    """Answers every scrape with one more rejection."""

    rejected = 0

    def do_GET(self) -> None:
        type(self).rejected += 1
        body = (
            "# TYPE nv_inference_request_failure counter\n"
            f'nv_inference_request_failure{{model="m",reason="REJECTED"}} {self.rejected}\n'
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def metrics_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def test_both_sides_are_differences_over_the_window(metrics_url: str) -> None:
    window = DirectReadings(
        CountingServer(), metrics_url=metrics_url, server_pid=os.getpid(), model="m"
    )

    window.open()
    window.close()
    server, host = window.figures()

    assert (server.requests, server.inferences, server.executions) == (10, 20, 10)
    assert server.queue_ms == pytest.approx(3.0)
    assert server.failures == {"REJECTED": 1}
    assert host.server_cpu is not None
    assert host.gpu_utilization is None


def test_an_ensembles_time_is_the_sum_over_its_parts() -> None:
    window = DirectReadings(
        CountingServer(), metrics_url=None, server_pid=None, model="m", parts=("first", "second")
    )

    window.open()
    window.close()
    server, _ = window.figures()

    assert [part.model for part in server.parts] == ["first", "second"]
    assert server.queue_ms == sum(part.queue_ms for part in server.parts)
    assert server.compute_ms == sum(part.compute_ms for part in server.parts)


class TearingServer(CountingServer):
    """Its first `torn` readings lack the last execution's batch size."""

    def __init__(self, torn: int) -> None:
        super().__init__()
        self.torn = torn

    def statistics(self, model: str) -> dict[str, Any]:
        statistics = super().statistics(model)
        executions = self.requests - (1 if self.torn > 0 else 0)
        self.torn -= 1
        return statistics | {
            "batch_stats": [{"batch_size": 2, "compute_infer": {"count": executions}}]
        }


@pytest.mark.parametrize("torn", [0, 1, 2])
def test_a_torn_reading_is_taken_again(torn: int) -> None:
    source = TearingServer(torn)
    window = DirectReadings(source, metrics_url=None, server_pid=None, model="m")

    window.open()
    window.close()
    server, _ = window.figures()

    assert source.requests == 10 * (torn + 2)
    assert server.executions == 10
    assert server.batch_sizes == {2: 10}


def test_a_server_whose_counts_never_agree_is_not_asked_for_ever() -> None:
    source = TearingServer(99)
    window = DirectReadings(source, metrics_url=None, server_pid=None, model="m")

    window.open()

    assert source.requests == 10 * 3


@pytest.mark.parametrize("gone_at", ["open", "close"])
def test_a_server_that_does_not_answer_leaves_nothing_known(gone_at: str) -> None:
    source = CountingServer()
    window = DirectReadings(
        source, metrics_url="http://127.0.0.1:9/metrics", server_pid=None, model="m"
    )

    source.alive = gone_at != "open"
    window.open()
    source.alive = gone_at != "close"
    window.close()
    server, host = window.figures()

    assert server == ServerMetrics()
    assert server.requests is None
    assert server.batch_mean is None
    assert host.server_cpu is None
    assert host.memory_used_bytes


def test_without_a_metrics_page_failures_are_counted_without_reasons() -> None:
    window = DirectReadings(CountingServer(), metrics_url=None, server_pid=None, model="m")

    window.open()
    window.close()
    server, _ = window.figures()

    assert server.requests == 10
    assert server.failures == {}


def test_figures_want_both_readings() -> None:
    window = DirectReadings(CountingServer(), metrics_url=None, server_pid=None, model="m")

    window.close()
    with pytest.raises(RuntimeError, match="before both readings"):
        window.figures()

"""The manifests' queries, asked of a real Prometheus that scrapes a real Triton with two models."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator

import endpoint_models
import pytest
from prometheus_process import PrometheusProcess, wait_until

from harness.planning.autoscaling.queries import metrics_of
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.telemetry.prometheus.client import Prometheus
from harness.telemetry.prometheus.demand import demand_of_query
from harness.types.autoscaling import (
    ForecastRule,
    InFlightRule,
    Policy,
    QueueRule,
    ScalingTerms,
)

pytestmark = pytest.mark.triton

INTERVAL_S, WINDOW_S = 0.5, 5.0
MODEL, OTHER = "classifier", "neighbour"
PENDING = "nv_inference_pending_request_count"
RATE = f'sum(rate(nv_inference_request_success{{model="{MODEL}"}}[2s]))'
TERMS = ScalingTerms(start_s=10.0, sync_s=1.0, window_s=WINDOW_S, scrape_s=INTERVAL_S)
POLICY = Policy(
    "all", (ForecastRule(0.6, 100.0, 4.0, 10.0, 60.0), InFlightRule(2.0), QueueRule(1e6, None))
)


class Traffic:
    """Requests to both models, several at a time, until it is left."""

    def __init__(self, address: str) -> None:
        self.address, self.ended, self.errors = address, threading.Event(), []
        clients = [MODEL] * 4 + [OTHER] * 2
        self.threads = [threading.Thread(target=self._send, args=(one,)) for one in clients]

    def __enter__(self) -> None:
        for one in self.threads:
            one.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for one in self.threads:
            one.join(60)

    def _send(self, model: str) -> None:
        tensors = [
            {"name": name, "shape": [1, 8], "datatype": "INT64", "data": [1] * 8}
            for name in ("input_ids", "attention_mask")
        ]
        url = f"http://{self.address}/v2/models/{model}/infer"
        body = json.dumps({"inputs": tensors}).encode()
        while not self.ended.is_set():
            try:
                urllib.request.urlopen(url, body, timeout=30).read()
            except OSError as error:
                self.errors.append(error)
                return
            time.sleep(0.01)


@pytest.fixture(scope="module")
def scraped(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PrometheusProcess, float]]:
    """A Prometheus with some seconds of both models' traffic, and the time of its last scrape."""
    folder = tmp_path_factory.mktemp("queries")
    for name in (MODEL, OTHER):
        endpoint_models.classifier(folder / "repository", name)
    log = folder / "triton.log"
    with EmbeddedTriton(server_environment, folder / "repository", log_file=log) as server:
        with TritonClient(server.endpoint) as client:
            for name in (MODEL, OTHER):
                client.load(name)
        targets = {"triton": server.endpoint.metrics.split("/")[2]}
        interval = f"{INTERVAL_S * 1000:.0f}ms"
        with PrometheusProcess(folder / "scrapes", targets, interval=interval) as prometheus:
            traffic = Traffic(server.endpoint.http)
            with traffic:
                prometheus.wait_for("nv_inference_request_success")
                began_s = time.time()
                at_s = wait_until(
                    lambda: (
                        time.time() - began_s > 2 * WINDOW_S and well_scraped_until_s(prometheus)
                    ),
                    lambda: "Prometheus hardly scrapes",
                )
            assert not traffic.errors
            yield prometheus, at_s


def well_scraped_until_s(prometheus: PrometheusProcess) -> float | None:
    """An instant before which no scrape is missing that a test needs; None: there is none now."""
    at_s = time.time() - INTERVAL_S
    counter = "nv_inference_request_success"
    needed = [(f"min(count_over_time({counter}[{WINDOW_S:.0f}s])) >= 3", at_s)]
    needed += [(f'{gauge}{{model="{MODEL}"}}', at_s) for gauge in (PENDING, counter)]
    needed += [(RATE, at_s - back_s) for back_s in (0.0, 1.0, 2.0, 3.0)]
    there = all(prometheus.query(query, time=f"{one_s:.3f}") for query, one_s in needed)
    return at_s if there else None


def grown(prometheus: PrometheusProcess, counter: str, at_s: float) -> tuple[float, float]:
    """What a model's counter grew by between its samples in the window, and the time between."""
    source = Prometheus(prometheus.url)
    (series,) = source.samples(f'{counter}{{model="{MODEL}"}}', end_s=at_s, length_s=WINDOW_S)
    return series.values[-1] - series.values[0], series.times_s[-1] - series.times_s[0]


def test_every_query_gives_one_value_and_that_of_its_model(
    scraped: tuple[PrometheusProcess, float],
) -> None:
    prometheus, at_s = scraped
    found = {}
    for metric in metrics_of(POLICY, TERMS, MODEL, 'job="triton"'):
        (answer,) = prometheus.query(metric.query, time=f"{at_s:.3f}")
        assert answer["metric"] == {}
        found[metric.name] = float(answer["value"][1])
    assert set(found) == {"demand", "forecast", "in-flight", "queue-ms"}
    answered, span_s = grown(prometheus, "nv_inference_request_success", at_s)
    queued_us, _ = grown(prometheus, "nv_inference_queue_duration_us", at_s)
    spent_us, _ = grown(prometheus, "nv_inference_request_duration_us", at_s)
    # The same scrapes below and above the line: a quotient is exact, whatever rate() extrapolates.
    assert found["queue-ms"] == pytest.approx(queued_us / answered / 1e3, rel=1e-6)
    # rate() stretches the samples' span to the window at most.
    (pending,) = prometheus.query(f'{PENDING}{{model="{MODEL}"}}', time=f"{at_s:.3f}")
    waiting = float(pending["value"][1])
    assert answered / WINDOW_S <= found["demand"] - waiting / 60.0 <= 1.001 * answered / span_s
    executing = (spent_us - queued_us) / 1e6
    low, high = executing / WINDOW_S, 1.001 * executing / span_s
    assert low <= found["in-flight"] - waiting <= high
    assert found["forecast"] >= 0


def test_a_model_without_traffic_asks_for_nothing_and_one_without_series_for_no_value(
    scraped: tuple[PrometheusProcess, float],
) -> None:
    prometheus, _ = scraped
    time.sleep(WINDOW_S + 2 * INTERVAL_S)
    at_s = wait_until(lambda: well_scraped_until_s(prometheus), lambda: "Prometheus hardly scrapes")
    for metric in metrics_of(POLICY, TERMS, MODEL, ""):
        if metric.name != "forecast":
            (answer,) = prometheus.query(metric.query, time=f"{at_s:.3f}")
            assert float(answer["value"][1]) == 0.0
        assert prometheus.query(metric.query.replace(MODEL, "nobody")) == []


def test_the_demand_of_a_range_is_read_as_a_trace(
    scraped: tuple[PrometheusProcess, float],
) -> None:
    prometheus, at_s = scraped
    found = demand_of_query(Prometheus(prometheus.url), RATE, end_s=at_s, length_s=3.0, step_s=1.0)
    assert len(found.rates_per_s) == 4
    for place, rate in enumerate(found.rates_per_s):
        (answer,) = prometheus.query(RATE, time=f"{at_s - 3.0 + place:.3f}")
        assert rate == pytest.approx(float(answer["value"][1]))

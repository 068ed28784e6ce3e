"""Every panel's query, against a Prometheus that scraped Triton, Locust and `harness load`.

No Grafana can run here: what is shown is that the queries it would send return data.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import endpoint_models
import numpy as np
import pytest
from load_rig import checkout
from locust_command import end, start
from prometheus_process import PrometheusProcess, wait_until

from harness.cli.main import run_command
from harness.errors import EXIT_ENVIRONMENT, EXIT_OK, EXIT_UNDECIDED
from harness.load.requests.payloads import write_payloads
from harness.runs.folder import read_run
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.generation.repository import (
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.telemetry.exposition.monitor import LoadMonitor
from harness.telemetry.exposition.page import MetricsServer
from harness.types import ModelVariant
from tests.ports import free_port
from tests.sample_run import sample_run

pytestmark = [pytest.mark.triton, pytest.mark.timeout(480)]

GRAFANA = checkout() / "docker" / "grafana" / "dashboards"
GPU_SERIES = {
    "nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes",
    "nv_energy_consumption", "nv_gpu_power_limit",
}  # fmt: skip
"""Of these no machine without a GPU has data. The names are those of the table 'GPU Metrics' in
Triton's docs/user_guide/metrics.md."""
DOCUMENTED_GPU_SERIES = {*GPU_SERIES, "nv_gpu_power_usage"}
WRITING = GenerationServing(slots=2, queue_size=16, read_tokens=16)
"""Fewer slots than requests in flight: some wait."""
WORKERS = 2
RUN_S = 8
KNOWN_ANSWERS = 200
"""More than are asked before the two loads, by known answers and by the checks of the model; 109
were seen. A report lost or taken twice is more."""
VARIABLES = {"$__rate_interval": "15s", "$variant": ".*", "$model": ".*"}


def panels() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{path.stem}: {panel['title']}, {target['refId']}")
        for path in sorted(GRAFANA.glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


class Scraped:
    """What Prometheus knows of the time in which the loads ran."""

    def __init__(self, prometheus: PrometheusProcess, began_s: float, trials: int) -> None:
        self._prometheus, self._began_s = prometheus, began_s
        self.trials = trials
        """Of the first command: one that was not steady yet is measured once more."""
        self._ended_s = time.time()

    def ask(self, expr: str) -> list[dict[str, Any]]:
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        times = {"start": str(self._began_s), "end": str(self._ended_s), "step": "1"}
        return self._prometheus.query(expr, "query_range", **times)


@pytest.fixture(scope="module")
def scraped(
    server_environment: ServerEnvironment,
    generator: tuple[Path, ModelVariant],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scraped]:
    """A trial by `harness load`, one of streams, then a Locust master with two workers.

    Of Locust's requests some fail. Scores, verdicts and capacities come from a main job, which is
    too long for this, and whether a trial counts depends on how busy the machine is: a page in this
    process shows a stored run's.
    """
    folder = tmp_path_factory.mktemp("dashboards")
    variant = endpoint_models.classifier(folder / "repository")
    writer = add_writer(generator[1], folder / "repository")
    web, metrics, scores = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        triton = stack.enter_context(
            EmbeddedTriton(server_environment, folder / "repository", log_file=folder / "triton")
        )
        with TritonClient(triton.endpoint) as client:
            client.load(variant.name)
            client.load(writer.name, generation_override(writer, WRITING))
        targets = {
            "triton": triton.endpoint.metrics.split("/")[2],
            "scores": f"127.0.0.1:{scores}",
            "locust": f"127.0.0.1:{web}",
            "harness": f"127.0.0.1:{metrics}",
        }
        prometheus = stack.enter_context(
            PrometheusProcess(folder / "prometheus", targets, interval="1s")
        )
        began_s = time.time()
        monitor = LoadMonitor()
        stored = sample_run()
        monitor.add_quality(stored.scores)
        for result in stored.trials:
            monitor.add_result(result)
        for verdict in stored.verdicts:
            monitor.decide(verdict.family, verdict.decision)
        page = MetricsServer(monitor, scores)
        page.__enter__()
        stack.callback(page.__exit__, RuntimeError, None, None)  # it waits for no last reader
        # 5: a trial that does not count.
        assert load(folder, triton.endpoint.http, metrics) in {EXIT_OK, EXIT_ENVIRONMENT}
        said = stream(folder / "run", triton.endpoint.grpc, writer.name, metrics)
        assert said in {EXIT_OK, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
        (streamed,) = read_run(folder / "run").trials[-1:]
        assert streamed.requests, (streamed.failures_by_kind, streamed.invalid_reason)
        # One after the other: on a busy machine Locust's workers would miss their heartbeats.
        fleet = start_locust(folder, triton.endpoint.http, web)
        stack.callback(end, *fleet)
        wait_until(lambda: begin(web), (folder / "locust-0.log").read_text)
        wait_until(lambda: page_of(web), (folder / "locust-0.log").read_text)
        wait_until(lambda: "harness_load_running 0.0" in page_of(web), lambda: page_of(web))
        for job in ("locust", "triton"):  # what they say at last
            prometheus.wait_for(f'timestamp(up{{job="{job}"}}) > {time.time()}')
        yield Scraped(prometheus, began_s, len(read_run(folder / "loaded").trials))


def load(folder: Path, host: str, metrics: int) -> int:
    """A closed loop that is judged, with its metrics page; the command's exit code."""
    ids = np.arange(160, dtype=np.int64).reshape(20, 8) % 50
    payloads = folder / "sound.npz"
    write_payloads(payloads, [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    return run_command([
        "load", "--url", f"http://{host}", "--model", "classifier", "--payloads", str(payloads),
        "--concurrency", "2", "--duration", "6", "--metrics-port", str(metrics),
        "--out", str(folder / "loaded"), "--json",
    ])  # fmt: skip


def add_writer(variant: ModelVariant, repository: Path) -> ModelVariant:
    """A model that writes, in the repository of the other one."""
    path = repository / variant.name
    shutil.copytree(variant.path, path)
    added = dataclasses.replace(variant, path=path)
    write_generator(added, WRITING)
    return added


def stream(out: Path, host: str, model: str, metrics: int) -> int:
    """A closed loop of streams, some of which their clients leave; the command's exit code."""
    return run_command([
        "load", "--url", f"grpc://{host}", "--model", model, "--generate", "triton",
        "--prompt-tokens", "8", "--output-tokens", "16", "--concurrency", "4", "--leave", "10%",
        "--duration", "6", "--slo", "ttft p95 < 60 s, itl p99 < 60 s, goodput > 0.01/s",
        "--metrics-port", str(metrics), "--out", str(out), "--json",
    ])  # fmt: skip


def start_locust(folder: Path, host: str, web: int) -> list[subprocess.Popen[str]]:
    """An open loop by a master and its workers; a tenth of the requests makes the model fail."""
    ids = np.arange(160, dtype=np.int64).reshape(20, 8) % 50
    ids[5::10] = 99
    payloads = folder / "payloads.npz"
    write_payloads(payloads, [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    port = str(free_port())
    worker = ["--worker", "--master-port", port]
    master = [
        "--master", "--master-bind-port", port, "--expect-workers", str(WORKERS),
        "--web-host", "127.0.0.1", "--web-port", str(web), "--users", "2",
        "--run-time", f"{RUN_S}s", "--host", f"http://{host}", "--model", "classifier",
        "--payloads", str(payloads), "--rate", "60", "--objective", "p95 < 50 ms, error_rate < 5%",
    ]  # fmt: skip
    parts = [master, *([worker] * WORKERS)]
    return [start(*part, log=folder / f"locust-{at}.log") for at, part in enumerate(parts)]


def begin(web: int) -> bool:
    """Start the test as the page does, once both workers are there."""
    address = f"http://127.0.0.1:{web}"
    try:
        with urllib.request.urlopen(f"{address}/stats/requests", timeout=10) as answer:
            if json.loads(answer.read())["worker_count"] < WORKERS:
                time.sleep(2)  # Locust remembers its answers for so long
                return False
        form = f"user_count=2&spawn_rate=2&run_time={RUN_S}s".encode()
        with urllib.request.urlopen(f"{address}/swarm", form, timeout=60) as answer:
            return bool(json.loads(answer.read())["success"])
    except (OSError, KeyError):
        return False


def page_of(web: int) -> str:
    """Of Locust's master, once a test is counted there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return ""
    return text if "harness_failed_requests_total{" in text else ""


@pytest.mark.parametrize("expr", panels())
def test_a_panels_query_returns_data(scraped: Scraped, expr: str) -> None:
    used = set(re.findall(r"\bnv_(?:gpu|energy)\w+", expr))
    assert used <= DOCUMENTED_GPU_SERIES, "no name of Triton's"
    found = scraped.ask(expr)
    if used:
        assert used <= GPU_SERIES
        assert not found, "a GPU after all: take its series out of GPU_SERIES"
        pytest.skip("needs a GPU: the query parses, and there is no data on this machine")
    numbers = [float(value) for series in found for _, value in series["values"]]
    assert any(np.isfinite(number) for number in numbers), "no data"


def test_the_master_counts_what_its_workers_saw(scraped: Scraped) -> None:
    """Both loads' counts and Triton's, over the whole time: nothing lost, nothing twice."""
    # The command's page is gone when Locust's comes: their sum is never there at one time.
    by_job = [
        total(scraped, f'harness_requests_total{{job="{job}", variant="classifier"}}')
        for job in ("locust", "harness")
    ]
    ours = sum(by_job)
    failed = total(scraped, 'harness_failed_requests_total{job="locust"}')
    there = total(scraped, 'nv_inference_request_success{job="triton", model="classifier"}')
    assert 0 < failed < by_job[0]
    # Triton books what a python model refuses as answered; the known answers are asked apart.
    assert abs(there - ours) <= failed + KNOWN_ANSWERS
    workers = scraped.ask('count(harness_generator_cpu_seconds_total{job="locust"})')
    assert max(float(value) for _, value in workers[0]["values"]) == WORKERS


def total(scraped: Scraped, expr: str) -> float:
    return max(float(value) for one in scraped.ask(f"sum({expr})") for _, value in one["values"])


def test_the_last_scrape_of_a_command_has_its_trials(scraped: Scraped) -> None:
    """The page waits for one more reader before it goes."""
    told = total(scraped, 'harness_trials_total{job="harness", variant="classifier"}')
    assert told == scraped.trials > 0


def test_the_client_counts_the_tokens_that_the_engine_wrote(scraped: Scraped) -> None:
    """But for those of clients that left, and of the first prompt, which is asked beforehand."""
    ours = total(scraped, 'harness_output_tokens_total{job="harness"}')
    there = total(scraped, 'generation_output_tokens_total{job="triton"}')
    left = total(scraped, 'harness_left_requests_total{job="harness"}')
    assert ours > 0
    assert left > 0
    assert ours <= there <= ours + 16 * (left + KNOWN_ANSWERS)
    answered = total(scraped, 'harness_requests_total{job="harness", variant!="classifier"}')
    assert total(scraped, 'harness_good_requests_total{job="harness"}') == answered

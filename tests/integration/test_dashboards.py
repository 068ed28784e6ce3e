"""Every panel's query, against a Prometheus that scraped Triton, Locust and a harness's run.

No Grafana can run here: what is shown is that the queries it would send return data.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import endpoint_models
import numpy as np
import pytest
import yaml
from load_rig import checkout, environment
from locust_command import end, free_port, start
from prometheus_process import PrometheusProcess, wait_until

from harness.load.payloads import write_payloads
from harness.serving.embedded import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.environment import ServerEnvironment
from tests.local_study import write_local_study

pytestmark = [pytest.mark.triton, pytest.mark.timeout(480)]

GRAFANA = checkout() / "docker" / "grafana" / "dashboards"
GPU_SERIES = {
    "nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes",
    "nv_energy_consumption", "nv_gpu_power_limit",
}  # fmt: skip
"""Of these no machine without a GPU has data. The names are those of the table 'GPU Metrics' in
Triton's docs/user_guide/metrics.md."""
DOCUMENTED_GPU_SERIES = {*GPU_SERIES, "nv_gpu_power_usage"}
WORKERS = 2
RUN_S = 12
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

    def __init__(self, prometheus: PrometheusProcess, began_s: float, page: str) -> None:
        self._prometheus, self._began_s, self.page = prometheus, began_s, page
        self._ended_s = time.time()

    def ask(self, expr: str) -> list[dict[str, Any]]:
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        times = {"start": str(self._began_s), "end": str(self._ended_s), "step": "1"}
        return self._prometheus.query(expr, "query_range", **times)


@pytest.fixture(scope="module")
def scraped(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scraped]:
    """The main job on a study, then a Locust master with two workers, with failures."""
    folder = tmp_path_factory.mktemp("dashboards")
    variant = endpoint_models.classifier(folder / "repository")
    web, metrics, server = free_port(), free_port(), [free_port() for _ in range(3)]
    with ExitStack() as stack:
        triton = stack.enter_context(
            EmbeddedTriton(server_environment, folder / "repository", log_file=folder / "triton")
        )
        with TritonClient(triton.endpoint) as client:
            client.load(variant.name)
        targets = {
            "triton": triton.endpoint.metrics.split("/")[2],
            "triton-of-the-run": f"127.0.0.1:{server[2]}",
            "locust": f"127.0.0.1:{web}",
            "harness": f"127.0.0.1:{metrics}",
        }
        prometheus = stack.enter_context(
            PrometheusProcess(folder / "prometheus", targets, interval="1s")
        )
        began_s = time.time()
        run = start_run(folder, metrics, server)
        stack.callback(end, run)
        out, _ = run.communicate(timeout=180)
        assert run.returncode in {0, 4}, out
        # One after the other: on a busy machine Locust's workers would miss their heartbeats.
        fleet = start_locust(folder, triton.endpoint.http, web)
        stack.callback(end, *fleet)
        page = wait_until(lambda: page_of(web), (folder / "locust-0.log").read_text)
        wait_until(lambda: "harness_load_running 0.0" in page_of(web), lambda: page_of(web))
        yield Scraped(prometheus, began_s, page)


def start_run(folder: Path, metrics: int, server: Sequence[int]) -> subprocess.Popen[str]:
    """The main job on tiny checkpoints, with its metrics and its server's on ports known ahead."""
    study = write_local_study(folder, objective="p95 < 5 s, accuracy >= 1%")
    document = yaml.safe_load(study.read_text())
    document["traffic"] |= {
        "protocols": ["grpc"], "client_batch_sizes": [1], "concurrencies": [1, 2],
        "duration_s": 3.0,
    }  # fmt: skip
    document["search"] = "grid"
    document["serving"] = {"queue_delays_us": [0], "instance_counts": [1]}
    study.write_text(yaml.safe_dump(document))
    command = [
        sys.executable, "-m", "harness", "run", str(study), "--out", str(folder / "run"),
        "--repository", str(folder / "model_repository"), "--metrics-port", str(metrics),
        "--server-ports", ",".join(map(str, server)),
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )


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
        "--web-host", "127.0.0.1", "--web-port", str(web), "--autostart", "--users", "2",
        "--run-time", f"{RUN_S}s", "--host", f"http://{host}", "--model", "classifier",
        "--payloads", str(payloads), "--rate", "60", "--slo", "p95 < 50 ms, error_rate < 5%",
    ]  # fmt: skip
    parts = [master, *([worker] * WORKERS)]
    return [start(*part, log=folder / f"locust-{at}.log") for at, part in enumerate(parts)]


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
    """The client's count and Triton's, over the whole test: nothing lost, nothing twice."""
    ours = total(scraped, 'harness_requests_total{job="locust"}')
    failed = total(scraped, 'harness_failed_requests_total{job="locust"}')
    there = total(scraped, 'nv_inference_request_success{job="triton"}')
    assert 0 < failed < ours
    # Locust's preflight asks once; Triton books what a python model refuses as answered.
    assert abs(there - ours) <= failed + 2
    assert ours + failed <= 60 * RUN_S * 1.3
    workers = scraped.ask('count(harness_generator_cpu_seconds_total{job="locust"})')
    assert max(float(value) for _, value in workers[0]["values"]) == WORKERS


def total(scraped: Scraped, expr: str) -> float:
    return max(float(value) for one in scraped.ask(f"sum({expr})") for _, value in one["values"])


def test_the_runs_last_scrape_has_its_verdict(scraped: Scraped) -> None:
    """The page waits for one more reader before it goes."""
    decided = scraped.ask('harness_verdict{job="harness", decision=~"pass|undecided"}')
    last = {one["metric"]["decision"]: one["values"][-1][1] for one in decided}
    assert last == {"pass": "1", "undecided": "0"}

"""Triton's figures by a real Prometheus and by Triton itself, over the same window of one load."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import endpoint_models
import numpy as np
import pytest
from load_rig import Watcher
from prometheus_process import PrometheusProcess, wait_until

from harness.cli.main import run_command
from harness.load.generators.messages import LoadProgress
from harness.load.generators.pool import LoadGenerators, LoadJob
from harness.load.requests.payloads import write_payloads
from harness.load.transports.address import parse_target
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.telemetry.prometheus.client import Prometheus
from harness.telemetry.prometheus.readings import ScrapedReadings
from harness.telemetry.readings import DirectReadings
from harness.types import LoadMode, ModelVariant, WireProtocol, Workload
from tests.ports import free_port

pytestmark = pytest.mark.triton

INTERVAL_S = 0.5
RATE_PER_S = 60.0


class Site:
    """A running Triton with the tiny classifier, and what is sent to it."""

    def __init__(self, server: EmbeddedTriton, variant: ModelVariant, folder: Path) -> None:
        self.server, self.variant, self.folder = server, variant, folder
        self.payloads = folder / "payloads.npz"
        ids = np.arange(320, dtype=np.int64).reshape(40, 8) % 50
        write_payloads(self.payloads, [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])

    def scraped(self, folder: Path) -> PrometheusProcess:
        target = self.server.endpoint.metrics.split("/")[2]
        interval = f"{INTERVAL_S * 1000:.0f}ms"
        return PrometheusProcess(folder, {"triton": target}, interval=interval)


@pytest.fixture(scope="module")
def site(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("prometheus")
    variant = endpoint_models.classifier(folder / "repository")
    log = folder / "triton.log"
    with EmbeddedTriton(server_environment, folder / "repository", log_file=log) as server:
        with TritonClient(server.endpoint) as client:
            client.load(variant.name)
        yield Site(server, variant, folder)


def test_both_sources_give_the_same_figures_of_the_same_window(site: Site, tmp_path: Path) -> None:
    """Its edges lie where nothing is sent, so that not one request may be between the two.

    What edges amid a load make uncertain is tested with scrapes that are made up:
    tests/unit/telemetry/test_telemetry_increase.py.
    """
    endpoint = site.server.endpoint
    workload = Workload(
        WireProtocol.GRPC, 2, 64, duration_s=2.0, warmup_s=0.5, seed=3,
        load_mode=LoadMode.OPEN, rate_per_s=RATE_PER_S,
    )  # fmt: skip
    job = LoadJob(site.variant.name, site.payloads, site.variant.outputs, workload)
    seen: list[LoadProgress] = []
    with (
        site.scraped(tmp_path / "prometheus") as prometheus,
        TritonClient(endpoint) as client,
        LoadGenerators(
            http=parse_target(endpoint.http), grpc=parse_target(endpoint.grpc), workers=1,
            log_dir=site.folder / "logs",
        ) as generators,
    ):  # fmt: skip
        where = {"metrics_url": endpoint.metrics, "server_pid": site.server.pid}
        direct = DirectReadings(client, model=site.variant.name, **where)
        source = Prometheus(prometheus.url)
        scraped = ScrapedReadings(source, model=site.variant.name, **where)
        windows = (direct, scraped)
        wait_for_scrapes(prometheus)
        for one in windows:
            one.open()
        wait_for_scrapes(prometheus)
        generators.run(job, Watcher(), listen=lambda _, report: seen.append(report))
        wait_for_scrapes(prometheus)
        for one in windows:
            one.close()
        there, host = scraped.figures()
        here, _ = direct.figures()
    assert not there.problem, there.problem
    answered = sum(one.completed for report in seen for one in report.slices)
    assert answered > 0
    assert there.requests == here.requests == answered
    assert there.requests_uncertainty == 0
    assert there.inferences == here.inferences == 2 * answered
    assert there.executions == here.executions
    assert there.batch_mean == here.batch_mean
    assert there.failures == here.failures == {}
    for phase in ("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms"):
        assert getattr(there, phase) == pytest.approx(getattr(here, phase), rel=0.01, abs=1e-3)
        assert getattr(there, phase) > 0
    assert host.server_cpu is not None


def wait_for_scrapes(prometheus: PrometheusProcess) -> None:
    """Wait until the model's counters have been scraped as they stand now, and once more."""
    for _ in range(2):
        now_s = time.time()
        prometheus.wait_for(f"timestamp(nv_inference_request_success) > {now_s}")


@pytest.mark.slow
def test_a_prometheus_that_dies_in_a_trial_costs_its_figures_and_nothing_else(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with site.scraped(tmp_path / "prometheus") as prometheus, ThreadPoolExecutor() as beside:
        prometheus.wait_for("nv_inference_request_success")

        def kill_while_it_runs() -> str:
            page = wait_until(lambda: _page_of_running(port), lambda: "the load never ran")
            prometheus.process.kill()
            return str(page)

        killed = beside.submit(kill_while_it_runs)
        capsys.readouterr()
        run_command([
            "load", "--url", f"http://{site.server.endpoint.http}", "--model", site.variant.name,
            "--payloads", str(site.payloads), "--rate", "50", "--duration", "5",
            "--prometheus", prometheus.url, "--metrics-port", str(port), "--slo", "p95 < 20 s",
            "--json",
        ])  # fmt: skip
        page = killed.result()
    out, err = capsys.readouterr()
    assert "harness_response_latency_seconds_bucket" in page
    assert 'harness_objective_bound_seconds{constraint="p95 < 20 s"' in page
    line = next(one for one in err.splitlines() if "no server-side figures" in one)
    assert line.startswith("warning: classifier--")
    assert "does not answer" in line
    result = json.loads(out)
    assert result["requests"] > 0
    assert result["server"]["requests"] is None
    assert result["server"]["queue_ms"] is None


def _page_of_running(port: int) -> str:
    """The harness's own page, once requests are counted on it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return ""
    return text if "harness_requests_total{" in text else ""

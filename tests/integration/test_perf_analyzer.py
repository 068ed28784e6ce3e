"""Without our hands: `tritonserver` started as a person would, driven by NVIDIA's perf_analyzer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_model import counters_at_rest

from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.endpoint import Endpoint, TritonClient
from tests.ports import free_ports

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from client_process import PeerError
from peers import PeerLoad, PerfAnalyzer, perf_analyzer

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def peer(server_environment: ServerEnvironment) -> PerfAnalyzer:
    try:
        return perf_analyzer(server_environment)
    except PeerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def server_by_hand(server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path):
    """Triton with the fewest options that serve our repository; all models are loaded at start."""
    http, grpc, metrics = free_ports(3)
    command = [
        str(server_environment.tritonserver),
        f"--model-repository={tiny_repository}",
        f"--backend-directory={server_environment.backends}",
        "--allow-gpu-metrics=false",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
    ]
    variables = {
        "PATH": f"{server_environment.python.parent}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": server_environment.library_path,
    }
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        yield Endpoint(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"http://127.0.0.1:{metrics}")
    finally:
        server.terminate()
        server.wait(timeout=40)


def test_perf_analyzer_drives_the_repository(peer: PerfAnalyzer, server_by_hand: Endpoint):
    with TritonClient(server_by_hand) as client:
        deadline = time.monotonic() + 60
        while not client.ready():
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.1)
        before = counters_at_rest(client)["inference_stats"]["success"]["count"]
        tokens = np.arange(8, dtype=np.int64)
        inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        load = PeerLoad(server_by_hand.grpc, "grpc", "tiny", inputs, in_flight=4)
        row = peer.measure(load, requests=200)
        after = counters_at_rest(client)["inference_stats"]["success"]["count"]
    assert float(row["Inferences/Second"]) > 0
    assert float(row["p95 latency"]) > 0
    assert after - before >= 200

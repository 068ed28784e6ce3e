"""Windows over a real Triton: what it counted is what was sent, no more and no less."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import endpoint_models
import numpy as np
import psutil
import pytest
from google.protobuf import json_format
from load_rig import wait_until

from harness.errors import ServerError
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.repository import config_override, model_config
from harness.telemetry.readings import DirectReadings
from harness.types import HostMetrics, ModelVariant, ServerMetrics, ServingConfig

pytestmark = pytest.mark.triton


class Served:
    """A running server with the tiny classifier, and windows over it."""

    def __init__(self, server: EmbeddedTriton, variant: ModelVariant) -> None:
        self.server = server
        self.variant = variant
        self.client = TritonClient(server.endpoint)

    def load(self, serving: ServingConfig) -> None:
        self.client.load(self.variant.name, config_override(self.variant, serving))

    def window(self) -> DirectReadings:
        return DirectReadings(
            self.client,
            metrics_url=self.server.endpoint.metrics,
            server_pid=self.server.pid,
            model=self.variant.name,
        )

    def settle(self, requests: int, failed: int = 0) -> None:
        """Wait until Triton has booked so many: it does so just after it sends an answer."""
        deadline_s = time.monotonic() + 20
        while self._booked() != (requests, failed) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert self._booked() == (requests, failed)

    def _booked(self) -> tuple[int, int]:
        stats = self.client.statistics(self.variant.name)["inference_stats"]
        return stats["success"]["count"], stats["fail"]["count"]

    def send(self, rows: int, *, token: int = 1) -> None:
        ids = np.full((rows, 8), token)
        self.client.infer(
            self.variant.name, {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        )


@contextmanager
def serving(environment: ServerEnvironment, folder: Path) -> Iterator[Served]:
    variant = endpoint_models.classifier(folder / "repository")
    with EmbeddedTriton(environment, folder / "repository", log_file=folder / "log") as server:
        served = Served(server, variant)
        with served.client:
            yield served


@pytest.fixture(scope="module")
def served(
    server_environment: ServerEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    with serving(server_environment, tmp_path_factory.mktemp("telemetry")) as served:
        yield served


def test_the_window_counts_its_own_requests_and_batches(served: Served) -> None:
    served.load(ServingConfig(max_batch_size=8))
    for _ in range(5):
        served.send(2)  # before the window
    served.settle(5)

    window = served.window()
    window.open()
    for rows in (1, 1, 1, 4, 4, 8):
        served.send(rows)
    served.settle(11)
    window.close()
    server, host = window.figures()
    served.send(8)  # after it

    assert server.requests == 6
    assert server.inferences == 19
    assert server.executions == 6
    assert server.batch_sizes == {1: 3, 4: 2, 8: 1}
    assert server.failures == {}
    assert not server.counters_reset
    for mean_ms in (server.queue_ms, server.compute_infer_ms, server.compute_output_ms):
        assert mean_ms is not None
        assert 0 < mean_ms < 10_000
    _host_is_plausible(host)


def _host_is_plausible(host: HostMetrics) -> None:
    assert host.server_cpu is not None
    assert 0 <= host.server_cpu <= (psutil.cpu_count() or 1) + 0.1
    assert host.server_memory_bytes is not None
    assert host.server_memory_bytes > 20_000_000, "tritonserver and its python process"
    assert host.cpu_utilization is not None
    assert 0 <= host.cpu_utilization <= 1


def test_the_models_python_process_belongs_to_the_tree(served: Served) -> None:
    """The work is done in the stub, a child: its processor time is the server's."""
    served.load(ServingConfig(max_batch_size=8))
    stubs = psutil.Process(served.server.pid).children(recursive=True)
    assert stubs

    window = served.window()
    started_s = time.monotonic()
    window.open()
    before_s = _cpu_s(stubs)
    for _ in range(300):
        served.send(8)
    used_s = _cpu_s(stubs) - before_s
    window.close()
    _, host = window.figures()
    longest_s = time.monotonic() - started_s

    assert used_s > 0
    assert host.server_cpu is not None
    assert host.server_cpu * longest_s >= used_s


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(item.user + item.system for item in times)


def test_requests_that_meet_are_executed_together(served: Served) -> None:
    served.load(ServingConfig(max_batch_size=8, queue_delay_us=200_000))

    window = served.window()
    window.open()
    with ThreadPoolExecutor(8) as senders:
        list(senders.map(served.send, [1] * 16))
    served.settle(16)
    window.close()
    server, _ = window.figures()

    assert server.requests == 16
    assert server.inferences == 16
    assert server.executions is not None
    assert server.executions < 16
    assert max(server.batch_sizes) > 1
    assert sum(size * count for size, count in server.batch_sizes.items()) == 16
    assert sum(server.batch_sizes.values()) == server.executions
    assert server.batch_mean == pytest.approx(16 / server.executions)


def test_failures_have_tritons_reason_and_are_no_requests(served: Served) -> None:
    """A lone request waits for company for longer than the queue lets it: most are refused."""
    config = model_config(served.variant, ServingConfig(max_batch_size=8, queue_delay_us=100_000))
    config.dynamic_batching.default_queue_policy.default_timeout_microseconds = 5_000
    served.client.load(
        served.variant.name, json_format.MessageToJson(config, preserving_proto_field_name=True)
    )

    window = served.window()
    window.open()
    refused = sum(_is_refused(served, rows) for rows in (8, 1, 8, 1, 1, 1, 1, 1))
    answered = 8 - refused
    served.settle(answered, failed=refused)
    window.close()
    server, _ = window.figures()

    assert refused > 0
    assert server.requests == answered
    assert server.failures == {"REJECTED": refused}


def _is_refused(served: Served, rows: int) -> bool:
    try:
        served.send(rows)
    except ServerError:
        return True
    return False


@pytest.mark.parametrize("unload_first", [True, False])
def test_a_reload_inside_the_window_is_a_reset(served: Served, unload_first: bool) -> None:
    served.load(ServingConfig(max_batch_size=8))
    for _ in range(3):
        served.send(1)
    served.settle(3)

    window = served.window()
    window.open()
    if unload_first:
        served.client.unload(served.variant.name)
    served.load(ServingConfig(max_batch_size=4))
    served.send(1)
    window.close()
    server, _ = window.figures()

    assert server == ServerMetrics(counters_reset=True)


def test_a_server_that_dies_leaves_nothing_known(
    server_environment: ServerEnvironment, tmp_path: Path
) -> None:
    with serving(server_environment, tmp_path) as doomed:
        doomed.load(ServingConfig(max_batch_size=8))
        window = doomed.window()
        window.open()
        doomed.send(1)

        process = psutil.Process(doomed.server.pid)
        stubs = process.children(recursive=True)
        process.kill()
        # Not psutil's wait: it would reap the server, which is its owner's to do.
        wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
        window.close()
        server, host = window.figures()

    assert stubs
    assert not psutil.wait_procs(stubs, timeout=10)[1], "a process is left"
    assert server == ServerMetrics()
    assert host.server_cpu is None
    assert host.cpu_utilization is not None

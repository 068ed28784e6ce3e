"""The embedded Triton, for real: start, load, infer, reload, statistics, stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_model import TINY_WEIGHTS, counters_at_rest, make_tiny_variant

from harness.errors import ServerError
from harness.serving.embedded import server as embedded
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.repository import config_override, write_config
from harness.types import ModelVariant, ServingConfig, TensorSpec
from tests.held_up import PATIENCE_S

pytestmark = pytest.mark.triton


def tiny_inputs(rows: list[list[int]]) -> dict[str, np.ndarray]:
    ids = np.array(rows, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def expected(rows: list[list[int]]) -> np.ndarray:
    return np.array([[sum(row) * w for w in TINY_WEIGHTS] for row in rows], np.float32)


@pytest.fixture
def client(embedded_triton: EmbeddedTriton):
    with TritonClient(embedded_triton.endpoint) as client:
        client.load("tiny")
        yield client


def test_answers_are_the_models(client):
    rows = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(client.infer("tiny", tiny_inputs(rows))["logits"], expected(rows))


def test_metadata_has_no_batch_dimension(client):
    inputs, outputs = client.metadata("tiny")
    assert set(inputs) == {
        TensorSpec("input_ids", "INT64", (-1,)),
        TensorSpec("attention_mask", "INT64", (-1,)),
    }
    assert outputs == (TensorSpec("logits", "FP32", (3,)),)


def test_statistics_count_what_was_asked(client):
    before = counters_at_rest(client)
    for _ in range(3):
        client.infer("tiny", tiny_inputs([[1, 2], [3, 4]]))
    after = counters_at_rest(client)
    assert after["inference_count"] - before["inference_count"] == 6
    assert (
        after["inference_stats"]["success"]["count"]
        - (before["inference_stats"]["success"]["count"])
        == 3
    )
    assert {item["batch_size"] for item in after["batch_stats"]} >= {2}
    assert after["version"] == "1"
    assert after["inference_stats"]["cache_hit"]["ns"] == 0


def test_unknown_model_is_a_server_error(client):
    with pytest.raises(ServerError, match="nowhere"):
        client.metadata("nowhere")
    with pytest.raises(ServerError, match="nowhere"):
        client.statistics("nowhere")
    with pytest.raises(ServerError, match="nowhere"):
        client.load("nowhere")


def test_wrong_input_gets_tritons_message(client):
    ids = np.ones((1, 4), np.int64)
    with pytest.raises(ServerError, match="expected 2 inputs but got 1"):
        client.infer("tiny", {"input_ids": ids})


def test_override_changes_the_serving_configuration(client, tiny_variant: ModelVariant):
    client.load("tiny", config_override(tiny_variant, ServingConfig(max_batch_size=2)))
    with pytest.raises(ServerError, match="batch-size must be <= 2"):
        client.infer("tiny", tiny_inputs([[1]] * 3))
    client.unload("tiny")
    client.load("tiny")  # the repository's own configuration is back
    assert client.infer("tiny", tiny_inputs([[1]] * 3))["logits"].shape == (3, 3)


def test_every_listener_is_on_loopback_only(embedded_triton: EmbeddedTriton):
    connections = psutil.Process(embedded_triton.pid).net_connections(kind="inet")
    listeners = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
    addresses = {address.removeprefix("::ffff:") for address in listeners}
    assert addresses == {"127.0.0.1"}


def test_stops_in_order_and_leaves_nothing(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    server = EmbeddedTriton(server_environment, tiny_repository, log_file=tmp_path / "log")
    with server:
        with TritonClient(server.endpoint) as client:
            assert client.ready()
            client.load("tiny")
        processes = [psutil.Process(server.pid)]
        processes += processes[0].children(recursive=True)
        assert len(processes) >= 2  # the server and the model's Python process
    assert not any(process.is_running() for process in processes)
    assert not list(Path("/dev/shm").glob(f"{server._shared_memory_prefix}*"))


def test_killed_server_is_told(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    server = EmbeddedTriton(server_environment, tiny_repository, log_file=tmp_path / "log")
    with server, TritonClient(server.endpoint) as client:
        client.load("tiny")
        stubs = psutil.Process(server.pid).children()
        server.check()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="SIGKILL"):
            wait_for_death(server)
        with pytest.raises(ServerError):
            client.infer("tiny", tiny_inputs([[1]]))
        assert not client.ready()
        gone, alive = psutil.wait_procs(stubs, timeout=PATIENCE_S)
        assert gone
        assert not alive
    assert not list(Path("/dev/shm").glob(f"{server._shared_memory_prefix}*"))


def wait_for_death(server: EmbeddedTriton) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        server.check()
        time.sleep(0.05)


def test_port_in_use_is_named(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        server = EmbeddedTriton(
            server_environment,
            tiny_repository,
            log_file=tmp_path / "log",
            ports=(port, port + 1, port + 2),
        )
        with pytest.raises(ServerError, match=f"port {port} .* in use") as caught, server:
            pass
    assert "ss -ltnp" in caught.value.next_step


def test_missing_repository_is_named(server_environment: ServerEnvironment, tmp_path: Path):
    server = EmbeddedTriton(server_environment, tmp_path / "none", log_file=tmp_path / "log")
    with pytest.raises(ServerError, match="no model repository"), server:
        pass


def test_processors_can_be_set(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path
):
    cpu = min(os.sched_getaffinity(0))
    server = EmbeddedTriton(
        server_environment, tiny_repository, log_file=tmp_path / "log", cpus=[cpu]
    )
    with server, TritonClient(server.endpoint) as client:
        client.load("tiny")
        for process in (psutil.Process(server.pid), *psutil.Process(server.pid).children()):
            assert process.cpu_affinity() == [cpu]


def test_response_cache_answers_without_the_model(
    server_environment: ServerEnvironment, tmp_path: Path
):
    variant = make_tiny_variant(tmp_path / "repository")
    override = json.loads(config_override(variant, ServingConfig()))
    override["response_cache"] = {"enable": True}
    server = EmbeddedTriton(
        server_environment,
        tmp_path / "repository",
        log_file=tmp_path / "log",
        response_cache_bytes=1 << 20,
    )
    with server, TritonClient(server.endpoint) as client:
        client.load("tiny", json.dumps(override))
        for _ in range(4):
            answer = client.infer("tiny", tiny_inputs([[1, 2]]))
        np.testing.assert_array_equal(answer["logits"], expected([[1, 2]]))
        assert counters_at_rest(client)["inference_stats"]["cache_hit"]["count"] == 3


class TestModelsThatDoNotLoad:
    @pytest.fixture
    def broken(self, tiny_repository: Path):
        variant = make_tiny_variant(tiny_repository, "broken")
        yield variant
        shutil.rmtree(variant.path)

    def test_not_an_onnx_file(self, client, broken):
        (broken.path / "1" / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(ServerError, match="Protobuf parsing failed"):
            client.load("broken")

    def test_no_file(self, client, broken):
        (broken.path / "1" / "model.onnx").unlink()
        with pytest.raises(ServerError, match=r"model\.onnx"):
            client.load("broken")

    def test_input_that_the_model_lacks(self, client, broken):
        inputs = (*broken.inputs, TensorSpec("token_type_ids", "INT64", (-1,)))
        write_config(replace(broken, inputs=inputs), ServingConfig())
        with pytest.raises(ServerError, match="the model has no input 'token_type_ids'"):
            client.load("broken")

    def test_input_that_the_configuration_lacks(self, client, broken):
        write_config(replace(broken, inputs=broken.inputs[:1]), ServingConfig())
        with pytest.raises(ServerError, match="the model needs the input 'attention_mask'"):
            client.load("broken")

    def test_input_of_another_type(self, client, broken):
        inputs = (TensorSpec("input_ids", "INT32", (-1,)), broken.inputs[1])
        write_config(replace(broken, inputs=inputs), ServingConfig())
        with pytest.raises(ServerError, match=r"'input_ids' is tensor\(int64\) in the model"):
            client.load("broken")

    def test_gpu_where_there_is_none(self, client, broken):
        write_config(broken, ServingConfig(instance_kind="gpu"))
        with pytest.raises(ServerError, match="GPU"):
            client.load("broken")

    def test_the_others_are_still_served(self, client, broken):
        (broken.path / "1" / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(ServerError):
            client.load("broken")
        assert client.infer("tiny", tiny_inputs([[7]]))["logits"][0, 0] == 7


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_port_taken_in_the_meantime_is_tried_again_elsewhere(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path, monkeypatch, which
):
    free_ports = embedded._free_ports
    calls = []
    with socket.socket() as faster_program:
        faster_program.bind(("127.0.0.1", 0))
        faster_program.listen()

        def choose() -> tuple[int, int, int]:
            ports = list(free_ports())
            if not calls:
                ports[which] = faster_program.getsockname()[1]
            calls.append(ports)
            return ports[0], ports[1], ports[2]

        monkeypatch.setattr(embedded, "_free_ports", choose)
        server = EmbeddedTriton(server_environment, tiny_repository, log_file=tmp_path / "log")
        with server, TritonClient(server.endpoint) as client:
            assert client.ready()
    assert len(calls) == 2


def test_interrupted_while_starting_leaves_nothing(
    server_environment: ServerEnvironment, tiny_repository: Path, tmp_path: Path, monkeypatch
):
    server = EmbeddedTriton(server_environment, tiny_repository, log_file=tmp_path / "log")

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_holds", interrupt)
    with pytest.raises(KeyboardInterrupt), server:
        pass
    assert not psutil.pid_exists(server.pid)

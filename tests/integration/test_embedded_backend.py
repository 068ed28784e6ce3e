"""The Python `onnxruntime` backend inside Triton: batches, errors, options, warm-up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import psutil
import pytest
from tiny_model import counters_at_rest, make_tiny_variant

from harness.errors import ServerError
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.repository import config_override
from harness.types import ModelVariant, ServingConfig, TensorSpec

pytestmark = pytest.mark.triton

HOLD_US = 1_000_000
"""A queue delay long enough that concurrent requests meet in one batch."""


@pytest.fixture
def client(embedded_triton: EmbeddedTriton):
    with TritonClient(embedded_triton.endpoint) as client:
        yield client


@pytest.fixture
def variant(tiny_repository: Path, client: TritonClient):
    variant = make_tiny_variant(tiny_repository, "backend-case")
    try:
        yield variant
        client.unload(variant.name)
    finally:
        shutil.rmtree(variant.path)


def load(client, variant: ModelVariant, change: Callable[[dict], None], **serving: int) -> None:
    config = json.loads(config_override(variant, ServingConfig(**serving)))
    change(config)
    client.load(variant.name, json.dumps(config))


def unchanged(config: dict) -> None:
    pass


def ids(*rows: list[int]) -> dict[str, np.ndarray]:
    array = np.array(rows, np.int64)
    return {"input_ids": array, "attention_mask": np.ones_like(array)}


def all_at_once(client: TritonClient, model: str, requests: list[dict]) -> list:
    """Each request's first logit by row, or its error."""

    together = Barrier(len(requests))

    def ask(inputs: dict) -> list[float] | ServerError:
        together.wait()
        try:
            return client.infer(model, inputs)["logits"][:, 0].tolist()
        except ServerError as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def executed(client: TritonClient, variant: ModelVariant) -> dict[int, int]:
    """Executions by batch size, the warm-up's own included (Triton counts them)."""
    statistics = counters_at_rest(client, variant.name)["batch_stats"]
    return {item["batch_size"]: item["compute_infer"]["count"] for item in statistics}


WARM_UP = {1: 1, 16: 1}


def test_joined_requests_get_their_own_rows(client, variant):
    load(client, variant, unchanged, queue_delay_us=HOLD_US)
    answers = all_at_once(client, variant.name, [ids([1]), ids([2], [3]), ids([4], [5], [6])])
    assert answers == [[1], [2, 3], [4, 5, 6]]
    assert executed(client, variant) == WARM_UP | {6: 1}


def test_differing_shapes_in_one_execution(client, variant):
    def ragged(config: dict) -> None:
        for tensor in config["input"]:
            tensor["allow_ragged_batch"] = True
        config["model_warmup"] = []

    load(client, variant, ragged, queue_delay_us=HOLD_US)
    answers = all_at_once(client, variant.name, [ids([1]), ids([2, 2]), ids([3]), ids([4, 4])])
    assert answers == [[1], [4], [3], [8]]
    assert executed(client, variant) == {4: 1}


def test_inputs_named_in_another_order_share_a_batch(client, variant):
    load(client, variant, unchanged, queue_delay_us=HOLD_US)
    answers = all_at_once(client, variant.name, [ids([1]), dict(reversed(ids([2]).items()))])
    assert answers == [[1], [2]]
    assert executed(client, variant) == WARM_UP | {2: 1}


def write_lookup_model(variant: ModelVariant) -> ModelVariant:
    """A table of three rows: a token of 3 or more is out of range, as with a real vocabulary."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = numpy_helper.from_array(np.array([[10.0], [11.0], [12.0]], np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "token"], ["logits"])],
        "lookup",
        [helper.make_tensor_value_info("token", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, variant.path / "1" / "model.onnx")
    return replace(
        variant,
        inputs=(TensorSpec("token", "INT64", ()),),
        outputs=(TensorSpec("logits", "FP32", (1,)),),
    )


def test_a_bad_request_fails_alone(client, variant):
    def scalar(config: dict) -> None:  # Triton's spelling of an input without further dimensions
        config["input"][0].update(dims=[1], reshape={"shape": []})

    load(client, write_lookup_model(variant), scalar, queue_delay_us=HOLD_US)
    tokens = [{"token": np.array([[token]], np.int64)} for token in (0, 99, 2)]
    first, bad, third = all_at_once(client, variant.name, tokens)
    assert (first, third) == ([10], [12])
    assert isinstance(bad, ServerError)
    assert "onnxruntime" in str(bad)
    assert "99" in str(bad)
    assert executed(client, variant) == {3: 1}


def test_a_model_without_batch_dimension(client, variant):
    def no_batching(config: dict) -> None:
        config["max_batch_size"] = 0
        del config["dynamic_batching"]
        config["model_warmup"] = []
        for tensor in config["input"]:
            tensor["dims"] = [-1, -1]
        config["output"][0]["dims"] = [-1, 3]

    load(client, variant, no_batching)
    assert all_at_once(client, variant.name, [ids([1], [2]), ids([3])]) == [[1, 2], [3]]


def test_every_instance_is_a_process_that_answers(client, variant, embedded_triton):
    server = psutil.Process(embedded_triton.pid)
    before = set(server.children())
    load(client, variant, unchanged, instance_count=3)
    assert len(set(server.children()) - before) == 3
    assert all_at_once(client, variant.name, [ids([n]) for n in range(12)]) == [
        [n] for n in range(12)
    ]


def test_warm_up_runs_at_batch_one_and_at_the_largest(client, variant):
    load(client, variant, unchanged, max_batch_size=8)
    assert executed(client, variant) == {1: 1, 8: 1}


def test_a_warm_up_sample_that_does_not_fit_fails_the_load(client, variant):

    def too_long(config: dict) -> None:
        assert config["model_warmup"]
        for warmup in config["model_warmup"]:
            warmup["inputs"]["input_ids"]["dims"] = [9]

    with pytest.raises(ServerError, match="warmup setting expects 72 bytes"):
        load(client, variant, too_long)


def test_impossible_parameter_is_the_load_errors_text(client, variant):
    def parallel(config: dict) -> None:
        config["parameters"]["execution_mode"] = {"string_value": "5"}

    with pytest.raises(ServerError, match="'execution_mode' must be 0 or 1, not 5"):
        load(client, variant, parallel)


def test_accelerators_are_told_once_and_served_without(client, variant, embedded_triton):
    def openvino(config: dict) -> None:
        config["optimization"] = {
            "execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}
        }

    load(client, variant, openvino, instance_count=2)
    assert all_at_once(client, variant.name, [ids([5])]) == [[5]]
    log = embedded_triton._log_file.read_text()
    assert log.count("ignores: optimization.execution_accelerators") == 1

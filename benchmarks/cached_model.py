"""A model whose answers all come from Triton's response cache: the client is then the limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb

from harness.errors import MissingExtraError
from harness.load.requests.payloads import write_payloads
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.types import TensorSpec

CACHED_MODEL = "cached"
TOKENS = 32
CLASSES = 10
OUTPUTS = (TensorSpec("logits", "FP32", (CLASSES,)),)
PAYLOADS_FILE = "payloads.npz"

_CACHE_BYTES = 64 * 2**20
_INPUTS = ("input_ids", "attention_mask")
_ROWS = 8
_IR_VERSION, _OPSET = 10, 20
"""What the embedded server's runtime loads."""


@contextmanager
def cached_server(environment: ServerEnvironment, folder: Path) -> Iterator[EmbeddedTriton]:
    """A running server with the model loaded; the payload file lies in the folder."""
    repository = folder / "models"
    write_cached_model(repository)
    write_payloads(folder / PAYLOADS_FILE, [rows(_ROWS)])
    with EmbeddedTriton(
        environment,
        repository,
        log_file=folder / "triton.log",
        response_cache_bytes=_CACHE_BYTES,
    ) as server:
        with TritonClient(server.endpoint) as client:
            client.load(CACHED_MODEL)
        yield server


def rows(count: int, tokens: int = TOKENS) -> dict[str, NDArray[Any]]:
    """Token numbers that every vocabulary has, unmasked; arrays (count, tokens)."""
    ids = np.random.default_rng(0).integers(5, 200, (count, tokens), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def write_cached_model(repository: Path) -> None:
    """Write the model, `logits = sum(input_ids * attention_mask) * (1 ... 10)`, and its config.

    Raises:
        MissingExtraError: there is no `onnx` to write it with.
    """
    folder = repository / CACHED_MODEL
    (folder / "1").mkdir(parents=True)
    _write_graph(folder / "1" / "model.onnx")
    config = pb.ModelConfig(name=CACHED_MODEL, backend="onnxruntime", max_batch_size=16)
    for name in _INPUTS:
        config.input.add(name=name, data_type=pb.TYPE_INT64, dims=[-1])
    config.output.add(name="logits", data_type=pb.TYPE_FP32, dims=[CLASSES])
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    config.response_cache.enable = True
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), "utf-8")


def _write_graph(path: Path) -> None:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    from onnx import TensorProto, helper, numpy_helper

    axes = ["batch", "sequence"]
    weights = np.arange(1, CLASSES + 1, dtype=np.float32)[None]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", list(_INPUTS), ["kept"]),
            helper.make_node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["numbers", "axes"], ["total"], keepdims=1),
            helper.make_node("Mul", ["total", "weights"], ["logits"]),
        ],
        CACHED_MODEL,
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in _INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION), path)

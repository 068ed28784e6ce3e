"""A model small enough to be checked by hand; it needs neither torch nor a checkpoint.

`logits[i] = sum(input_ids[i] * attention_mask[i]) * WEIGHTS`
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.serving.endpoint import TritonClient
from harness.serving.repository import write_config
from harness.telemetry.triton import read_at_rest
from harness.types import (
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServingConfig,
    TensorSpec,
)

TINY_MODEL = "tiny"
TINY_WEIGHTS = (1.0, -0.5, 2.0)


def write_tiny_model(path: Path, *, weights: tuple[float, ...] = TINY_WEIGHTS) -> None:
    """Write the tiny model as ONNX of the age that the server's runtime loads (IR 10, opset 20)."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    tokens = ["batch", "sequence"]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
            helper.make_node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["numbers", "axes"], ["total"], keepdims=1),
            helper.make_node("Mul", ["total", "weights"], ["logits"]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, tokens),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(weights)])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
            numpy_helper.from_array(np.array([weights], np.float32), "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def make_tiny_variant(repository: Path, name: str = TINY_MODEL) -> ModelVariant:
    """Write the tiny model, its warm-up sample and its configuration into a repository."""
    folder = repository / name
    model = folder / "1" / "model.onnx"
    write_tiny_model(model)
    (folder / "warmup").mkdir()
    for tensor in ("input_ids", "attention_mask"):
        (folder / "warmup" / tensor).write_bytes(np.ones(8, np.int64).tobytes())
    variant = ModelVariant(
        name=name,
        family="tiny",
        role=Role.TEACHER,
        task="sequence-classification",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="tests",
        sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        path=folder,
        inputs=(
            TensorSpec("input_ids", "INT64", (-1,)),
            TensorSpec("attention_mask", "INT64", (-1,)),
        ),
        outputs=(TensorSpec("logits", "FP32", (len(TINY_WEIGHTS),)),),
        parameters=len(TINY_WEIGHTS),
        size_bytes=model.stat().st_size,
    )
    write_config(variant, ServingConfig())
    return variant


def counters_at_rest(client: TritonClient, model: str = TINY_MODEL) -> dict[str, Any]:
    """The model's statistics once they no longer move: a request is booked just after its answer.

    Args:
        client: of a server that has the model loaded, and no traffic.
        model: its name there.
    """
    return read_at_rest(partial(client.statistics, model))

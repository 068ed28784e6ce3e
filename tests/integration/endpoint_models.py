"""Tiny ONNX models whose answers numpy can tell, served under the names of real ones' tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.serving.repository import write_config
from harness.types import (
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServingConfig,
    TensorSpec,
)

VOCABULARY = 50
CLASSES = ("arts", "law", "science")
EMBEDDING = np.random.default_rng(4).normal(size=(VOCABULARY, 3)).astype(np.float32)
LOG_PROBABILITY = -np.random.default_rng(5).gamma(4, size=VOCABULARY).astype(np.float32)

_TOKENS = (TensorSpec("input_ids", "INT64", (-1,)), TensorSpec("attention_mask", "INT64", (-1,)))
_LOGITS = (TensorSpec("logits", "FP32", (3,)),)


def classifier(repository: Path, name: str = "classifier") -> ModelVariant:
    """`logits` = the sum of the real tokens' embeddings; a token id above 49 makes it fail."""
    return _write(repository, name, "sequence-classification", _LOGITS, _logits("logits"))


def batch_scaled(repository: Path) -> ModelVariant:
    """`logits` over the largest of the whole batch, as int8 activation scales are."""
    nodes = [
        *_logits("raw"),
        helper.make_node("Abs", ["raw"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["largest"], keepdims=0),
        helper.make_node("Div", ["raw", "largest"], ["logits"]),
    ]
    return _write(repository, "scaled", "sequence-classification", _LOGITS, nodes)


def language_model(repository: Path) -> ModelVariant:
    """`token_logprobs` by a table of token ids, padding included; the next token is id + 1."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["token_logprobs"]),
        helper.make_node("Add", ["input_ids", "attention_mask"], ["greedy_token_ids"]),
    ]
    outputs = (
        TensorSpec("token_logprobs", "FP32", (-1,)),
        TensorSpec("greedy_token_ids", "INT64", (-1,)),
    )
    return _write(repository, "speaker", "causal-lm", outputs, nodes)


def _logits(output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", ["embedding", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["real"]),
        helper.make_node("ReduceSum", ["real", "length"], [output], keepdims=0),
    ]


def _write(
    repository: Path,
    name: str,
    task: str,
    outputs: tuple[TensorSpec, ...],
    nodes: Sequence[onnx.NodeProto],
) -> ModelVariant:
    constants = {
        "embedding": EMBEDDING,
        "table": LOG_PROBABILITY,
        "last": np.array([2]),
        "length": np.array([1]),
    }
    used = {tensor for node in nodes for tensor in node.input}
    graph = helper.make_graph(
        nodes,
        name,
        [_value(spec) for spec in _TOKENS],
        [_value(spec) for spec in outputs],
        [numpy_helper.from_array(constants[key], key) for key in sorted(used & constants.keys())],
    )
    # What the pinned ONNX Runtime loads: IR 10, opset 20.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = repository / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    variant = ModelVariant(
        name=name,
        family="tiny",
        role=Role.STUDENT,
        task=task,
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="",
        sha256=f"digest of {name}",
        path=repository / name,
        inputs=_TOKENS,
        outputs=outputs,
        parameters=0,
        size_bytes=path.stat().st_size,
    )
    write_config(variant, ServingConfig(max_batch_size=8))
    return variant


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = {"INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT}[spec.datatype]
    dims = ["batch", *("length" if size < 0 else size for size in spec.shape)]
    return helper.make_tensor_value_info(spec.name, kind, dims)

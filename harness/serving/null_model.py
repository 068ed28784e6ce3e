"""The null model: a graph with nothing to compute, served as the variants are.

What a request to it takes is the server's own: front end, scheduler, backend, copies. A student of
a tenth of a millisecond is mostly that, and its throughput says little about the student.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.system.libraries import require_extra
from harness.system.storage import storage_errors
from harness.types import ModelFormat, ModelVariant, Precision, Role, TensorSpec

NAME = "harness-null"
_IR_VERSION, _OPSET = 8, 17
"""What ONNX Runtime has read since 2022: every server's backend loads it."""


def write_null_model(repository: Path, inputs: tuple[TensorSpec, ...]) -> ModelVariant:
    """Write the null model into a model repository; the same inputs give the same file.

    Args:
        repository: gets the folder `harness-null`.
        inputs: integers of shape (length,), as a variant takes them; the answer is the first
            element of the first, as a float of shape (1,).

    Raises:
        EnvironmentFailure: the package `onnx` is missing.
        StorageError: the folder cannot be written.
    """
    require_extra("onnx", extra="export")
    from onnx import TensorProto, helper

    types = {"INT64": TensorProto.INT64, "INT32": TensorProto.INT32}
    taken = [
        helper.make_tensor_value_info(one.name, types[one.datatype], ["batch", "length"])
        for one in inputs
    ]
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["batch", 1])
    one_by_one = [helper.make_tensor(name, TensorProto.INT64, [1], [at]) for name, at in _CORNERS]
    nodes = [
        helper.make_node("Slice", [inputs[0].name, "from", "to", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["answer"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "null", taken, [answer], initializer=one_by_one)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    data = model.SerializeToString()
    folder = repository / NAME
    with storage_errors(folder):
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "1" / "model.onnx").write_bytes(data)
    return ModelVariant(
        name=NAME,
        family="",
        role=Role.CONTROL,
        task="",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="",
        sha256=hashlib.sha256(data).hexdigest(),
        path=folder,
        inputs=inputs,
        outputs=(TensorSpec("answer", "FP32", (1,)),),
        parameters=0,
        size_bytes=len(data),
    )


_CORNERS = (("from", 0), ("to", 1), ("axis", 1))

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from harness.errors import CheckpointError, EnvironmentFailure
from harness.export.convert import (
    artefact_files,
    check_loadable,
    write_fp16,
    write_fp32,
    write_int8,
)


def small_graph(ir_version=10, opset=20):
    """logits = float(input_ids) @ weight, with the exporter's kind of notes in it."""
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weight"], ["logits"]),
    ]
    for node in nodes:
        node.doc_string = "traced at /somewhere/model.py:7"
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/somewhere/model.py:7")
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(
        graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)]
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.onnx"
    path.write_bytes(small_graph().SerializeToString())
    return path


@pytest.mark.parametrize(("ir_version", "opset"), [(10, 21), (8, 13)])
def test_what_the_pinned_server_loads_passes(ir_version, opset):
    check_loadable(small_graph(ir_version, opset), "m")


@pytest.mark.parametrize(("ir_version", "opset"), [(11, 20), (10, 22), (14, 26)])
def test_what_is_too_new_is_refused_with_both_numbers(ir_version, opset):
    with pytest.raises(EnvironmentFailure) as caught:
        check_loadable(small_graph(ir_version, opset), "model.onnx")
    assert f"IR version {ir_version} and opset {opset}" in str(caught.value)
    assert "IR version 10 and opset 21 at most" in str(caught.value)
    assert "torch==2.13.0" in caught.value.next_step


@pytest.mark.parametrize(
    ("write", "stored"), [(write_int8, TensorProto.INT8), (write_fp16, TensorProto.FLOAT16)]
)
def test_a_derived_graph_stores_its_precision_and_no_path_of_this_machine(
    tmp_path, source, write, stored
):
    path, again = tmp_path / "one.onnx", tmp_path / "two.onnx"
    write(source, path)
    write(source, again)
    model = onnx.load(path)
    assert stored in {one.data_type for one in model.graph.initializer}
    assert [one.name for one in model.graph.input] == ["input_ids"]
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert b"/somewhere" not in path.read_bytes()
    assert path.read_bytes() == again.read_bytes()
    assert artefact_files(path) == [path]


def test_weights_too_large_for_one_file_lie_beside_the_graph(tmp_path):
    """Above protobuf's 2 GB; here the limit is set low instead."""
    from torch import nn

    class Embedded(nn.Module):
        output_names = ("logits",)

        def __init__(self):
            super().__init__()
            self.model = nn.Embedding(64, 32)

        def forward(self, input_ids):
            return (self.model(input_ids).sum(1),)

    example = {"input_ids": np.arange(6).reshape(2, 3)}
    graph = Embedded().requires_grad_(requires_grad=False)
    paths = [tmp_path / name / "model.onnx" for name in ("fp32", "int8", "fp16")]
    for path in paths:
        path.parent.mkdir()
    write_fp32(graph, example, paths[0], single_file_limit_bytes=1000)
    write_int8(paths[0], paths[1])
    write_fp16(paths[0], paths[2])
    for path, tolerance in zip(paths, (1e-5, 0.1, 0.05), strict=True):
        assert artefact_files(path) == [path, path.with_name("model.onnx.data")]
        # Named without a folder, so that the two can move together.
        (answer,) = onnxruntime.InferenceSession(path).run(None, example)
        np.testing.assert_allclose(
            answer, graph(torch.tensor(example["input_ids"]))[0], atol=tolerance
        )


def test_what_torch_cannot_export_is_said_of_the_model(tmp_path):
    from torch import nn

    class Branching(nn.Module):
        output_names = ("logits",)

        def __init__(self):
            super().__init__()
            self.model = nn.Identity()

        def forward(self, input_ids):
            return (input_ids * 2 if input_ids.sum().item() > 3 else input_ids,)

    example = {"input_ids": np.arange(6).reshape(2, 3)}
    with pytest.raises(CheckpointError, match="torch cannot export Identity to ONNX"):
        write_fp32(Branching(), example, tmp_path / "model.onnx")

"""A kept graph gets other weights only where each has one place, and only if it answers right."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests import kept_graphs
from tests.kept_graphs import kept_graphs as kept

EXAMPLE = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}


class Layer(nn.Module):
    """A linear layer with what an export's key looks at."""

    def __init__(self, seed: int, *, bias: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = SimpleNamespace(config=SimpleNamespace(to_dict=dict))
        self.linear = nn.Linear(4, 3)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.linear(x),)


class Exporter:
    """Stands for `write_fp32`: turns the matrix round and drops a bias of zeros, as torch does."""

    def __init__(self) -> None:
        self.exports = 0

    def __call__(self, graph, example, path):
        self.exports += 1
        weight, bias = (one.detach().numpy() for one in graph.linear.parameters())
        tensors = [numpy_helper.from_array(np.ascontiguousarray(weight.T), "val_1")]
        nodes = [helper.make_node("MatMul", ["x", "val_1"], ["y" if not bias.any() else "z"])]
        if bias.any():
            tensors.append(numpy_helper.from_array(bias, "linear.bias"))
            nodes.append(helper.make_node("Add", ["z", "linear.bias"], ["y"]))
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
            for name, size in (("x", 4), ("y", 3))
        ]
        body = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(body, opset_imports=opset, ir_version=10)
        path.write_bytes(model.SerializeToString())


@pytest.fixture
def exporter(monkeypatch):
    made = Exporter()
    monkeypatch.setattr(kept_graphs, "write_fp32", made)
    return made


def exported(graph, path, example=EXAMPLE):
    kept_graphs.harness.export.source.write_fp32(graph, example, path)
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def test_other_weights_take_the_places_of_those_that_were_exported(exporter, tmp_path):
    other = Layer(2, bias=0.25)
    with kept(tmp_path / "kept"):
        exported(Layer(1), tmp_path / "first.onnx")
        found = exported(other, tmp_path / "second.onnx")
        again = exported(Layer(1), tmp_path / "third.onnx")
    assert exporter.exports == 1
    np.testing.assert_array_equal(found["val_1"], other.linear.weight.detach().numpy().T)
    np.testing.assert_array_equal(found["linear.bias"], [0.25, 0.25, 0.25])
    np.testing.assert_array_equal(again["val_1"], Layer(1).linear.weight.detach().numpy().T)


def test_an_example_of_another_length_needs_no_export_of_its_own(exporter, tmp_path):
    other = Layer(2)
    with kept(tmp_path / "kept"):
        exported(Layer(1), tmp_path / "first.onnx")
        found = exported(other, tmp_path / "second.onnx", {"x": EXAMPLE["x"][:2]})
    assert exporter.exports == 1
    np.testing.assert_array_equal(found["val_1"], other.linear.weight.detach().numpy().T)


def test_who_tests_the_export_takes_no_exchanged_weights_and_leaves_his_for_the_others(
    exporter, tmp_path
):
    with kept(tmp_path / "kept"):
        exported(Layer(1), tmp_path / "first.onnx")
        exchanged = exported(Layer(2), tmp_path / "second.onnx")
    assert exporter.exports == 1
    with kept(tmp_path / "kept", own=True):
        own = exported(Layer(2), tmp_path / "third.onnx")
        again = exported(Layer(2), tmp_path / "fourth.onnx")
        exported(Layer(1), tmp_path / "fifth.onnx")
    assert exporter.exports == 2
    with kept(tmp_path / "kept"):
        other = exported(Layer(2), tmp_path / "sixth.onnx")
    assert exporter.exports == 2
    for found in (exchanged, again, other):
        np.testing.assert_array_equal(found["val_1"], own["val_1"])


def test_what_the_first_export_left_out_is_exported(exporter, tmp_path):
    with kept(tmp_path / "kept"):
        exported(Layer(1, bias=0.0), tmp_path / "first.onnx")
        found = exported(Layer(2, bias=0.25), tmp_path / "second.onnx")
    assert exporter.exports == 2
    np.testing.assert_array_equal(found["linear.bias"], [0.25, 0.25, 0.25])


def test_a_place_that_two_weights_could_take_is_exported(exporter, tmp_path):
    first = Layer(1)
    nn.init.constant_(first.linear.weight, 0.5)
    first.register_buffer("shadow", first.linear.weight.detach().clone())
    second = Layer(2)
    second.register_buffer("shadow", torch.zeros(3, 4))
    with kept(tmp_path / "kept"):
        exported(first, tmp_path / "first.onnx")
        exported(second, tmp_path / "second.onnx")
    assert exporter.exports == 2

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.profiling.operators import Tensor, inner_size, onnx_cost, onnx_operators, torch_cost

sizes = st.integers(1, 40)


@given(m=sizes, k=sizes, n=sizes, batch=st.lists(sizes, max_size=2))
def test_a_product_costs_two_operations_for_each_of_its_terms(m, k, n, batch):
    left, out = (*batch, m, k), (*batch, m, n)
    assert inner_size(left, out) == k
    assert inner_size((*batch, k, m), out) == k  # transposed
    cost = onnx_cost("MatMul", [Tensor("float", left), Tensor("float", (k, n))],
                     [Tensor("float", out)])  # fmt: skip
    assert cost.operations == 2 * math.prod(batch) * m * k * n
    assert cost.moved_bytes == 4 * (math.prod(left) + k * n + math.prod(out))


def test_weights_that_onnx_runtime_packed_away_still_move():
    packed = onnx_cost("MatMul", [Tensor("float", (4, 32, 192))], [Tensor("float", (4, 32, 768))])
    listed = onnx_cost("MatMul", [Tensor("float", (4, 32, 192)), Tensor("float", (192, 768))],
                       [Tensor("float", (4, 32, 768))])  # fmt: skip
    assert packed == listed
    quantised = onnx_cost("DynamicQuantizeMatMul",
                          [Tensor("float", (4, 32, 192)), Tensor("float", ()), Tensor("int8", ())],
                          [Tensor("float", (4, 32, 768))])  # fmt: skip
    assert quantised.datatype == "int8"
    assert quantised.operations == packed.operations
    assert packed.moved_bytes - quantised.moved_bytes == 192 * 768 * 3 - 4 - 1


def test_other_operators_move_bytes_and_are_not_counted():
    cost = onnx_cost("Softmax", [Tensor("float", (2, 8))], [Tensor("float", (2, 8))])
    assert cost.operations is None
    assert cost.moved_bytes == 2 * 2 * 8 * 4
    assert torch_cost("aten::softmax", [(2, 8)]) is None


def test_pytorch_counts_the_same_products_alike():
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile

    bias, left, right = torch.rand(7), torch.rand(5, 6), torch.rand(6, 7)
    with profile(
        activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True
    ) as profiler:
        torch.addmm(bias, left, right)
        torch.mm(left, right)
        torch.bmm(torch.rand(3, 5, 6), torch.rand(3, 6, 7))
    found = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        cost = torch_cost(event.key, event.input_shapes)
        if cost:
            found[event.key] = cost
            assert cost.operations == event.flops, event.key
    assert set(found) == {"aten::addmm", "aten::mm", "aten::bmm"}
    assert found["aten::addmm"].moved_bytes == 4 * (7 + 30 + 42 + 35)


def node(name, kind, ts, dur, inputs, outputs):
    shapes = {"input_type_shape": inputs, "output_type_shape": outputs}
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": ts,
        "dur": dur,
        "args": {"op_name": kind, **shapes},
    }


def test_only_the_counted_calls_of_a_trace_are_averaged():
    product = ([{"float": [2, 3]}, {"float": [3, 4]}], [{"float": [2, 4]}])
    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9},
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 900},
        node("product", "MatMul", 11, 800, *product),
        *(
            event
            for start, spans in ((1000, (20, 5)), (2000, (30, 7)))
            for event in (
                node("product", "MatMul", start + 1, spans[0], *product),
                node("soft", "Softmax", start + 50, spans[1], [{"float": [2]}], [{"float": [2]}]),
                {"cat": "Session", "name": "model_run", "ts": start, "dur": 60},
            )
        ),
    ]
    first, second = onnx_operators(events, runs=2)
    assert (first.name, first.kind, first.calls, first.time_us) == ("product", "MatMul", 1, 25)
    assert first.operations == 2 * 2 * 3 * 4
    assert first.operations_per_s == pytest.approx(48 / 25e-6)
    assert (second.name, second.time_us, second.intensity) == ("soft", 6, None)
    assert np.isfinite(first.intensity)

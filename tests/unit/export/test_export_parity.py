"""The gate on graphs of one matrix, so that what passes and what fails is known beforehand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.errors import ParityError
from harness.export.parity import OnnxExecutor, check_parity
from harness.tasks.parity import Probe
from harness.tasks.registry import family_of
from harness.types import Precision

VOCABULARY, LABELS = 16, 4
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, LABELS)).astype(np.float32)


def write_classifier(path, table):
    """logits = sum over the sequence of table[input_ids]."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["logits"], keepdims=0),
        helper.make_node("Identity", ["attention_mask"], ["unused"]),
    ]
    sides = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        sides,
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", LABELS])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return path


def make_probe(batch, length, seed):
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (batch, length))
    values = TABLE[ids].sum(1)
    ordered = np.sort(values, axis=-1)
    return Probe(
        inputs={"input_ids": ids, "attention_mask": np.ones_like(ids)},
        values=values,
        choices=values.argmax(-1),
        margins=ordered[:, -1] - ordered[:, -2],
        value_counts=np.ones_like(values, dtype=bool),
        choice_counts=np.ones(batch, dtype=bool),
        offset_free=True,
    )


CLASSIFIER = family_of("sequence-classification")
PROBES = tuple(make_probe(batch, length, batch) for batch, length in ((1, 5), (8, 9), (32, 16)))


def check(path, table, precision):
    return check_parity(
        OnnxExecutor(write_classifier(path / "m.onnx", table)), CLASSIFIER, PROBES, precision, "m"
    )


@pytest.mark.parametrize("precision", list(Precision))
def test_the_same_weights_pass(tmp_path, precision):
    parity = check(tmp_path, TABLE, precision)
    assert parity.max_difference < 1e-5
    assert parity.agreement == 1
    assert parity.shapes == ((1, 5), (8, 9), (32, 16))


def test_fp32_allows_rounding_and_no_more(tmp_path):
    check(tmp_path, TABLE + 1e-6, Precision.FP32)
    with pytest.raises(ParityError, match=r"m disagrees .* largest difference .* allowed 0.0001"):
        check(tmp_path, TABLE + 1e-3, Precision.FP32)
    check(tmp_path, TABLE + 1e-3, Precision.FP16)


def test_int8_allows_noise_but_not_a_broken_scale(tmp_path):
    noise = np.random.default_rng(1).normal(size=TABLE.shape)
    parity = check(tmp_path, TABLE + 0.1 * noise, Precision.INT8)
    assert 0.05 < parity.relative_rms < 0.25
    with pytest.raises(ParityError, match=r"relative error .* allowed 0\.25"):
        check(tmp_path, TABLE + 0.5 * noise, Precision.INT8)
    with pytest.raises(ParityError, match="relative error"):
        check(tmp_path, TABLE * 2, Precision.INT8)
    with pytest.raises(ParityError) as caught:
        check(tmp_path, TABLE * 0, Precision.INT8)
    assert "drop int8 from this model's precisions" in caught.value.next_step


def test_swapped_classes_fail_in_every_precision(tmp_path):
    for precision in Precision:
        with pytest.raises(ParityError, match="clear predictions, required"):
            check(tmp_path, TABLE[:, [1, 0, 2, 3]], precision)


def test_what_is_no_number_fails_with_its_shape(tmp_path):
    with pytest.raises(ParityError, match=r"NaN or infinity at \(batch, sequence\) \(1, 5\)"):
        check(tmp_path, np.full_like(TABLE, np.nan), Precision.INT8)


def test_positions_that_do_not_count_are_not_compared(tmp_path):
    """Padding may hold anything, in both of the compared things."""
    (probe, *_) = PROBES
    spoilt = Probe(
        inputs=probe.inputs,
        values=np.where([[True, False, False, False]], probe.values, 99),
        choices=probe.choices + 1,
        margins=probe.margins,
        value_counts=np.array([[True, False, False, False]]),
        choice_counts=np.zeros_like(probe.choice_counts),
        offset_free=True,
    )
    path = write_classifier(tmp_path / "m.onnx", TABLE)
    parity = check_parity(OnnxExecutor(path), CLASSIFIER, [spoilt], Precision.FP32, "m")
    assert parity.clear_predictions == 0

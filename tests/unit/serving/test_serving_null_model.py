"""The null model computes nothing: it says the first element of its first input."""

import numpy as np
import onnxruntime

from harness.serving.null_model import NAME, write_null_model
from harness.types import TensorSpec

INPUTS = (TensorSpec("input_ids", "INT64", (-1,)), TensorSpec("attention_mask", "INT64", (-1,)))


def test_it_answers_every_row_whatever_the_batch_and_the_length(tmp_path):
    variant = write_null_model(tmp_path, INPUTS)
    session = onnxruntime.InferenceSession(str(tmp_path / NAME / "1" / "model.onnx"))
    for shape in ((1, 1), (3, 7), (16, 128)):
        ids = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
        (answer,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert answer.dtype == np.float32
        assert answer.tolist() == ids[:, :1].astype(np.float32).tolist()
    assert variant.outputs == (TensorSpec("answer", "FP32", (1,)),)


def test_the_same_inputs_make_the_same_file(tmp_path):
    assert write_null_model(tmp_path, INPUTS).sha256 == write_null_model(tmp_path, INPUTS).sha256

"""The null model computes nothing: it says the first element of its first input."""

import numpy as np
import onnxruntime

from harness.serving.models import override_for
from harness.serving.null_model import NAME, write_null_model
from harness.serving.repository import config_override
from harness.types import ServingConfig, TensorSpec

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


def test_it_is_loaded_as_a_model_without_a_task(tmp_path):
    """What Triton is told of it is what it is told of any model that is no generating one."""
    variant, serving = write_null_model(tmp_path, INPUTS), ServingConfig(max_batch_size=8)
    assert override_for(variant, serving) == config_override(variant, serving)

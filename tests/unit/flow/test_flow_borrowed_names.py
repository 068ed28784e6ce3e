"""A study's tensors as an external model names and types them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.errors import UsageError
from harness.flow.external.tensors import NamingClient, names_of, task_outputs
from harness.serving.external.server import ExternalModel
from harness.tasks.registry import family_of
from harness.types import ServingConfig, TensorSpec

CLASSES = family_of("sequence-classification")
INPUTS = (TensorSpec("ids", "INT32", (-1, -1)), TensorSpec("mask", "FP32", (-1, -1)))
OUTPUTS = (TensorSpec("total", "FP32", (1,)), TensorSpec("scores", "FP16", (-1, -1)))
FOUND = ExternalModel("m", INPUTS, OUTPUTS, ServingConfig(max_batch_size=0))
IDS = np.array([[5, 6, 0]], np.int64)
GROUP = {"input_ids": IDS, "attention_mask": (IDS > 0).astype(np.int64), "token_type_ids": 0 * IDS}


def model(**changes: Any) -> Any:
    inputs = {"input_ids": "ids", "attention_mask": "mask"}
    told = {"inputs": inputs, "outputs": {"logits": "scores"}, **changes}
    return SimpleNamespace(name="student", **told)


def test_payloads_have_its_names_and_datatypes() -> None:
    (sent,) = names_of(model(), FOUND, CLASSES, "url").groups([GROUP])
    assert {name: array.dtype.name for name, array in sent.items()} == {
        "ids": "int32",
        "mask": "float32",
    }
    np.testing.assert_array_equal(sent["ids"], IDS)


def test_segments_that_say_something_are_not_left_out() -> None:
    names = names_of(model(), FOUND, CLASSES, "url")
    assert "token_type_ids" in names.named({**GROUP, "token_type_ids": IDS})


def test_its_answers_are_there_under_both_names() -> None:
    asked = []

    class Client:
        def statistics(self, name: str) -> dict[str, Any]:
            return {"name": name}

        def infer(self, name: str, inputs: Any) -> dict[str, Any]:
            asked.append({key: array.dtype.name for key, array in inputs.items()})
            return {"scores": np.array([[1.0, 2.0]])}

    client = NamingClient(Client(), {"m": names_of(model(), FOUND, CLASSES, "url")})
    answer = client.infer("m", GROUP)
    assert answer.keys() == {"scores", "logits"}
    assert answer["logits"] is answer["scores"]
    assert asked == [{"ids": "int32", "mask": "float32"}]
    assert client.infer("another", GROUP).keys() == {"scores"}


def test_an_output_that_is_not_there_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="has no output 'logits': it has total, scores") as caught:
        names_of(model(outputs={}), FOUND, CLASSES, "url")
    assert "outputs: {logits: total}" in caught.value.next_step
    with pytest.raises(UsageError, match="outputs names 'score', which a task of"):
        names_of(model(outputs={"score": "scores"}), FOUND, CLASSES, "url")


def test_a_classifier_s_dynamic_classes_are_those_of_the_data() -> None:
    names = names_of(model(), FOUND, CLASSES, "url")
    (only,) = task_outputs(FOUND, names, CLASSES, 4).outputs
    assert only == TensorSpec("scores", "FP16", (-1, 4))

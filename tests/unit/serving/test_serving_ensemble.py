"""The folders and configurations that make a variant a whole ensemble."""

import dataclasses
import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.serving.ensemble import (
    TextTokenizer,
    load_ensemble,
    make_ensemble,
    unload_ensemble,
    write_ensemble,
)
from harness.tasks.outcomes import TextAnswer
from harness.types import (
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServingConfig,
    TensorSpec,
)

SERVING = ServingConfig(max_batch_size=8, queue_delay_us=500, instance_count=2)
NAMES = ["student-fp32-tokenize", "student-fp32-label", "student-fp32-ensemble"]


@pytest.fixture
def ensemble(tmp_path: Path):
    model = ModelVariant(
        name="student-fp32",
        family="pairs",
        role=Role.STUDENT,
        task="sequence-classification",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source="",
        sha256="0" * 64,
        path=tmp_path / "student-fp32",
        inputs=tuple(TensorSpec(n, "INT64", (-1,)) for n in ("input_ids", "attention_mask")),
        outputs=(TensorSpec("logits", "FP32", (2,)),),
        parameters=1,
        size_bytes=1,
    )
    tokenizer = TextTokenizer("{}", True, 32, (16, 32), 5, 0, "left", split_special_tokens=True)
    return make_ensemble(model, tokenizer, answer("yes", "no"))


def answer(*labels: str) -> TextAnswer:
    outputs = (TensorSpec("LABEL", "BYTES", (1,)), TensorSpec("SCORE", "FP32", (1,)))
    return TextAnswer(outputs, "label", {"labels": json.dumps(labels)})


def configs(folder: Path) -> dict[str, pb.ModelConfig]:
    return {
        path.parent.name: text_format.Parse(path.read_text(), pb.ModelConfig())
        for path in folder.glob("*/config.pbtxt")
    }


def test_three_folders_stand_beside_the_models_own(ensemble, tmp_path):
    write_ensemble(ensemble, SERVING)
    found = configs(tmp_path)
    assert sorted(found) == sorted(NAMES)
    assert {config.max_batch_size for config in found.values()} == {8}
    tokenize, label = found["student-fp32-tokenize"], found["student-fp32-label"]
    assert [(one.name, one.data_type) for one in tokenize.input] == [
        ("TEXT", pb.TYPE_STRING),
        ("TEXT_PAIR", pb.TYPE_STRING),
    ]
    settings = json.loads(tokenize.parameters["settings"].string_value)
    assert settings == {
        "truncation": {
            "max_length": 32,
            "stride": 0,
            "strategy": "longest_first",
            "direction": "left",
        },
        "split_special_tokens": True,
        "buckets": [16, 32],
        "pads": {"input_ids": 5, "attention_mask": 0, "token_type_ids": 0},
    }
    assert json.loads(label.parameters["labels"].string_value) == ["yes", "no"]
    for name in NAMES[:2]:
        compile((tmp_path / name / "1" / "model.py").read_text(), name, "exec")
    beside = tmp_path / "student-fp32-tokenize" / "1"
    assert (beside / "tokenizer.json").read_text() == "{}"
    compile((beside / "text_tensors.py").read_text(), "text_tensors", "exec")
    assert (tmp_path / "student-fp32-ensemble" / "1").is_dir()  # Triton wants a version


def test_the_ensemble_hands_each_parts_outputs_to_the_next(ensemble, tmp_path):
    write_ensemble(ensemble, SERVING)
    steps = configs(tmp_path)["student-fp32-ensemble"].ensemble_scheduling.step
    assert tuple(step.model_name for step in steps) == ensemble.parts
    made = {"TEXT", "TEXT_PAIR"}
    for step in steps:
        assert set(step.input_map.values()) <= made
        made |= set(step.output_map.values())
    assert {"LABEL", "SCORE"} <= made


def test_its_digest_is_that_of_all_that_decides_its_answers(ensemble):
    model, tokenizer = ensemble.model, ensemble.tokenizer
    other = make_ensemble(model, tokenizer, answer("no", "yes"))
    assert other.variant.sha256 != ensemble.variant.sha256 != model.sha256
    for setting in ({"truncation_side": "right"}, {"split_special_tokens": False}):
        changed = dataclasses.replace(tokenizer, **setting)
        again = make_ensemble(model, changed, answer("yes", "no"))
        assert again.variant.sha256 != ensemble.variant.sha256
    assert make_ensemble(model, tokenizer, answer("yes", "no")).variant == ensemble.variant


class Control:
    def __init__(self):
        self.calls = []

    def load(self, model, config=None):
        self.calls.append(("load", model, json.loads(config)["max_batch_size"]))

    def unload(self, model):
        self.calls.append(("unload", model))


def test_the_ensemble_is_loaded_last_and_unloaded_first(ensemble):
    control = Control()
    load_ensemble(control, ensemble, SERVING)
    unload_ensemble(control, ensemble)
    loaded = [call[1] for call in control.calls if call[0] == "load"]
    gone = [call[1] for call in control.calls if call[0] == "unload"]
    assert loaded == ["student-fp32", *NAMES]
    assert gone[0] == NAMES[-1]
    assert sorted(gone) == sorted(loaded)
    assert {call[2] for call in control.calls if call[0] == "load"} == {8}

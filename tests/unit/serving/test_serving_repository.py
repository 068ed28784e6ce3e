import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.errors import StorageError
from harness.serving.repository import config_override, model_config, write_config
from harness.types import (
    Accelerator,
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    ServingConfig,
    TensorSpec,
)

SERVING = ServingConfig(max_batch_size=8, queue_delay_us=2000, instance_count=2, intra_op_threads=3)


@pytest.fixture
def variant(tmp_path: Path) -> ModelVariant:
    folder = tmp_path / "student-int8"
    folder.mkdir()
    return ModelVariant(
        name="student-int8",
        family="topics",
        role=Role.STUDENT,
        task="sequence-classification",
        format=ModelFormat.ONNX,
        precision=Precision.INT8,
        source="reference:topics-student",
        sha256="0" * 64,
        path=folder,
        inputs=(
            TensorSpec("input_ids", "INT64", (-1,)),
            TensorSpec("attention_mask", "INT64", (-1,)),
        ),
        outputs=(TensorSpec("logits", "FP32", (10,)),),
        parameters=1,
        size_bytes=1,
    )


def add_warmup(variant: ModelVariant, tokens: int) -> None:
    (variant.path / "warmup").mkdir()
    for spec in variant.inputs:
        (variant.path / "warmup" / spec.name).write_bytes(np.ones(tokens, np.int64).tobytes())


def test_the_file_says_what_the_serving_configuration_says(variant):
    path = write_config(variant, SERVING)
    assert path == variant.path / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    assert config.name == "student-int8"
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == 8
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (2, pb.ModelInstanceGroup.KIND_CPU)
    ]
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert [(item.name, item.data_type, list(item.dims)) for item in config.input] == [
        ("input_ids", pb.TYPE_INT64, [-1]),
        ("attention_mask", pb.TYPE_INT64, [-1]),
    ]
    assert [(item.name, item.data_type, list(item.dims)) for item in config.output] == [
        ("logits", pb.TYPE_FP32, [10])
    ]


def test_override_is_the_whole_configuration_in_proto_field_names(variant):
    add_warmup(variant, 5)
    text = config_override(variant, SERVING)
    assert "max_batch_size" in json.loads(text)
    parsed = json_format.Parse(text, pb.ModelConfig())
    assert list(parsed.version_policy.specific.versions) == [1]
    parsed.ClearField("version_policy")
    assert parsed == model_config(variant, SERVING)


def test_gpu_instances(variant):
    config = model_config(variant, replace(SERVING, instance_kind="gpu"))
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU


def test_tensorrt_plans_have_their_own_backend_and_no_thread_count(variant):
    config = model_config(replace(variant, format=ModelFormat.TENSORRT), SERVING)
    assert config.backend == "tensorrt"
    assert not config.parameters


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP32])
def test_an_accelerator_of_graphs_is_named_as_the_backend_knows_it(variant, precision):
    serving = replace(SERVING, instance_kind="gpu", accelerator=Accelerator.TENSORRT)
    graph = replace(variant, precision=precision)
    config = model_config(graph, serving)
    (one,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert one.name == "tensorrt"
    assert one.parameters["precision_mode"] == precision.upper()
    assert one.parameters["trt_engine_cache_enable"] == "1"
    (cuda,) = model_config(
        graph, replace(serving, accelerator=Accelerator.CUDA)
    ).optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {})
    assert not model_config(graph, SERVING).HasField("optimization")
    plan = model_config(replace(variant, format=ModelFormat.TENSORRT), serving)
    assert not plan.HasField("optimization")


def test_no_artefact_is_served_with_the_engines_of_another(variant):
    """The provider names an engine by file, inputs and nodes, which two students share."""
    serving = replace(SERVING, instance_kind="gpu", accelerator=Accelerator.TENSORRT)

    def folder(graph):
        config = model_config(graph, serving)
        (one,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        return Path(one.parameters["trt_engine_cache_path"])

    exported_anew = replace(variant, sha256="1" * 64)
    assert folder(variant) != folder(exported_anew)
    assert folder(variant) == folder(replace(variant, name="the-same-file"))
    assert folder(variant).parent == Path("/tmp")


def test_warmup_runs_one_sample_at_batch_one_and_at_the_largest(variant):
    add_warmup(variant, 7)
    warmups = model_config(variant, SERVING).model_warmup
    assert [warmup.batch_size for warmup in warmups] == [1, 8]
    for warmup in warmups:
        assert set(warmup.inputs) == {"input_ids", "attention_mask"}
        assert list(warmup.inputs["input_ids"].dims) == [7]
        assert warmup.inputs["input_ids"].input_data_file == "input_ids"


def test_warmup_at_batch_one_only_once(variant):
    add_warmup(variant, 7)
    config = model_config(variant, replace(SERVING, max_batch_size=1))
    assert [warmup.batch_size for warmup in config.model_warmup] == [1]


@pytest.mark.parametrize("content", [b"", b"12345"])
def test_warmup_samples_of_impossible_size_are_left_out(variant, content):
    add_warmup(variant, 7)
    (variant.path / "warmup" / "input_ids").write_bytes(content)
    assert not model_config(variant, SERVING).model_warmup


def test_no_warmup_without_samples(variant):
    assert not model_config(variant, SERVING).model_warmup


def test_strings_have_tritons_name(variant):
    variant = replace(variant, inputs=(TensorSpec("text", "BYTES", (1,)),))
    assert model_config(variant, SERVING).input[0].data_type == pb.TYPE_STRING


def test_unwritable_repository_is_named(variant):
    variant.path.rmdir()
    with pytest.raises(StorageError, match=r"config\.pbtxt"):
        write_config(variant, SERVING)


def test_the_response_cache_is_on_where_it_is_asked_for(variant):
    assert not model_config(variant, SERVING).response_cache.enable
    assert model_config(variant, replace(SERVING, response_cache=True)).response_cache.enable

"""The model repository's `config.pbtxt`, written through Triton's own protobuf.

The same message, as JSON, reloads a model with another serving configuration while the server runs:
an override replaces the whole configuration, so it is always written in full.
"""

from __future__ import annotations

import math
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.system.storage import replace_text
from harness.types import (
    Accelerator,
    ModelFormat,
    ModelVariant,
    Precision,
    ServingConfig,
    TensorSpec,
)

CONFIG_FILE = "config.pbtxt"
VERSION = 1
"""The version under which every exported artefact lies."""
WARMUP_FOLDER = "warmup"
"""Name that Triton prescribes, inside the model's folder."""

ENGINE_CACHE = "/tmp/harness-engines-{}"  # noqa: S108  (in the server's container)
"""Folder of one artefact's engines. The provider makes no folder above it, and names the files in
it by the graph's file, inputs and nodes, whatever the weights."""
_DIGITS = 16
WORKSPACE_BYTES = 2**30
_BACKENDS = {ModelFormat.ONNX: "onnxruntime", ModelFormat.TENSORRT: "tensorrt"}
_ITEM_BYTES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip


def write_config(variant: ModelVariant, serving: ServingConfig) -> Path:
    """Write `<variant.path>/config.pbtxt`: what the server loads when it is told nothing else.

    Raises:
        StorageError: the file cannot be written.
    """
    path = variant.path / CONFIG_FILE
    text = text_format.MessageToString(model_config(variant, serving))
    replace_text(path, text)
    return path


def config_override(variant: ModelVariant, serving: ServingConfig) -> str:
    """The whole configuration as JSON in proto field names, for `load_model(config=...)`.

    Of the version that the artefact is: a higher one that lies beside it is not what was exported.
    """
    message = model_config(variant, serving)
    message.version_policy.specific.versions.append(VERSION)
    return str(json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None))


def model_config(variant: ModelVariant, serving: ServingConfig) -> pb.ModelConfig:
    """Triton's configuration of a variant under a serving configuration."""
    config = pb.ModelConfig(
        name=variant.name,
        backend=_BACKENDS[variant.format],
        max_batch_size=serving.max_batch_size,
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=serving.queue_delay_us
        ),
    )
    for spec in variant.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape)
    for spec in variant.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape)
    kind = pb.ModelInstanceGroup.Kind.Value(f"KIND_{serving.instance_kind.upper()}")
    config.instance_group.add(count=serving.instance_count, kind=kind)
    if variant.format is ModelFormat.ONNX:
        config.parameters["intra_op_thread_count"].string_value = str(serving.intra_op_threads)
        if serving.accelerator is not Accelerator.NONE:
            accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
                name=str(serving.accelerator)
            )
            accelerator.parameters.update(accelerator_parameters(serving.accelerator, variant))
    if serving.response_cache:
        config.response_cache.enable = True
    _add_warmup(config, variant)
    return config


def accelerator_parameters(accelerator: Accelerator, variant: ModelVariant) -> dict[str, str]:
    """What Triton's onnxruntime backend is told of a provider, beside its name.

    Engines are kept, as a sweep loads one model under many configurations: building one takes
    minutes. Each artefact has a folder of its own, so that no model is served with the engine of
    another. The names are those of the backend's README, release 24.10.
    """
    if accelerator is not Accelerator.TENSORRT:
        return {}
    return {
        "precision_mode": "FP16" if variant.precision is Precision.FP16 else "FP32",
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": ENGINE_CACHE.format(variant.hex_digest[:_DIGITS]),
    }


def _add_warmup(config: pb.ModelConfig, variant: ModelVariant) -> None:
    """Run a real sample at batch 1 and at the largest batch before the model is READY.

    Triton reads one sample from each file, whatever the batch size: a warm-up of batch n is n
    requests that share it (core's `TritonModelInstance::GenerateWarmupData`).
    """
    folder = variant.path / WARMUP_FOLDER
    samples = {spec.name: _sample_shape(spec, folder / spec.name) for spec in variant.inputs}
    if any(shape is None for shape in samples.values()):
        return
    for batch_size in sorted({1, config.max_batch_size}):
        warmup = config.model_warmup.add(name=f"batch-{batch_size}", batch_size=batch_size)
        for spec in variant.inputs:
            tensor = warmup.inputs[spec.name]
            tensor.data_type = _data_type(spec)
            tensor.dims.extend(samples[spec.name] or ())
            tensor.input_data_file = spec.name


def _sample_shape(spec: TensorSpec, sample: Path) -> tuple[int, ...] | None:
    """Shape of a warm-up sample, by its size; None where there is none or its shape is open."""
    item_bytes = _ITEM_BYTES.get(spec.datatype)
    if item_bytes is None or spec.shape.count(-1) > 1 or not sample.is_file():
        return None
    known = item_bytes * math.prod(size for size in spec.shape if size != -1)
    length, rest = divmod(sample.stat().st_size, known)
    if rest or length == 0:
        return None
    return tuple(length if size == -1 else size for size in spec.shape)


def _data_type(spec: TensorSpec) -> int:
    name = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return int(pb.DataType.Value(f"TYPE_{name}"))

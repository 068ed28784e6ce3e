"""Models that Triton's Python backend runs: their configuration and files in the repository."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.serving.repository import CONFIG_FILE
from harness.system.storage import storage_errors
from harness.types import TensorSpec

_DATA_TYPES = {
    "BYTES": pb.TYPE_STRING,
    "INT32": pb.TYPE_INT32,
    "INT64": pb.TYPE_INT64,
    "FP32": pb.TYPE_FP32,
}


class ModelLoader(Protocol):
    """Whatever loads and unloads models; both raise ServerError."""

    def load(self, model: str, config: str | None = None) -> None:
        """Load a model, with its own configuration."""
        ...

    def unload(self, model: str) -> None:
        """Unload a model."""
        ...


def python_config(
    name: str,
    *,
    max_batch_size: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    parameters: Mapping[str, str],
    instances: int = 1,
    joins: bool = True,
) -> pb.ModelConfig:
    """A Python model on the CPU.

    Args:
        name: of the model.
        max_batch_size: of its requests.
        inputs: without the batch dimension, as are the outputs.
        outputs: in the order in which they are written down.
        parameters: that the model reads when it starts.
        instances: processes that run it.
        joins: its batcher joins what waits anyhow, and waits for nothing; false: every request is
            executed by itself.
    """
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=max_batch_size)
    if joins:
        config.dynamic_batching.CopyFrom(pb.ModelDynamicBatching())
    config.instance_group.add(count=instances, kind=pb.ModelInstanceGroup.KIND_CPU)
    add_tensors(config, inputs, outputs)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def add_tensors(
    config: pb.ModelConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> None:
    """Write down what a model takes and answers."""
    for spec in inputs:
        config.input.add(name=spec.name, data_type=_DATA_TYPES[spec.datatype], dims=spec.shape)
    for spec in outputs:
        config.output.add(name=spec.name, data_type=_DATA_TYPES[spec.datatype], dims=spec.shape)


def override_of(config: pb.ModelConfig) -> str:
    """A configuration as `load_model(config=...)` takes it: JSON in proto field names."""
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)


def write_config_file(repository: Path, name: str, config: pb.ModelConfig) -> None:
    """Write a model's `config.pbtxt`.

    Raises:
        StorageError: the repository cannot be written.
    """
    with storage_errors(repository):
        (repository / name / CONFIG_FILE).write_text(
            text_format.MessageToString(config), encoding="utf-8"
        )


def version_folder(repository: Path, name: str) -> Path:
    """Make a model's version folder, in which Python will make no `__pycache__`.

    A file is put where it would. Triton takes that folder for a change of the model: the load of
    an ensemble would take its parts from their folders again, without the configuration that they
    were loaded with.

    Raises:
        StorageError: the repository cannot be written.
    """
    version = repository / name / "1"
    with storage_errors(repository):
        version.mkdir(parents=True, exist_ok=True)
        cache = version / "__pycache__"
        if cache.is_dir():
            shutil.rmtree(cache)
        cache.touch()
    return version


def write_python_model(repository: Path, config: pb.ModelConfig, source: Path) -> None:
    """Write a model of one source file: `<name>/1/model.py` and its `config.pbtxt`.

    Raises:
        StorageError: the repository cannot be written.
    """
    version = version_folder(repository, config.name)
    with storage_errors(repository):
        shutil.copyfile(source, version / "model.py")
    write_config_file(repository, config.name, config)


def listed(values: Sequence[object]) -> str:
    """A list as a model's parameter."""
    return json.dumps(list(values))

"""The same checkpoint as a model of Triton's vLLM backend, for a machine with a GPU.

It lies in a repository of its own, because a Triton without that backend loads whatever it finds:

    <repository>-vllm/<model>/config.pbtxt
    <repository>-vllm/<model>/1/model.json     vLLM's engine arguments

NVIDIA's images `tritonserver:<release>-vllm-python-py3` have the backend.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from harness.serving.repository import CONFIG_FILE
from harness.system.storage import replace_text, storage_errors
from harness.types import generation as tensors

_INPUTS = (
    (tensors.TEXT_INPUT, pb.TYPE_STRING, False),
    (tensors.STREAM, pb.TYPE_BOOL, True),
    (tensors.SAMPLING_PARAMETERS, pb.TYPE_STRING, True),
    (tensors.EXCLUDE_INPUT_IN_OUTPUT, pb.TYPE_BOOL, True),
    (tensors.RETURN_FINISH_REASON, pb.TYPE_BOOL, True),
    (tensors.RETURN_NUM_INPUT_TOKENS, pb.TYPE_BOOL, True),
    (tensors.RETURN_NUM_OUTPUT_TOKENS, pb.TYPE_BOOL, True),
)
"""Inputs of the backend that our clients send: name, type, and whether it may be missing."""
_OUTPUTS = (
    (tensors.TEXT_OUTPUT, pb.TYPE_STRING, -1),
    (tensors.FINISH_REASON, pb.TYPE_STRING, -1),
    (tensors.NUM_INPUT_TOKENS, pb.TYPE_UINT32, 1),
    (tensors.NUM_OUTPUT_TOKENS, pb.TYPE_UINT32, -1),
)


@dataclass(frozen=True)
class VllmModel:
    """A checkpoint as vLLM serves it."""

    name: str
    """Name of the model on the server."""
    checkpoint: str
    """A folder that must be there under this path in the server's container, or a hub name."""
    context: int
    """Tokens of prompt and answer together."""
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def engine_arguments(self) -> dict[str, object]:
        """What vLLM is started with."""
        arguments: dict[str, object] = {
            "model": self.checkpoint,
            "max_model_len": self.context,
            "dtype": "auto",
            "gpu_memory_utilization": 0.9,
        }
        if self.revision is not None:
            arguments["revision"] = self.revision
        if self.trust_remote_code:
            arguments["trust_remote_code"] = True
        return arguments


def vllm_config(model: VllmModel) -> pb.ModelConfig:
    """Triton's configuration, in full: a server may be told to complete none."""
    config = pb.ModelConfig(name=model.name, backend="vllm", max_batch_size=0)
    config.model_transaction_policy.decoupled = True
    # Which GPUs it takes is vLLM's to decide.
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_MODEL)
    for name, kind, optional in _INPUTS:
        config.input.add(name=name, data_type=kind, dims=[1], optional=optional)
    for name, kind, size in _OUTPUTS:
        config.output.add(name=name, data_type=kind, dims=[size])
    config.parameters["REPORT_CUSTOM_METRICS"].string_value = "yes"
    return config


def vllm_repository(repository: Path) -> Path:
    """Where the vLLM models of a model repository lie."""
    return repository.with_name(f"{repository.name}-vllm")


def write_vllm_model(repository: Path, model: VllmModel) -> Path:
    """Write the model's folder; returns it.

    Args:
        repository: the model repository that it is written beside.
        model: what is served.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = vllm_repository(repository) / model.name
    with storage_errors(folder):
        (folder / "1").mkdir(parents=True, exist_ok=True)
    replace_text(folder / CONFIG_FILE, text_format.MessageToString(vllm_config(model)))
    arguments = json.dumps(model.engine_arguments, indent=2)
    replace_text(folder / "1" / "model.json", f"{arguments}\n")
    return folder

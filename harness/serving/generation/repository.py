"""A generating variant in the model repository: Triton's configuration, and what its Python needs.

    <variant>/config.pbtxt            decoupled, Python backend
    <variant>/1/model.py              `triton_model.py`
    <variant>/1/harness/...           the harness's modules that it imports, and no others

The graph, its settings and the tokenizer lie there from the export.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import harness
from harness.errors import UsageError
from harness.serving.python_models import override_of, version_folder
from harness.serving.repository import CONFIG_FILE
from harness.system.storage import replace_text, storage_errors
from harness.types import ModelVariant, ServingConfig, TensorSpec
from harness.types.generation import QUEUE_PER_SLOT, SETTINGS_FILE, GeneratorSettings

_PACKAGE = Path(harness.__file__).parent
_MODEL = Path(__file__).with_name("triton_model.py")
SERVED_MODULES = (
    "types/generation.py",
    "tasks/generation/rules.py",
    "serving/generation/contract.py",
    "serving/generation/decoder.py",
    "serving/generation/draft.py",
    "serving/generation/encoder_decoder.py",
    "serving/generation/engine.py",
    "serving/generation/prompt_scores.py",
    "serving/generation/sampler.py",
    "serving/generation/text.py",
    "serving/generation/triton_metrics.py",
)
"""What `triton_model.py` imports of the harness, directly or over others."""
_PACKAGES = ("", "types", "tasks", "tasks/generation", "serving", "serving/generation")
"""Folders of the harness that hold those modules."""
READ_TOKENS = 256
"""Prompt tokens read between two steps of the answers being written."""


@dataclass(frozen=True)
class GenerationServing:
    """How a generating model is served."""

    slots: int = 8
    """Answers at a time."""
    threads: int = 1
    """Threads of ONNX Runtime; 0 is one for each core."""
    queue_size: int = 8 * QUEUE_PER_SLOT
    read_tokens: int = READ_TOKENS
    instances: int = 1
    """Processes, each with slots and a queue of its own."""

    @classmethod
    def of(cls, serving: ServingConfig) -> GenerationServing:
        """A study's serving configuration: its maximum batch is the number of slots.

        Raises:
            UsageError: it asks for a GPU.
        """
        if serving.instance_kind != "cpu":
            raise UsageError(
                "a generating model is served on the CPU here; the configuration asks for "
                f"{serving.instance_kind}",
                next_step="on a GPU serve the model folder that is written for vLLM "
                "(docs/generation.md)",
            )
        slots = max(1, serving.max_batch_size)
        return cls(
            slots=slots,
            threads=serving.intra_op_threads,
            queue_size=slots * QUEUE_PER_SLOT,
            instances=serving.instance_count,
        )


def generation_config(variant: ModelVariant, serving: GenerationServing) -> pb.ModelConfig:
    """Triton's configuration of a generating variant."""
    config = pb.ModelConfig(name=variant.name, backend="python", max_batch_size=0)
    config.model_transaction_policy.decoupled = True
    config.instance_group.add(count=serving.instances, kind=pb.ModelInstanceGroup.KIND_CPU)
    for spec in variant.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape, optional=True)
    for spec in variant.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=spec.shape)
    settings = variant.path / "1" / SETTINGS_FILE
    context = GeneratorSettings.from_json(settings.read_text(encoding="utf-8")).context
    parameters = {
        "slots": serving.slots,
        "threads": serving.threads,
        "context": context,
        "queue_size": serving.queue_size,
        "read_tokens": serving.read_tokens,
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = str(value)
    return config


def write_generator(variant: ModelVariant, serving: GenerationServing) -> None:
    """Write all that Triton needs beside what was exported.

    Raises:
        StorageError: the repository cannot be written.
    """
    version = version_folder(variant.path.parent, variant.name)
    with storage_errors(variant.path):
        shutil.copyfile(_MODEL, version / "model.py")
        for module in SERVED_MODULES:
            target = version / "harness" / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_PACKAGE / module, target)
        for folder in _PACKAGES:
            (version / "harness" / folder / "__init__.py").write_text("", encoding="utf-8")
            # As in `version_folder`: where Python would make a folder that changes the model.
            (version / "harness" / folder / "__pycache__").touch()
        text = text_format.MessageToString(generation_config(variant, serving))
    replace_text(variant.path / CONFIG_FILE, text)


def generation_override(variant: ModelVariant, serving: GenerationServing) -> str:
    """The whole configuration as JSON, for `load_model(config=...)`."""
    return override_of(generation_config(variant, serving))


def _data_type(spec: TensorSpec) -> int:
    name = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return int(pb.DataType.Value(f"TYPE_{name}"))

"""Any variant in the model repository: what Triton needs to load it, whatever its kind."""

from __future__ import annotations

from harness.serving.generation.repository import (
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.serving.repository import config_override, write_config
from harness.tasks.registry import kind_writes
from harness.types import ModelVariant, ServingConfig


def write_for_server(variant: ModelVariant, serving: ServingConfig) -> None:
    """Write what the server loads when it is told nothing else.

    Raises:
        StorageError: the repository cannot be written.
        UsageError: the variant cannot be served so.
    """
    if kind_writes(variant.task):
        write_generator(variant, GenerationServing.of(serving))
    else:
        write_config(variant, serving)


def override_for(variant: ModelVariant, serving: ServingConfig) -> str:
    """The whole configuration as JSON, for `load_model(config=...)`.

    Raises:
        UsageError: the variant cannot be served so.
    """
    if kind_writes(variant.task):
        return generation_override(variant, GenerationServing.of(serving))
    return config_override(variant, serving)

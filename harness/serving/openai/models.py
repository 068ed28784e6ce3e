"""Generating variants of the model repository as OpenAI's clients know them."""

from __future__ import annotations

from harness.errors import EnvironmentFailure
from harness.serving.openai.app import GeneratingModel
from harness.types import ModelVariant
from harness.types.generation import SETTINGS_FILE, GeneratorSettings


def offered(variant: ModelVariant) -> GeneratingModel:
    """A variant with its tokenizer and the length of its context.

    Args:
        variant: exported for generation.

    Raises:
        EnvironmentFailure: what was exported beside the graph cannot be read.
    """
    file = variant.path / "1" / SETTINGS_FILE
    try:
        settings = GeneratorSettings.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentFailure(
            f"{file} cannot be read: {error}", next_step=f"remove {variant.path}: it is made again"
        ) from error
    return GeneratingModel(variant.name, variant.path / "tokenizer", settings.context)

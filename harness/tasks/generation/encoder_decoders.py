"""Which encoder-decoders are exported and served; see `harness.export.generation`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ENCODER_DECODERS = ("t5", "mt5", "bart", "mbart", "pegasus", "marian")
"""Their types in config.json. What others do beside attention is not known to the export."""
RELATIVE = ("t5", "mt5")
"""Of these, the ones whose positions are distances, so that any length can be read."""
ENDINGS = ("ForConditionalGeneration", "MTModel")
"""Of the architectures that write."""


def is_served(config: PretrainedConfig) -> bool:
    """Whether a checkpoint is an encoder-decoder that can be exported and served."""
    architecture = (config.architectures or [""])[0]
    return config.model_type in ENCODER_DECODERS and architecture.endswith(ENDINGS)

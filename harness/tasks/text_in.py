"""How a model answers where the tokenizer stands before it in the server: text in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.types import TensorSpec

PLACES = (TensorSpec("OFFSETS", "INT64", (-1, 2)), TensorSpec("WORDS", "INT64", (-1,)))
"""Where each token lies in its text (first character, end), and whether it begins a word (1), goes
on with one (0), or is none of the text's (-1): from the part that tokenizes."""


@dataclass(frozen=True)
class TextAnswer:
    """What an ensemble answers to texts, and the part behind the model that makes it."""

    outputs: tuple[TensorSpec, ...]
    """Outputs of the ensemble."""
    part: str = ""
    """`label` or `spans`, which runs `ensemble_models/<part>_model.py`; empty where the model's own
    outputs are the answer."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters of that part's configuration."""
    takes_places: bool = False
    """Whether that part also takes `PLACES`."""

"""The study's section of a causal language model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.section import Data, TaskSection


class CausalLanguageModelling(TaskSection):
    """Scores of running text: perplexity and bits per byte over fixed windows."""

    kind: Literal["causal-lm"]
    data: Data
    text: str = Field("text", description="Column of the text.")
    max_length: Annotated[int, Field(ge=2)] = Field(
        64, description="Tokens per window; a document longer than this is cut into windows."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many windows, drawn with the seed."
    )

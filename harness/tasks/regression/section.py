"""The study's section of a regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.section import Data, PaddedSection


class Regression(PaddedSection):
    """A number for a text or a pair of texts: a grade, a similarity, a price."""

    kind: Literal["regression"]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field(
        "label", description="Column of the right number, in the unit that the model answers in."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most this many, drawn with the seed.")

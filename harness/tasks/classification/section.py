"""The study's section of a classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.section import Data, PaddedSection


class SequenceClassification(PaddedSection):
    """One label for a text or a pair of texts."""

    kind: Literal["sequence-classification"]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field("label", description="Column of the label: a name or a class index.")
    labels: list[str] | None = Field(
        None, description="Class names in the data's order; default: the checkpoint's id2label."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most this many, drawn with the seed.")

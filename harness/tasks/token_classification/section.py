"""The study's section of a token classification."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.section import PaddedSection
from harness.tasks.token_classification.tags import TagScheme


class TokenClassification(PaddedSection):
    """A tag for each word of a sentence, and the entities that the tags spell (NER)."""

    kind: Literal["token-classification"]
    tokens: str = Field("tokens", description="Column of a sentence's words: a list.")
    tags: str = Field("ner_tags", description="Column of their tags: names (B-PER) or indexes.")
    labels: list[str] | None = Field(
        None,
        description="Names of the tags in the order of the data's indexes; default: those that "
        "the data declares, else the checkpoint's id2label.",
    )
    scheme: TagScheme | None = Field(
        None, description="How the data's tags spell entities; default: recognised."
    )
    mode: Literal["default", "strict"] = Field(
        "default",
        description="default: every tagged word belongs to an entity, as conlleval and seqeval "
        "count; strict: only what the scheme would have written is one (seqeval's mode='strict').",
    )
    max_length: PositiveInt = Field(
        128, description="Tokens; the words of a longer sentence that lie beyond count as missed."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many sentences, drawn with the seed."
    )

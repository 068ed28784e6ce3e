"""The study's section of sentence embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from harness.system.strict import PositiveInt, Strict, resolve
from harness.tasks.section import PaddedSection


class RetrievalData(Strict):
    """A small retrieval set in the files of BEIR."""

    corpus: Path = Field(description="JSON lines with _id, text and perhaps title.")
    queries: Path = Field(description="JSON lines with _id and text.")
    relevance: Path = Field(
        description="Which document answers which query: tab-separated query-id, corpus-id, score "
        "with a header (BEIR's qrels), or TREC's four columns."
    )

    @field_validator("corpus", "queries", "relevance")
    @classmethod
    def _file_exists(cls, path: Path, info: ValidationInfo) -> Path:
        resolved = resolve(path, info)
        if not resolved.is_file():
            raise ValueError(f"no such data file: {resolved}")
        return resolved


class SentenceEmbedding(PaddedSection):
    """A vector for each text, judged by pairs with a score, by retrieval, or by the teacher's."""

    kind: Literal["sentence-embedding"]
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    score: str | None = Field(
        None,
        description="Column of the similarity of the two: a number, higher is more similar (STS).",
    )
    retrieval: RetrievalData | None = Field(
        None, description="Queries, documents, and which of them answer which."
    )
    pooling: Literal["mean", "cls", "max", "last"] | None = Field(
        None,
        description="How token vectors become the text's, of checkpoints without modules.json; "
        "default: what the checkpoint's own files say.",
    )
    normalised: bool | None = Field(
        None, description="Whether vectors have length 1, of checkpoints without modules.json."
    )
    max_length: PositiveInt = Field(
        256,
        description="Tokens; longer texts are truncated, where a checkpoint's own max_seq_length "
        "is less to that.",
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many pairs (or texts) of `data`, drawn with the seed."
    )

    @model_validator(mode="after")
    def _score_is_of_a_pair(self) -> Self:
        if (self.score is None) != (self.text_pair is None):
            raise ValueError("'text_pair' and 'score' belong together: name both columns, or none")
        if self.slices:
            raise ValueError("'slices' are of rows with an answer, which an embedding is not")
        return self

"""What the sections of all kinds of task share: the data's source, columns, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from harness.system.strict import PositiveInt, Strict, resolve


class _FileData(Strict):
    path: Path = Field(description="Relative to the study file.")

    @field_validator("path")
    @classmethod
    def _file_exists(cls, path: Path, info: ValidationInfo) -> Path:
        resolved = resolve(path, info)
        if not resolved.is_file():
            raise ValueError(f"no such data file: {resolved}")
        return resolved


class CsvData(_FileData):
    """Samples in a CSV file with a header row."""

    source: Literal["csv"]


class JsonLinesData(_FileData):
    """Samples in a file of one JSON object a line."""

    source: Literal["jsonl"]


class ConllData(_FileData):
    """Tagged sentences in a text file: a word a line with its tags, an empty line between two."""

    source: Literal["conll"]
    columns: list[str] | None = Field(
        None,
        description="Names of the file's columns, in order; default: the first is `tokens`, the "
        "last `ner_tags`.",
    )


class HubData(Strict):
    """Samples from the Hugging Face hub, by `datasets` name."""

    source: Literal["datasets"]
    name: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None


class ReferenceData(Strict):
    """The test split of an embedded corpus, made on this machine from Python source text."""

    source: Literal["reference"]
    name: Literal["topics", "prose", "continuations"]


Data = Annotated[
    CsvData | JsonLinesData | ConllData | HubData | ReferenceData, Field(discriminator="source")
]


class TaskSection(Strict):
    """What the section of every task says: its data, its length, where quality may be lost."""

    kind: str
    data: Data
    max_length: PositiveInt
    samples: PositiveInt | None = None
    slices: list[str] = Field(
        [],
        description="Columns of the data; on each of their values a variant is compared with the "
        "teacher.",
    )
    training_data: Data | None = Field(
        None,
        description="What the students were trained on, in the same columns: the report counts "
        "how much of it lies in each slice.",
    )
    chain_samples: Annotated[int, Field(ge=0)] = Field(
        2000,
        description="At most this many samples, drawn with the seed, for splitting the loss into "
        "distillation, export, quantisation, serving and batching; 0 leaves that out.",
    )

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths in tokens, ascending: of this task the longest alone."""
        return (self.max_length,)


class PaddedSection(TaskSection):
    """A task whose samples are padded each to the next of a few lengths."""

    length_buckets: list[PositiveInt] | None = Field(
        None,
        description="Samples are padded to the next of these lengths; default: max_length alone. "
        "Triton joins only requests of equal shape.",
    )

    @model_validator(mode="after")
    def _buckets_fit(self) -> Self:
        if self.length_buckets and max(self.length_buckets) != self.max_length:
            raise ValueError(
                f"the longest of length_buckets is {max(self.length_buckets)} "
                f"but max_length is {self.max_length}: make them equal"
            )
        return self

    @property
    def buckets(self) -> tuple[int, ...]:
        """Padded lengths in tokens, ascending."""
        return tuple(sorted(set(self.length_buckets or [self.max_length])))

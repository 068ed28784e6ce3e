"""Where a task's samples come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from harness.system.strict import Strict, resolve


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
    name: Literal["topics", "prose"]


Data = Annotated[
    CsvData | JsonLinesData | ConllData | HubData | ReferenceData, Field(discriminator="source")
]

"""The section of a study that describes a multi-label classification."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from harness.system.strict import PositiveInt
from harness.tasks.section import Data, PaddedSection


class MultiLabelClassification(PaddedSection):
    """Any number of labels for a text or a pair of texts."""

    kind: Literal["multi-label-classification"]
    data: Data
    text: str = Field("text", description="Column of the text (of a pair: the first).")
    text_pair: str | None = Field(None, description="Column of the pair's second text.")
    label: str = Field(
        "labels",
        description="Column of a row's labels: a list of names or of class indexes, a list of one "
        "0 or 1 for each class, or a text in which `separator` stands between the names.",
    )
    separator: Annotated[str, Field(min_length=1)] = Field(
        ",", description="Separator between the labels, if a row's labels are one string."
    )
    label_columns: list[str] | None = Field(
        None,
        description="Instead of `label`: one column per class, holding 0 or 1.",
    )
    labels: list[str] | None = Field(
        None,
        description="Class names in the data's order (of `label_columns`: in theirs); default: the "
        "checkpoint's id2label.",
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="A label is assigned from this probability on (the sigmoid of its logit)."
    )
    max_length: PositiveInt = Field(128, description="Tokens; longer samples are truncated.")
    samples: PositiveInt | None = Field(None, description="At most this many, drawn with the seed.")

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        columns, names = self.label_columns, self.labels
        if columns is None:
            return self
        if not columns:
            raise ValueError("label_columns is empty: name the columns, or leave it out")
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise ValueError(f"label_columns names {', '.join(repeated)} twice")
        if names is not None and len(names) != len(columns):
            raise ValueError(
                f"labels names {len(names)} classes and label_columns has {len(columns)} columns: "
                "they go together one by one"
            )
        return self

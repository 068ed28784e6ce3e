"""The rows of a regression: its section of the study, texts with a number read and encoded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.encoding import EncodedDataset, encode_texts, fields_of
from harness.tasks.model_inputs import ModelInputs
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.rowwise import PER_ROW, rowwise
from harness.tasks.samples import Samples, draw_texts
from harness.tasks.section import Data, PaddedSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


@dataclass(frozen=True, kw_only=True)
class NumberedSamples(Samples):
    """Texts or pairs with a number each."""

    labels: tuple[float, ...]
    """The right numbers, all finite."""

    @property
    def undefined_metrics(self) -> Mapping[str, str]:
        """The correlations, where every number is the same or there are fewer than three."""
        why = ""
        if len(set(self.labels)) < 2:  # noqa: PLR2004  (nothing to correlate with)
            why = "every label is the same number"
        elif len(self.labels) < 3:  # noqa: PLR2004  (through two points there is always a line)
            why = "there are two rows, and a correlation needs three"
        return dict.fromkeys(("pearson", "spearman"), why) if why else {}


@rowwise
@dataclass(frozen=True, kw_only=True)
class NumberDataset(EncodedDataset):
    """The encoded texts with their numbers."""

    labels: NDArray[np.float64] = field(metadata=PER_ROW)
    """The right numbers, (size,)."""

    @property
    def width(self) -> int:
        """Number of outputs per row: always one."""
        return 1


def read_numbered(task: Regression, reading: Reading) -> Samples:
    """Texts or pairs with their numbers.

    Raises:
        DataError: with every problem of the data.
    """
    table = reading.table
    drawn = draw_texts(task, table, reading.seed)
    numbers = _numbers(table, task.label)
    labels = tuple(numbers[row] for row in drawn.kept)
    note = "every label is the same number: there is no correlation" if len(set(labels)) < 2 else ""  # noqa: PLR2004
    return NumberedSamples(**drawn.fields(labels), labels=labels, label_note=note)


def _numbers(table: DataTable, column: str) -> list[float]:
    """The number of each row.

    Raises:
        DataError: with every row that holds none.
    """
    found = [_number(row.get(column)) for row in table.rows]
    wrong = [place for place, number in enumerate(found) if number is None]
    step = "a label is a finite number, with a point before its decimals; drop rows without one"
    if any(isinstance(value := table.rows[place].get(column), str) and "," in value
           for place in wrong):  # fmt: skip
        step = "write decimals with a point, and thousands without a separator: 1234.5"
    problems = [
        f"{table.place(place)}: '{column}' is not a number: {_shown(table.rows[place].get(column))}"
        for place in wrong
    ]
    refuse(table.source, problems, next_step=step)
    return [number for number in found if number is not None]


def _number(value: object) -> float | None:
    """A finite number, also where it is written as a text; None for anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if isinstance(value, str) and "_" in value:  # Python's own way to part thousands
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    return "it is missing" if value is None else json.dumps(value, default=str)[:40]


def encode_numbered(
    task: Regression, samples: Samples, tokenizer: PreTrainedTokenizerBase, inputs: ModelInputs
) -> EncodedDataset:
    """Texts as tensors, with their numbers.

    Raises:
        DataError: the texts cannot be encoded.
    """
    encoded = encode_texts(task, samples, tokenizer, inputs)
    if not isinstance(samples, NumberedSamples):
        return encoded
    fields: dict[str, Any] = fields_of(encoded)
    return NumberDataset(**fields, labels=np.array(samples.labels, dtype=np.float64))

"""What every task's section of the study says."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.system.strict import PositiveInt, Strict
from harness.tasks.data import Data


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
        description="At most so many samples, drawn by the seed, on which the loss is split into "
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

"""How a family reads what a server answers, tensors or text, and makes outcomes of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic

from harness.errors import DataError
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import (
    Batch,
    Columns,
    Outcomes,
    RowAnswer,
    StoredOutcomes,
    Tensors,
    TextAnswer,
)
from harness.tasks.roles.base import A, D, FamilyRole, R, S
from harness.tasks.rowwise import Positions
from harness.types import ModelVariant, TensorSpec


class ReadsAnswers(FamilyRole, Generic[S, D, A, R]):
    """The answers to one kind of task: tensors of a model, text of an ensemble, a stored file."""

    has_ensemble: bool = False
    """Whether a variant can be served as an ensemble too, text in and answer out."""

    writes: bool = False
    """Whether an answer is text that is written token by token, and comes in a stream."""

    @abstractmethod
    def outputs(self, width: int) -> tuple[TensorSpec, ...]:
        """Outputs of the served model, in order.

        Args:
            width: the last dimension of the first output where that is not a sequence: classes.
        """

    @abstractmethod
    def read_answer(self, batch: Batch, outputs: Tensors) -> A:
        """Read the outputs of one request, whose shapes are checked."""

    @abstractmethod
    def row_answers(self, batch: Batch, outputs: Tensors) -> list[RowAnswer]:
        """Each row's answer without padding: what must not depend on the batch it came in."""

    @abstractmethod
    def outcomes(
        self, variant: ModelVariant, dataset: D, replies: Sequence[tuple[Batch, A | None]]
    ) -> R:
        """Put the answers of all batches together.

        Args:
            variant: what answered.
            dataset: the test split.
            replies: every batch once, in any order; None where its request failed.

        Raises:
            MissingExtraError: a package that scores the answers is not installed.
        """

    @abstractmethod
    def restore(self, stored: StoredOutcomes) -> R:
        """Read outcomes back from their file, those of older releases included.

        Raises:
            KeyError: a column is missing.
        """

    def told(self, name: str, answers: Sequence[str], dataset: D) -> R:
        """Outcomes of a yardstick that is not served (a baseline), from its answers in words.

        Args:
            name: the yardstick's name, in the place of a variant's.
            answers: the answer to each row.
            dataset: the test split.

        Raises:
            DataError: the family has no such yardstick, or not every row is answered.
        """
        raise DataError(f"a task of {self.kind} has no yardstick such as {name}")

    def truth(self, dataset: D) -> Columns:
        """What the answers are compared with, as columns of the file of outcomes."""
        return {}

    # Text in, text out: an ensemble with the tokenizer before the model

    def text_answer(
        self, task: S, dataset: EncodedDataset, outputs: tuple[TensorSpec, ...]
    ) -> TextAnswer:
        """What the ensemble answers, where `has_ensemble`.

        Args:
            task: the study's section.
            dataset: the test split as the model alone takes it.
            outputs: the outputs of the model alone.

        Raises:
            DataError: the data does not tell what the model's outputs are called.
        """
        raise NotImplementedError

    def text_outcomes(
        self, variant: ModelVariant, dataset: D, replies: Sequence[tuple[Positions, Tensors | None]]
    ) -> Outcomes:
        """Put an ensemble's answers together.

        Args:
            variant: the ensemble.
            dataset: the test split as the model alone takes it.
            replies: the rows of each request, and its outputs; None where the request failed.
        """
        raise NotImplementedError

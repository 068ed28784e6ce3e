"""How a family says where a variant lost quality: by slice, by step of its making, by example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from harness.statistics.paired import PairedRows
from harness.tasks.losses import Confidence, Division, LossDetails, Step
from harness.tasks.roles.base import D, FamilyRole, R, S
from harness.types.losses import LossChain, SliceLoss


class ExplainsLosses(FamilyRole, Generic[S, D, R]):
    """The losses of one kind of task beside its teacher."""

    loss_metric: str = ""
    """The metric that losses are told in, by slice and by step; empty where they are not told."""
    traces_losses: bool = True
    """Whether it is found out where a variant lost quality: by step of its making, by slice."""

    def loss_metric_of(self, task: S) -> str:
        """The metric that losses are told in for such a task; empty where there is none."""
        return self.loss_metric

    def paired_rows(self, outcomes: R, teacher: R, seed: int) -> PairedRows | None:
        """Quality of a variant and its teacher row by row; None where rows do not pair."""
        return None

    def slice_losses(
        self,
        outcomes: R,
        teacher: R,
        divisions: Sequence[Division],
        seed: int,
        dataset: D | None = None,
    ) -> tuple[SliceLoss, ...] | None:
        """Losses by slice of a metric that is not a sum over rows; None: they are `paired_rows`'.

        Args:
            outcomes: the variant's outcomes.
            teacher: the teacher's outcomes, on the same rows.
            divisions: how these rows are divided into slices.
            seed: draws the resamples of the intervals.
            dataset: the test split as the teacher takes it, where it is at hand.
        """
        return None

    def chain_rows(self, dataset: D, most: int, seed: int) -> NDArray[np.int64] | None:
        """Rows that the steps of a chain are asked, ascending; None: any `most` rows will do.

        Args:
            dataset: the test split as the teacher takes it.
            most: the highest number of rows.
            seed: draws the rows.

        Raises:
            DataError: there can be no chain of so many rows; the message says why.
        """
        return None

    def loss_chain(self, steps: Sequence[Step[R]], seed: int) -> LossChain | None:
        """The loss from the teacher's checkpoint (first) to what is served (last), step by step.

        None where the steps have no row in common.
        """
        return None

    def loss_details(
        self, outcomes: R, teacher: R, dataset: D, texts: Sequence[str]
    ) -> LossDetails:
        """Examples and confusions of a variant beside its teacher.

        Args:
            outcomes: the variant's outcomes.
            teacher: the teacher's outcomes.
            dataset: the test split as the teacher takes it.
            texts: the text of each row.
        """
        return LossDetails()

    def confidence(self, teacher: R) -> Confidence | None:
        """How sure the teacher is of each row; None where its answers do not say."""
        return None

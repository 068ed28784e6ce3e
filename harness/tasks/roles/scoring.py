"""How a family scores outcomes, alone and beside the teacher's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.statistics.metrics import Statistic
from harness.statistics.paired import Mask, Measure
from harness.tasks.roles.base import D, FamilyRole, R
from harness.types import ModelVariant
from harness.types.losses import Relabelling


class ScoresOutcomes(FamilyRole, Generic[D, R]):
    """The quality of one kind of task: metrics, measures beside the teacher, mixed-up labels."""

    def scorable(self, outcomes: R) -> Mask | None:
        """Which rows count, (rows,); None where too few were answered for any score.

        Unless a family says otherwise all rows count: one without an answer is wrong.
        """
        return np.ones(outcomes.size, dtype=np.bool_)

    @abstractmethod
    def statistics(self, outcomes: R, dataset: D, kept: Mask) -> tuple[Statistic, ...]:
        """The metrics over some rows, each with an entry in `harness.metrics`.

        Raises:
            MissingExtraError: a package that computes them is not installed.
        """

    def teacher_statistics(self, outcomes: R, teacher: R, kept: Mask) -> tuple[Statistic, ...]:
        """Metrics that hold answers against the teacher's own: of the teacher itself each is 1.

        Args:
            outcomes: the variant's outcomes.
            teacher: the teacher's outcomes, on the same rows.
            kept: rows that count, (rows,).
        """
        return ()

    def changed(self, outcomes: R, before: R) -> int | None:
        """How many rows one model answered otherwise the second time; None: that is not told.

        Args:
            outcomes: the later answers.
            before: the earlier ones, to the same rows.
        """
        return None

    def same_rows(self, outcomes: R, teacher: R) -> bool:
        """Whether row i of both is the same sample, which is what pairs them.

        Raises:
            DataError: they are of different test splits.
        """
        if outcomes.size != teacher.size:
            raise DataError(
                f"{outcomes.variant} was scored on {outcomes.size} rows and its teacher "
                f"{teacher.variant} on {teacher.size}: they must be of one test split"
            )
        return True

    def comparable(self, metric: str, outcomes: R, teacher: R) -> bool:
        """Whether a metric means the same of both models."""
        return True

    def right(self, metric: str, outcomes: R) -> Mask | None:
        """Whether each row is right, for a metric that is the share of those; None for others."""
        return None

    def own_measures(self, outcomes: R, dataset: D, seed: int) -> list[Measure]:
        """What is measured of a model alone, beside its metrics: calibration."""
        return []

    def paired_measures(self, outcomes: R, teacher: R, seed: int) -> list[Measure]:
        """What is measured of a variant beside its teacher on the same rows: agreement."""
        return []

    def not_compared(self, variant: ModelVariant, teacher: ModelVariant) -> str:
        """Why a variant lacks a measure beside its teacher; empty where it lacks none."""
        return ""

    def beside_teacher(self, outcomes: R, teacher: R) -> dict[str, NDArray[np.float64]]:
        """Columns that compare every row with the teacher's, (rows,) each, by name."""
        return {}

    def relabelling(
        self,
        outcomes: R,
        dataset: D,
        family: str,
        teacher: R | None,
        of_teacher: Relabelling | None,
    ) -> Relabelling | None:
        """Other classes that a model's outputs seem to stand for than they are called by.

        Args:
            outcomes: the variant's outcomes.
            dataset: the test split.
            family: the name of the study's family that the variant belongs to.
            teacher: the teacher's outcomes; None for the teacher itself.
            of_teacher: what was found for the teacher.
        """
        return None

"""A variant beside its teacher on the same samples, and what is measured of a model alone."""

from __future__ import annotations

from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes
from harness.tasks.registry import family_of
from harness.types.losses import PairedMeasure


def compare_with_teacher(
    outcomes: Outcomes, teacher: Outcomes, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """All measures that the two allow; none of the teacher beside itself.

    Args:
        outcomes: the variant's.
        teacher: the teacher's, on the same rows.
        family: they belong to.
        seed: of the intervals.
    """
    if outcomes.variant == teacher.variant or outcomes.size != teacher.size:
        return ()
    measures = family_of(outcomes.kind).paired_measures(outcomes, teacher, seed)
    return tuple(PairedMeasure(outcomes.variant, family, *one) for one in measures)


def measure_alone(
    outcomes: Outcomes, dataset: EncodedDataset, *, family: str, seed: int
) -> tuple[PairedMeasure, ...]:
    """What is measured of one model beside its metrics: a classifier's calibration.

    Args:
        outcomes: the variant's.
        dataset: the split that they were collected on.
        family: it belongs to.
        seed: of what is drawn.
    """
    measures = family_of(outcomes.kind).own_measures(outcomes, dataset, seed)
    return tuple(PairedMeasure(outcomes.variant, family, *one) for one in measures)

"""A variant beside its teacher, along the steps of its making, and at every batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.quality.collection import Predictor, ask, batches
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.losses import Step
from harness.tasks.outcomes import Outcomes, RowAnswer
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import BatchConsistency, ModelVariant
from harness.types.losses import LossChain, PairedMeasure


def loss_chain(steps: Sequence[Step[Any]], *, seed: int) -> LossChain | None:
    """Split the loss from the first step to the last.

    Each step is asked the same samples; a step's loss is the difference from the step before, so
    the losses add up to the whole. Unanswered rows count as wrong for a classifier; a language
    model's windows that any step left unanswered are left out of all of them.

    Args:
        steps: the teacher's checkpoint first, what is served last.
        seed: of the intervals.

    Returns:
        None where the steps have no row in common, or the family has no such chain.
    """
    return family_of(steps[0].outcomes.kind).loss_chain(steps, seed)


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


def batch_consistency(
    variant: ModelVariant,
    dataset: EncodedDataset,
    predictor: Predictor,
    *,
    batch_sizes: Sequence[int],
    samples: int,
) -> list[BatchConsistency]:
    """Ask the first `samples` rows at each batch size and compare with batch size 1.

    Requests go one at a time, so no dynamic batcher joins them: what is executed is what is asked.
    Batch size 1, where it is among the sizes, is asked a second time and shows whether answers
    repeat at all. Differences near float32's rounding are ordinary (another matrix kernel runs);
    a model with dynamic int8 activations differs more, because its scales are taken over the whole
    batch: other rows in the batch change a row's answer.

    `changed_predictions` counts rows whose class or span, or any of whose next tokens, changed;
    `max_abs_difference` is of logits or of log probabilities, over the numbers finite in both.

    Raises:
        ServerError: a request failed; a batch size above the model's `max_batch_size` does.
        DataError: the data set does not fit the model.
    """
    subset = _first_rows(dataset, samples)
    reference = _answers(variant, subset, predictor, 1)
    return [
        _compare(variant, size, reference, _answers(variant, subset, predictor, size))
        for size in batch_sizes
    ]


def _first_rows(dataset: EncodedDataset, samples: int) -> list[EncodedGroup]:
    return [take(group, group.rows < samples) for group in dataset.groups]


def _answers(
    variant: ModelVariant, groups: Sequence[EncodedGroup], predictor: Predictor, batch_size: int
) -> dict[int, RowAnswer]:
    family = family_of(variant.task)
    answers: dict[int, RowAnswer] = {}
    for batch in batches(variant, groups, batch_size):
        rows = family.row_answers(batch, ask(variant, batch, predictor))
        answers.update(zip(batch.rows.tolist(), rows, strict=True))
    return answers


def _compare(
    variant: ModelVariant,
    batch_size: int,
    reference: dict[int, RowAnswer],
    answers: dict[int, RowAnswer],
) -> BatchConsistency:
    changed = 0
    largest = 0.0
    for row, expected in reference.items():
        found = answers[row]
        changed += not np.array_equal(expected.prediction, found.prediction)
        finite = np.isfinite(expected.numbers) & np.isfinite(found.numbers)
        differences = np.abs(expected.numbers - found.numbers)[finite]
        largest = max(largest, float(differences.max(initial=0.0)))
    return BatchConsistency(
        variant=variant.name,
        batch_size=batch_size,
        samples=len(reference),
        changed_predictions=changed,
        max_abs_difference=largest,
    )

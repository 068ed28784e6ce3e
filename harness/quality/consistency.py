"""Whether a variant answers a sample alike at whatever batch size it comes in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.quality.collection import Predictor, ask, batches
from harness.tasks.answers import RowAnswer
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import BatchConsistency, ModelVariant


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

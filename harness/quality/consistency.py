"""Whether a variant answers a sample alike at whatever batch size it comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.quality.collection import Batch, Predictor, Tensors, ask, batches, read_answer
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.rowwise import take
from harness.types import BatchConsistency, ModelVariant, TaskKind


@dataclass(frozen=True)
class _RowAnswer:
    """One row's answer without its padding."""

    prediction: NDArray[np.int64]
    numbers: NDArray[np.float64]
    """Logits (those of start and end in the context), or log probabilities of the scored tokens."""


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
) -> dict[int, _RowAnswer]:
    answers: dict[int, _RowAnswer] = {}
    for batch in batches(variant, groups, batch_size):
        answers |= _by_row(variant, batch, ask(variant, batch, predictor))
    return answers


def _by_row(variant: ModelVariant, batch: Batch, outputs: Tensors) -> dict[int, _RowAnswer]:
    predictions = read_answer(variant, batch, outputs).predictions
    if variant.task is TaskKind.SEQUENCE_CLASSIFICATION:
        numbers: NDArray[Any] = outputs["logits"]
        parts = [slice(None)] * len(batch.rows)
    elif variant.task is TaskKind.QUESTION_ANSWERING:
        both = np.stack([outputs["start_logits"], outputs["end_logits"]], axis=2)
        numbers = np.where(batch.scored[:, :, None], both, 0.0)
        parts = [slice(None)] * len(batch.rows)
    else:
        numbers = outputs["token_logprobs"]
        parts = list(batch.scored)
    return {
        int(row): _RowAnswer(np.atleast_1d(prediction)[part], values[part].astype(np.float64))
        for row, prediction, values, part in zip(
            batch.rows, predictions, numbers, parts, strict=True
        )
    }


def _compare(
    variant: ModelVariant,
    batch_size: int,
    reference: dict[int, _RowAnswer],
    answers: dict[int, _RowAnswer],
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

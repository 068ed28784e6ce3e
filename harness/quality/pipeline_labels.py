"""Outcomes of a whole served pipeline: texts in, labels out, in the place of tensors and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.collection import Predictor
from harness.tasks.classification.outcomes import (
    NO_PREDICTION,
    LabelOutcomes,
    label_outcomes,
)
from harness.tasks.classification.rows import LabelledDataset
from harness.tasks.encoding import EncodedDataset
from harness.types import ModelVariant, Progress

LABEL = "LABEL"

Texts = Mapping[str, NDArray[np.object_]]
"""By input name, (n, 1)."""


@dataclass(frozen=True)
class _Request:
    rows: NDArray[np.int64]
    inputs: Texts


def collect_labels(
    variant: ModelVariant,
    dataset: EncodedDataset,
    texts: Sequence[Texts],
    predictor: Predictor,
    *,
    batch_size: int,
    in_flight: int = 8,
    progress: Callable[[Progress], None],
) -> LabelOutcomes:
    """Put the test split's texts to a pipeline, each once; a failed request is not tried again.

    Args:
        variant: the loaded pipeline.
        dataset: the split as the model alone takes it: its rows, labels and label names.
        texts: the same groups as `dataset.groups`, as texts.
        predictor: the way to the endpoint.
        batch_size: rows a request.
        in_flight: requests at once.
        progress: told after every answer.

    Raises:
        ServerError: not one row was answered; with the first failure's words.
        DataError: the data has no labels.
    """
    if not isinstance(dataset, LabelledDataset):
        raise DataError(f"the test split has no labels, so {variant.name} cannot be scored")
    index = {name.encode(): number for number, name in enumerate(dataset.label_names)}
    predictions = np.full(dataset.size, NO_PREDICTION, dtype=np.int64)
    first_failure, done = "", 0
    requests = list(_requests(dataset, texts, batch_size))
    for request, answer in _answers(variant, requests, predictor, in_flight):
        if isinstance(answer, str):
            first_failure = first_failure or answer
        else:
            predictions[request.rows] = [index.get(label, NO_PREDICTION) for label in answer]
        done += len(request.rows)
        progress(Progress("quality", done, dataset.size, variant.name))
    missing = int((predictions == NO_PREDICTION).sum())
    if missing == dataset.size:
        raise ServerError(
            f"model {variant.name} answered none of {missing} rows of the test split: "
            f"{first_failure or 'none of its labels is one of the data'}",
            next_step="look for the model's name in the server's log",
        )
    if missing:
        note = f"{variant.name}: {missing} of {dataset.size} rows unanswered: {first_failure}"
        progress(Progress("quality", done, dataset.size, note))
    return label_outcomes(variant.name, variant.sha256, predictions, dataset)


def _answers(
    variant: ModelVariant, requests: Sequence[_Request], predictor: Predictor, in_flight: int
) -> Iterator[tuple[_Request, list[bytes] | str]]:
    """Each request with its labels or what went wrong, in their order."""
    with ThreadPoolExecutor(in_flight, thread_name_prefix="quality") as executor:
        try:
            answers = executor.map(lambda one: _labels(variant, one, predictor), requests)
            yield from zip(requests, answers, strict=True)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _requests(
    dataset: EncodedDataset, texts: Sequence[Texts], batch_size: int
) -> Iterator[_Request]:
    for group, inputs in zip(dataset.groups, texts, strict=True):
        for start in range(0, len(group.rows), batch_size):
            part = slice(start, start + batch_size)
            yield _Request(group.rows[part], {name: all_[part] for name, all_ in inputs.items()})


def _labels(variant: ModelVariant, request: _Request, predictor: Predictor) -> list[bytes] | str:
    """A label a row, or what went wrong."""
    try:
        outputs: Mapping[str, NDArray[Any]] = predictor.infer(variant.name, request.inputs)
    except ServerError as error:
        return str(error)
    labels = outputs.get(LABEL)
    expected = (len(request.rows), 1)
    if labels is None or labels.shape != expected:
        found = "nothing" if labels is None else f"the shape {labels.shape}"
        return f"the output {LABEL} has {found} where {expected} was due"
    return [bytes(label) for label in labels.reshape(-1).tolist()]

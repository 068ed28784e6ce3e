"""Outcomes of a whole served pipeline: texts in, answers out, in the place of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.collection import Predictor
from harness.tasks.encoding import EncodedDataset
from harness.tasks.outcomes import Outcomes, Tensors
from harness.tasks.registry import family_of
from harness.types import ModelVariant, Progress, TensorSpec

Texts = Mapping[str, NDArray[np.object_]]
"""By input name, (n, 1)."""


@dataclass(frozen=True)
class _Request:
    rows: NDArray[np.int64]
    inputs: Texts


def collect_text_answers(
    variant: ModelVariant,
    dataset: EncodedDataset,
    texts: Sequence[Texts],
    predictor: Predictor,
    *,
    batch_size: int,
    in_flight: int = 8,
    progress: Callable[[Progress], None],
) -> Outcomes:
    """Put the test split's texts to a pipeline, each once; a failed request is not tried again.

    Args:
        variant: the loaded pipeline.
        dataset: the split as the model alone takes it, with what its answers are compared with.
        texts: the same groups as `dataset.groups`, as texts.
        predictor: the way to the endpoint.
        batch_size: rows per request.
        in_flight: requests at once.
        progress: told after every answer.

    Raises:
        ServerError: not one row was answered; with the first failure's words.
        DataError: the data has nothing to hold an answer against.
    """
    family = family_of(variant.task)
    if not isinstance(dataset, family.dataset):
        raise DataError(
            f"the test split has no {family.lacking}, so {variant.name} cannot be scored"
        )
    replies: list[tuple[NDArray[np.int64], Tensors | None]] = []
    first_failure, done = "", 0
    requests = list(_requests(dataset, texts, batch_size))
    for request, answer in _answers(variant, requests, predictor, in_flight):
        failed = isinstance(answer, str)
        first_failure = first_failure or (answer if isinstance(answer, str) else "")
        replies.append((request.rows, None if failed else answer))  # type: ignore[arg-type]
        done += len(request.rows)
        progress(Progress("quality", done, dataset.size, variant.name))
    outcomes = family.text_outcomes(variant, dataset, replies)
    missing = int(outcomes.unanswered.sum())
    if missing == outcomes.size:
        raise ServerError(
            f"model {variant.name} answered none of {missing} {family.rows_called} of the test "
            f"split: {first_failure or f'none of its {family.lacking} is one of the data'}",
            next_step="look for the model's name in the server's log",
        )
    if missing:
        note = f"{variant.name}: {missing} of {outcomes.size} {family.rows_called} unanswered"
        progress(Progress("quality", done, dataset.size, f"{note}: {first_failure}"))
    return outcomes


def _answers(
    variant: ModelVariant, requests: Sequence[_Request], predictor: Predictor, in_flight: int
) -> Iterator[tuple[_Request, Tensors | str]]:
    """Each request with its outputs or what went wrong, in their order."""
    with ThreadPoolExecutor(in_flight, thread_name_prefix="quality") as executor:
        try:
            answers = executor.map(lambda one: _outputs(variant, one, predictor), requests)
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


def _outputs(variant: ModelVariant, request: _Request, predictor: Predictor) -> Tensors | str:
    """The outputs, or what went wrong."""
    try:
        outputs: Mapping[str, NDArray[Any]] = predictor.infer(variant.name, request.inputs)
    except ServerError as error:
        return str(error)
    problems = (_problem(spec, outputs.get(spec.name), request) for spec in variant.outputs)
    return next(filter(None, problems), outputs)


def _problem(spec: TensorSpec, values: NDArray[Any] | None, request: _Request) -> str:
    expected = (len(request.rows), *spec.shape)
    if values is not None and values.shape == expected:
        return ""
    found = "nothing" if values is None else f"the shape {values.shape}"
    return f"the output {spec.name} has {found} where {expected} was due"

"""The whole test split put to the endpoint, as tensors or as texts; its answers in files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import DataError, RunFolderError, ServerError
from harness.tasks import outcomes as files
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.outcomes import Batch, Outcomes, StoredOutcomes, Tensors
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import ModelVariant, Progress, TensorSpec


def write_outcomes(
    path: Path, outcomes: Outcomes, dataset: EncodedDataset, *, teacher: Outcomes | None = None
) -> None:
    """Write one line per row (or question) of the test split as Parquet, replacing an older file.

    Args:
        path: of the file; its folder is made.
        outcomes: of any family; `harness.tasks.outcomes.write_outcomes` says which columns.
        dataset: they were collected on: the truth is kept beside them.
        teacher: beside whose rows these are, if it is kept how they differ.

    Raises:
        StorageError: the file cannot be written.
    """
    family = family_of(outcomes.kind)
    beside = family.beside_teacher(outcomes, teacher) if teacher is not None else {}
    files.write_outcomes(path, outcomes, dataset, family.truth(dataset), beside)


def read_outcomes(path: Path) -> Any:
    """Read what `write_outcomes` wrote, to the last digit, as its family has it.

    Raises:
        RunFolderError: the file is missing or is no such file.
    """
    try:
        stored = StoredOutcomes(path)
        return family_of(stored.kind).restore(stored)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, StopIteration) as error:
        raise RunFolderError(
            f"{path} holds no outcomes: {error}",
            next_step="score the variant again, in a new run",
        ) from error


class Predictor(Protocol):
    """Whatever can put a request to the endpoint; called from several threads."""

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs, with the batch dimension.

        Raises:
            ServerError: the request failed.
        """
        ...


def batches(
    variant: ModelVariant, groups: Iterable[EncodedGroup], batch_size: int
) -> Iterator[Batch]:
    """Cut each group of equal length into batches; the last of a group may be smaller.

    Raises:
        DataError: the data set lacks an input that the model has.
    """
    for group in groups:
        missing = [spec.name for spec in variant.inputs if spec.name not in group.inputs]
        if missing:
            raise DataError(
                f"model {variant.name} wants input {', '.join(missing)}, "
                f"but the encoded data has {', '.join(sorted(group.inputs))}",
                next_step="export the model with the tokenizer of its own checkpoint",
            )
        for start in range(0, len(group.rows), batch_size):
            end = min(start + batch_size, len(group.rows))
            part = take(group, np.arange(start, end))
            yield Batch(
                part,
                {
                    spec.name: part.inputs[spec.name].astype(spec.datatype.lower())
                    for spec in variant.inputs
                },
            )


def ask(variant: ModelVariant, batch: Batch, predictor: Predictor) -> Tensors:
    """Put one request and check the shapes of what comes back.

    Raises:
        ServerError: the request failed, or an output is missing, empty or of a wrong shape.
    """
    outputs = predictor.infer(variant.served_name, batch.inputs)
    for spec in variant.outputs:
        _check(variant, spec, batch, outputs.get(spec.name))
    return outputs


def _check(
    variant: ModelVariant, spec: TensorSpec, batch: Batch, output: NDArray[Any] | None
) -> None:
    rows, length = len(batch.rows), batch.group.length
    # The one dynamic dimension there is, beside the batch, is the sequence's.
    expected = (rows, *(length if size < 0 else size for size in spec.shape))
    if output is None:
        raise ServerError(f"model {variant.name} answered without its output '{spec.name}'")
    if output.shape != expected:
        raise ServerError(
            f"model {variant.name} answered '{spec.name}' of shape {output.shape} "
            f"where {expected} was due"
        )


@dataclass(frozen=True)
class _Reply:
    batch: Batch
    answer: Any
    """The answer as the family reads it; None where the request failed."""
    failure: str = ""


def collect_outcomes(
    variant: ModelVariant,
    dataset: EncodedDataset,
    predictor: Predictor,
    *,
    batch_size: int,
    in_flight: int = 8,
    progress: Callable[[Progress], None],
) -> Any:
    """Put the whole test split to the endpoint, many requests at once, each exactly once.

    A failed request leaves its rows unanswered and is not tried again: in production it would have
    been an error too. The result does not depend on the order in which answers arrive.

    With `batch_size` equal to the served `max_batch_size` the dynamic batcher has nothing to join,
    so every execution holds the same rows in every run. With less, which requests meet in one
    execution is chance, and a model with dynamic int8 activations (whose scales are taken over the
    whole executed batch) then scores slightly differently each time.

    Args:
        variant: the loaded model.
        dataset: the encoded test split.
        predictor: the way to the endpoint.
        batch_size: rows per request.
        in_flight: requests at once.
        progress: told after every answer.

    Returns:
        The outcomes, as the task's family has them.

    Raises:
        ServerError: not one row was answered; with the first failure's words.
        DataError: the data set does not fit the model or its task.
    """
    family = family_of(variant.task)
    if not isinstance(dataset, family.dataset):
        raise DataError(
            f"the test split has no {family.lacking}, so {variant.name} cannot be scored"
        )
    todo = list(batches(variant, dataset.groups, batch_size))
    replies: list[_Reply] = []
    done = 0
    for reply in _ask_all(variant, todo, predictor, in_flight):
        replies.append(reply)
        done += len(reply.batch.rows)
        progress(Progress("quality", done, dataset.size, variant.name))
    outcomes = family.outcomes(variant, dataset, [(one.batch, one.answer) for one in replies])
    missing = int(outcomes.unanswered.sum())
    if missing:
        first = _first_failure(replies)
        what = family.rows_called
        if missing == outcomes.size:
            raise ServerError(
                f"model {variant.name} answered none of {missing} {what} of the test split: "
                f"{first}",
                next_step="look for the model's name in the server's log",
            )
        note = f"{variant.name}: {missing} of {outcomes.size} {what} unanswered: {first}"
        progress(Progress("quality", done, dataset.size, note))
    return outcomes


def _ask_all(
    variant: ModelVariant, todo: Iterable[Batch], predictor: Predictor, in_flight: int
) -> Iterator[_Reply]:
    family = family_of(variant.task)

    def reply_to(batch: Batch) -> _Reply:
        try:
            outputs = ask(variant, batch, predictor)
        except ServerError as error:
            return _Reply(batch, None, str(error))
        return _Reply(batch, family.read_answer(batch, outputs))

    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="quality")
    try:
        for future in as_completed([executor.submit(reply_to, batch) for batch in todo]):
            yield future.result()
    finally:
        # After Ctrl-C only what is in flight is waited for.
        executor.shutdown(cancel_futures=True)


def _first_failure(replies: Iterable[_Reply]) -> str:
    """The failure of the first row, rather than of the first reply to arrive."""
    failed = [reply for reply in replies if reply.failure]
    if not failed:
        return "the outputs are not numbers (NaN)"
    return min(failed, key=lambda reply: int(reply.batch.rows[0])).failure


Texts = Mapping[str, NDArray[np.object_]]
"""Arrays of shape (n, 1), by input name."""


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
    """Put the test split's texts to an ensemble, each once; a failed request is not tried again.

    Args:
        variant: the loaded ensemble.
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

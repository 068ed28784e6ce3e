"""What a variant answered to each row of the test split: asked through the endpoint, stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import DataError, RunFolderError, ServerError
from harness.quality.answers import Answer, Batch, Predictor, ask, batches, read_answer
from harness.quality.question_answering import Spans, answer_questions
from harness.storage import storage_errors
from harness.tasks.encoding import EncodedDataset
from harness.tasks.question_answering import Questions
from harness.types import ModelVariant, Progress, TaskKind

NO_PREDICTION = -1
"""Stands where a class index would, for an unanswered row."""
_OF_THE_WHOLE = frozenset({"variant", "sha256", "label_names"})
"""Fields of `Outcomes` that are no sequence of rows."""


@dataclass(frozen=True)
class Outcomes:
    """One entry a row of the test split, in the data set's order."""

    variant: str
    sha256: str
    """Of the artefact that answered; empty for a baseline that is not served."""
    predictions: NDArray[np.int64] | None
    """Class indices, `NO_PREDICTION` where unanswered; None for a language model."""
    correct: NDArray[np.bool_] | None
    """An unanswered row is not correct."""
    log_likelihood: NDArray[np.float64] | None
    """Natural logarithm, of a window's scored tokens; NaN where unanswered. None for a
    classifier, as are `tokens` and `bytes`."""
    tokens: NDArray[np.int64] | None
    """Scored tokens a window: all real ones but the first, which nothing precedes."""
    bytes: NDArray[np.int64] | None
    """UTF-8 bytes that the scored tokens stand for."""
    unanswered: NDArray[np.bool_]
    """The request failed, or the answer held no numbers."""
    words: NDArray[np.int64] | None = None
    """Words that end in those bytes."""
    f1: NDArray[np.float64] | None = None
    """Question answering, one entry a question: overlap with the right answer, 0 to 1, beside
    `correct`, which is then an exact match."""
    answers: tuple[str, ...] | None = None
    """Question answering: the spans found, empty for none."""
    logits: NDArray[np.float32] | None = None
    """A classifier's, (rows, classes), in the order of `label_names`; NaN where unanswered."""
    label_names: tuple[str, ...] | None = None
    """In the order of the checkpoint's outputs."""
    greedy: tuple[NDArray[np.int64], ...] | None = None
    """A language model's likeliest token in the place of each scored one, a row each; empty where
    unanswered."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.unanswered)


@dataclass(frozen=True)
class _Reply:
    batch: Batch
    answer: Answer | None
    failure: str = ""


def collect_outcomes(
    variant: ModelVariant,
    dataset: EncodedDataset,
    predictor: Predictor,
    *,
    batch_size: int,
    in_flight: int = 8,
    progress: Callable[[Progress], None],
) -> Outcomes:
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
        batch_size: rows a request.
        in_flight: requests at once.
        progress: told after every answer.

    Raises:
        ServerError: not one row was answered; with the first failure's words.
        DataError: the data set does not fit the model or its task.
    """
    _check_task(variant, dataset)
    todo = list(batches(variant, dataset.groups, batch_size))
    replies: list[_Reply] = []
    done = 0
    for reply in _ask_all(variant, todo, predictor, in_flight):
        replies.append(reply)
        done += len(reply.batch.rows)
        progress(Progress("quality", done, dataset.size, variant.name))
    outcomes = _assemble(variant, dataset, replies)
    missing = int(outcomes.unanswered.sum())
    if missing:
        first = _first_failure(replies)
        what = "rows" if dataset.questions is None else "questions"
        if missing == outcomes.size:
            raise ServerError(
                f"model {variant.name} answered none of {missing} {what} of the test split: "
                f"{first}",
                next_step="look for the model's name in the server's log",
            )
        note = f"{variant.name}: {missing} of {outcomes.size} {what} unanswered: {first}"
        progress(Progress("quality", done, dataset.size, note))
    return outcomes


def write_outcomes(
    path: Path,
    outcomes: Outcomes,
    dataset: EncodedDataset,
    beside_teacher: Mapping[str, NDArray[np.float64] | None] | None = None,
) -> None:
    """Write one line a row (or question) of the test split, as Parquet; an older file is replaced.

    Columns: row, label, prediction, correct, log_likelihood, tokens, bytes, words, f1, answer,
    unanswered, padded_length (of the request; the longest of a question's), logits and
    greedy_tokens (lists), and those of `beside_teacher`; one that the task does not have is all
    null. The variant's name, the artefact's digest and the class names are in the file's metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    columns: dict[str, Any] = {
        "row": pa.array(np.arange(outcomes.size)),
        "label": _column(dataset.labels, pa.int64(), outcomes.size),
        "prediction": _column(outcomes.predictions, pa.int64(), outcomes.size),
        "correct": _column(outcomes.correct, pa.bool_(), outcomes.size),
        "log_likelihood": _column(outcomes.log_likelihood, pa.float64(), outcomes.size),
        "tokens": _column(outcomes.tokens, pa.int64(), outcomes.size),
        "bytes": _column(outcomes.bytes, pa.int64(), outcomes.size),
        "words": _column(outcomes.words, pa.int64(), outcomes.size),
        "f1": _column(outcomes.f1, pa.float64(), outcomes.size),
        "answer": _column(outcomes.answers, pa.string(), outcomes.size),
        "unanswered": pa.array(outcomes.unanswered),
        "padded_length": pa.array(_padded_lengths(dataset)),
        "logits": _logits_column(outcomes),
        "greedy_tokens": _column(outcomes.greedy, pa.list_(pa.int64()), outcomes.size),
        **{
            name: _column(values, pa.float64(), outcomes.size)
            for name, values in (beside_teacher or {}).items()
        },
    }
    table = pa.table(columns).replace_schema_metadata(
        {
            "variant": outcomes.variant,
            "sha256": outcomes.sha256,
            "label_names": json.dumps(outcomes.label_names),
        }
    )
    temporary = path.with_name(f".{path.name}.new")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_outcomes(path: Path) -> Outcomes:
    """Read what `write_outcomes` wrote, to the last digit.

    Raises:
        RunFolderError: the file is missing or is no such file.
    """
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        return Outcomes(
            variant=metadata[b"variant"].decode(),
            sha256=metadata[b"sha256"].decode(),
            predictions=_array(table, "prediction"),
            correct=_array(table, "correct"),
            log_likelihood=_array(table, "log_likelihood"),
            tokens=_array(table, "tokens"),
            bytes=_array(table, "bytes"),
            words=_array(table, "words"),
            f1=_array(table, "f1"),
            answers=_texts(table, "answer"),
            unanswered=table.column("unanswered").to_numpy(),
            logits=_stored_logits(table),
            label_names=_tuple(json.loads(metadata.get(b"label_names", b"null"))),
            greedy=_stored_greedy(table),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} holds no outcomes: {error}",
            next_step="score the variant again, in a new run",
        ) from error


def take_outcomes(outcomes: Outcomes, rows: NDArray[np.int64]) -> Outcomes:
    """Some rows of outcomes, in their order."""

    def taken(values: Any) -> Any:
        if isinstance(values, np.ndarray):
            return values[rows]
        return None if values is None else tuple(values[row] for row in rows)

    per_row = (one.name for one in fields(outcomes) if one.name not in _OF_THE_WHOLE)
    return replace(outcomes, **{name: taken(getattr(outcomes, name)) for name in per_row})


def _check_task(variant: ModelVariant, dataset: EncodedDataset) -> None:
    wanted, found = {
        TaskKind.SEQUENCE_CLASSIFICATION: ("labels", dataset.labels),
        TaskKind.QUESTION_ANSWERING: ("questions", dataset.questions),
        TaskKind.CAUSAL_LM: ("byte counts", dataset.byte_counts),
    }[variant.task]
    if found is None:
        raise DataError(f"the test split has no {wanted}, so {variant.name} cannot be scored")


def _ask_all(
    variant: ModelVariant, todo: Iterable[Batch], predictor: Predictor, in_flight: int
) -> Iterator[_Reply]:
    def reply_to(batch: Batch) -> _Reply:
        try:
            outputs = ask(variant, batch, predictor)
        except ServerError as error:
            return _Reply(batch, None, str(error))
        return _Reply(batch, read_answer(variant, batch, outputs))

    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="quality")
    try:
        for future in as_completed([executor.submit(reply_to, batch) for batch in todo]):
            yield future.result()
    finally:
        # After Ctrl-C only what is in flight is waited for.
        executor.shutdown(cancel_futures=True)


def _first_failure(replies: Iterable[_Reply]) -> str:
    """Of the first row, not of the first reply to arrive."""
    failed = [reply for reply in replies if reply.failure]
    if not failed:
        return "the outputs are not numbers (NaN)"
    return min(failed, key=lambda reply: int(reply.batch.rows[0])).failure


def _assemble(
    variant: ModelVariant, dataset: EncodedDataset, replies: Iterable[_Reply]
) -> Outcomes:
    if dataset.questions is not None:
        return _assemble_questions(variant, dataset, dataset.questions, replies)
    predictions = np.full(dataset.size, NO_PREDICTION, dtype=np.int64)
    log_likelihood = np.full(dataset.size, np.nan)
    tokens = np.zeros(dataset.size, dtype=np.int64)
    answered = np.zeros(dataset.size, dtype=np.bool_)
    classifier = variant.task is TaskKind.SEQUENCE_CLASSIFICATION
    classes = variant.outputs[0].shape[-1] if classifier else 0
    logits = np.full((dataset.size, classes), np.nan, dtype=np.float32)
    greedy = [np.empty(0, dtype=np.int64)] * dataset.size
    for reply in replies:
        rows, answer = reply.batch.rows, reply.answer
        tokens[rows] = reply.batch.scored.sum(axis=1)
        if answer is None:
            continue
        answered[rows] = answer.usable
        if classifier:
            predictions[rows] = np.where(answer.usable, answer.predictions, NO_PREDICTION)
            if answer.logits is not None:
                logits[rows[answer.usable]] = answer.logits[answer.usable]
        else:
            for place in np.flatnonzero(answer.usable):
                greedy[int(rows[place])] = answer.greedy_at(int(place), reply.batch.scored[place])
            log_likelihood[rows] = np.where(answer.usable, answer.log_likelihood, np.nan)
    return Outcomes(
        variant=variant.name,
        sha256=variant.sha256,
        predictions=predictions if classifier else None,
        correct=predictions == dataset.labels if classifier else None,
        log_likelihood=None if classifier else log_likelihood,
        tokens=None if classifier else tokens,
        bytes=None if classifier else dataset.byte_counts,
        words=None if classifier else dataset.word_counts,
        unanswered=~answered,
        logits=logits if classifier else None,
        label_names=dataset.label_names,
        greedy=None if classifier else tuple(greedy),
    )


def _assemble_questions(
    variant: ModelVariant,
    dataset: EncodedDataset,
    questions: Questions,
    replies: Iterable[_Reply],
) -> Outcomes:
    """A question's windows come together to one answer."""
    spans = Spans.none(dataset.size)
    answered = np.zeros(dataset.size, dtype=np.bool_)
    for reply in replies:
        if reply.answer is not None and reply.answer.spans is not None:
            spans.put(reply.batch.rows, reply.answer.spans)
            answered[reply.batch.rows] = reply.answer.usable
    found = answer_questions(questions, spans, answered)
    return Outcomes(
        variant=variant.name,
        sha256=variant.sha256,
        predictions=None,
        correct=found.exact_match,
        log_likelihood=None,
        tokens=None,
        bytes=None,
        unanswered=found.unanswered,
        f1=found.f1,
        answers=found.answers,
    )


def _column(values: Any, kind: pa.DataType, size: int) -> pa.Array:
    return pa.nulls(size, kind) if values is None else pa.array(values, kind)


def _logits_column(outcomes: Outcomes) -> pa.Array:
    if outcomes.logits is None:
        return pa.nulls(outcomes.size, pa.list_(pa.float32()))
    flat = pa.array(outcomes.logits.ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, outcomes.logits.shape[1])


def _stored_logits(table: pa.Table) -> NDArray[np.float32] | None:
    """None where the task has none, and in files of runs that did not store them."""
    if "logits" not in table.column_names or table.column("logits").null_count:
        return None
    flat: NDArray[np.float32] = table.column("logits").combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def _stored_greedy(table: pa.Table) -> tuple[NDArray[np.int64], ...] | None:
    if "greedy_tokens" not in table.column_names or table.column("greedy_tokens").null_count:
        return None
    return tuple(np.array(row, dtype=np.int64) for row in table.column("greedy_tokens").to_pylist())


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _array(table: pa.Table, name: str) -> NDArray[Any] | None:
    column = table.column(name)
    return None if column.null_count else column.to_numpy()


def _texts(table: pa.Table, name: str) -> tuple[str, ...] | None:
    column = table.column(name)
    return None if column.null_count else tuple(column.to_pylist())


def _padded_lengths(dataset: EncodedDataset) -> NDArray[np.int64]:
    lengths = np.zeros(dataset.size, dtype=np.int64)
    for group in dataset.groups:
        lengths[group.rows] = group.inputs["attention_mask"].shape[1]
    if dataset.questions is None:
        return lengths
    longest = np.zeros(dataset.questions.size, dtype=np.int64)
    np.maximum.at(longest, dataset.questions.of_window, lengths)
    return longest

"""The whole test split put to the endpoint, and its answers in the data set's order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.answers import Answer, Batch, Predictor, ask, batches, read_answer
from harness.quality.outcomes import NO_PREDICTION, Outcomes
from harness.quality.question_answering import Spans, answer_questions
from harness.tasks.encoding import EncodedDataset
from harness.tasks.question_answering import Questions
from harness.types import ModelVariant, Progress, TaskKind


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
        label_names=dataset.class_names or dataset.label_names,
        greedy=None if classifier else tuple(greedy),
        groups=_documents(dataset),
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
        groups=shared_contexts(questions),
    )


def _documents(dataset: EncodedDataset) -> NDArray[np.int64] | None:
    """Of each window; None where there are no windows."""
    if dataset.windows is None:
        return None
    return np.array([document for document, _, _ in dataset.windows], dtype=np.int64)


def shared_contexts(questions: Questions) -> NDArray[np.int64] | None:
    """Number of each question's context; None where no two questions share one."""
    number = {context: place for place, context in enumerate(dict.fromkeys(questions.contexts))}
    if len(number) == questions.size:
        return None
    return np.array([number[context] for context in questions.contexts], dtype=np.int64)

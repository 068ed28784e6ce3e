"""Batches of the test split as requests, and answers that are fit to be scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.outcomes import NO_PREDICTION, Outcomes
from harness.quality.question_answering import Spans, answer_questions, best_spans
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.question_answering import Questions
from harness.types import ModelVariant, Progress, TaskKind, TensorSpec

Tensors = Mapping[str, NDArray[Any]]


class Predictor(Protocol):
    """Whatever can put a request to the endpoint; called from several threads."""

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's outputs, with the batch dimension.

        Raises:
            ServerError: the request failed.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """One request: rows of equal length."""

    rows: NDArray[np.int64]
    """Positions in the data set, (n,)."""
    inputs: Tensors
    """By the model's input names, (n, length)."""
    scored: NDArray[np.bool_]
    """The tokens that count, (n, length): a language model is scored on all real ones but the
    first, an extractive answer lies in the context."""
    longest_answer: int = 0
    """Extractive answers only: most tokens of one."""


@dataclass(frozen=True)
class Answer:
    """What the model said of a batch's rows."""

    predictions: NDArray[np.int64]
    """Class indices (n,), for a language model the next token at each position (n, length), for
    an extractive answer its first and last token (n, 2)."""
    log_likelihood: NDArray[np.float64]
    """Natural logarithm, summed over a row's scored tokens, (n,); NaN for a classifier."""
    usable: NDArray[np.bool_]
    """False where a row's numbers are not numbers (NaN), (n,)."""
    logits: NDArray[np.float32] | None = None
    """A classifier's, (n, classes)."""
    spans: Spans | None = None
    """Extractive answers only."""

    def greedy_at(self, row: int, scored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """A language model's likeliest token in the place of each scored one, (scored tokens,)."""
        return self.predictions[row, :-1][scored[1:]]


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
        mask = group.inputs["attention_mask"] == 1
        scored = mask & (np.arange(mask.shape[1]) >= 1)
        if group.context is not None:
            scored = group.context.mask
        for start in range(0, len(group.rows), batch_size):
            part = slice(start, start + batch_size)
            yield Batch(
                rows=group.rows[part],
                inputs={
                    spec.name: group.inputs[spec.name][part].astype(spec.datatype.lower())
                    for spec in variant.inputs
                },
                scored=scored[part],
                longest_answer=group.context.longest_answer if group.context else 0,
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


def read_answer(variant: ModelVariant, batch: Batch, outputs: Tensors) -> Answer:
    """Turn checked outputs into predictions and likelihoods.

    A classifier answers `logits` (n, labels), a model that extracts answers `start_logits` and
    `end_logits` (n, length). A language model answers `token_logprobs`
    (n, length), at each position the log probability of that token given those before it, and
    `greedy_token_ids` (n, length).
    """
    if variant.task is TaskKind.SEQUENCE_CLASSIFICATION:
        logits = outputs["logits"]
        return Answer(
            predictions=logits.argmax(axis=1).astype(np.int64),
            log_likelihood=np.full(len(batch.rows), np.nan),
            usable=np.asarray(~np.isnan(logits).any(axis=1)),
            logits=logits.astype(np.float32),
        )
    if variant.task is TaskKind.QUESTION_ANSWERING:
        return _read_spans(batch, outputs["start_logits"], outputs["end_logits"])
    logprobs = outputs["token_logprobs"].astype(np.float64)
    log_likelihood = np.where(batch.scored, logprobs, 0.0).sum(axis=1)
    return Answer(
        predictions=outputs["greedy_token_ids"].astype(np.int64),
        log_likelihood=log_likelihood,
        usable=np.isfinite(log_likelihood),
    )


def _read_spans(batch: Batch, start: NDArray[Any], end: NDArray[Any]) -> Answer:
    usable = ~(np.isnan(start) | np.isnan(end)).any(axis=1)
    spans = best_spans(start, end, batch.scored, batch.longest_answer)
    return Answer(
        predictions=np.stack([spans.starts, spans.ends], axis=1),
        log_likelihood=np.full(len(batch.rows), np.nan),
        usable=np.asarray(usable),
        spans=spans,
    )


def _check(
    variant: ModelVariant, spec: TensorSpec, batch: Batch, output: NDArray[Any] | None
) -> None:
    rows, length = batch.scored.shape
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

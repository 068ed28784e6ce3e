"""Batches of the test split as requests, and answers that are fit to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.question_answering import Spans, best_spans
from harness.tasks.encoding import EncodedGroup
from harness.types import ModelVariant, TaskKind, TensorSpec

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

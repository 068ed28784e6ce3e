"""The prompts of a test split put to a generating model, each with its own stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.losses import compare_answers
from harness.tasks.encoding import EncodedDataset
from harness.tasks.generation.outcomes import REFERENCE_LOGPROBS, WrittenOutcomes
from harness.tasks.generation.rows import PromptDataset
from harness.tasks.generation.streamed import StreamedAnswer
from harness.tasks.outcomes import Batch, RowAnswer, Tensors
from harness.tasks.registry import family_of
from harness.tasks.rowwise import take
from harness.types import BatchConsistency, ModelVariant, Progress
from harness.types import generation as names
from harness.types.generation import SamplingParameters

IN_FLIGHT = 8
"""Streams at once where quality is scored."""
ONLY_READ = SamplingParameters(max_tokens=0, prompt_logprobs=True)
"""Asks how probable a prompt is, and for no text behind it."""


class Writer(Protocol):
    """Whatever can put a prompt to the endpoint and wait for its text; called from many threads."""

    def write(
        self, model: str, token_ids: Sequence[int], sampling: SamplingParameters
    ) -> StreamedAnswer:
        """The whole answer of one stream.

        Raises:
            ServerError: the request failed, or its stream did not end.
        """
        ...


def collect_texts(
    variant: ModelVariant,
    dataset: EncodedDataset,
    writer: Writer,
    *,
    in_flight: int = IN_FLIGHT,
    progress: Callable[[Progress], None],
) -> WrittenOutcomes:
    """Put every prompt to the endpoint, many streams at once, each exactly once.

    Texts are greedy. Where the model tells how probable a prompt is, it is also asked for that of
    each reference behind its prompt. A failed request leaves its prompt unanswered and is not
    tried again: in production it would have been an error too.

    Args:
        variant: the loaded model.
        dataset: the encoded test split.
        writer: the way to the endpoint.
        in_flight: streams at once.
        progress: told after every answer.

    Raises:
        ServerError: not one prompt was answered; with the first failure's words.
        DataError: the data set is no generation task's.
    """
    prompts = _prompts_of(variant, dataset)
    replies: list[_Reply] = []
    for reply in _ask_all(variant, prompts, writer, in_flight):
        replies.append(reply)
        progress(Progress("quality", len(replies), prompts.size, variant.name))
    family = family_of(variant.task)
    answers = [
        (one.batch, None if one.outputs is None else family.read_answer(one.batch, one.outputs))
        for one in replies
    ]
    outcomes: WrittenOutcomes = family.outcomes(variant, prompts, answers)
    _tell_missing(variant, outcomes, replies, progress)
    return outcomes


def stream_consistency(
    variant: ModelVariant,
    dataset: EncodedDataset,
    writer: Writer,
    *,
    in_flight: Sequence[int],
    samples: int,
) -> list[BatchConsistency]:
    """Ask the first `samples` prompts with so many streams at once, and compare with one at a time.

    With several streams the server joins their steps into batches, beside which no greedy text may
    change; with int8 activations, whose scales are taken over the whole batch, some do.

    `changed_predictions` counts prompts of which any token changed, `max_abs_difference` is of the
    log probabilities of references' tokens.

    Raises:
        ServerError: a request failed.
        DataError: the data set is no generation task's.
    """
    prompts = _prompts_of(variant, dataset)
    few = take(prompts, np.arange(min(samples, prompts.size)))
    alone = _row_answers(variant, few, writer, 1)
    return [
        compare_answers(variant, most, alone, _row_answers(variant, few, writer, most))
        for most in in_flight
    ]


def _prompts_of(variant: ModelVariant, dataset: EncodedDataset) -> PromptDataset:
    if not isinstance(dataset, PromptDataset):
        lacking = family_of(variant.task).lacking
        raise DataError(f"the test split has no {lacking}, so {variant.name} cannot be scored")
    return dataset


@dataclass(frozen=True)
class _Reply:
    batch: Batch
    outputs: Tensors | None
    """What was written; None where a request failed."""
    failure: str = ""


def _ask_all(
    variant: ModelVariant, dataset: PromptDataset, writer: Writer, in_flight: int
) -> Iterator[_Reply]:
    def reply_to(batch: Batch) -> _Reply:
        try:
            return _Reply(batch, _ask(variant, dataset, int(batch.rows[0]), writer))
        except ServerError as error:
            return _Reply(batch, None, str(error))

    executor = ThreadPoolExecutor(in_flight, thread_name_prefix="quality")
    try:
        futures = [executor.submit(reply_to, batch) for batch in _batches(dataset)]
        for future in as_completed(futures):
            yield future.result()
    finally:
        # After Ctrl-C only what is in flight is waited for.
        executor.shutdown(cancel_futures=True)


def _batches(dataset: PromptDataset) -> Iterator[Batch]:
    """A prompt each: a stream answers one."""
    for group in dataset.groups:
        for place in range(len(group.rows)):
            part = take(group, np.array([place]))
            yield Batch(part, part.inputs)


def _ask(
    variant: ModelVariant, dataset: PromptDataset, row: int, writer: Writer
) -> dict[str, NDArray[Any]]:
    """The text behind one prompt, and how probable its reference is where that can be asked."""
    prompt, name = dataset.prompts[row], variant.served_name
    sampling = SamplingParameters(max_tokens=dataset.max_new_tokens, stop=dataset.stop)
    answer = writer.write(name, prompt, sampling)
    outputs = {
        names.TEXT_OUTPUT: _objects(answer.text),
        names.TOKEN_IDS: _objects(answer.tokens),
        names.FINISH_REASON: _objects(answer.finish_reason.value),
    }
    if dataset.reference_ids is not None and tells_probabilities(variant):
        reference = dataset.reference_ids[row]
        read = writer.write(name, *asking_of(dataset, prompt, reference))
        told = len(reference) + (0 if dataset.has_encoder else len(prompt))
        logprobs = _complete(variant, read, told)
        outputs[REFERENCE_LOGPROBS] = _objects(logprobs[-len(reference) :])
    return outputs


def asking_of(
    dataset: PromptDataset, prompt: Sequence[int], text: Sequence[int]
) -> tuple[tuple[int, ...], SamplingParameters]:
    """What asks a model how probable a text is behind a prompt: tokens to send, and how.

    What is told of the text's tokens are the last that many; with an encoder there are no others.
    """
    if dataset.has_encoder:
        return tuple(prompt), dataclasses.replace(ONLY_READ, decoder_prompt=tuple(text))
    return (*prompt, *text), ONLY_READ


def tells_probabilities(variant: ModelVariant) -> bool:
    """Whether a model can be asked how probable a prompt is."""
    return any(spec.name == names.PROMPT_LOGPROBS for spec in variant.outputs)


def _complete(variant: ModelVariant, read: StreamedAnswer, tokens: int) -> NDArray[np.float64]:
    found = read.prompt_logprobs
    if found is None or found.shape != (tokens,):
        shape = "nothing" if found is None else f"the shape {found.shape}"
        raise ServerError(
            f"model {variant.name} answered {shape} for '{names.PROMPT_LOGPROBS}' where "
            f"{(tokens,)} was due"
        )
    return found.astype(np.float64)


def _objects(value: Any) -> NDArray[Any]:
    """An array of one row that holds any value whole."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _tell_missing(
    variant: ModelVariant,
    outcomes: WrittenOutcomes,
    replies: Sequence[_Reply],
    progress: Callable[[Progress], None],
) -> None:
    missing = int(outcomes.unanswered.sum())
    if not missing:
        return
    failed = [one for one in replies if one.failure]
    first = min(failed, key=lambda one: int(one.batch.rows[0])).failure if failed else (
        "the log probabilities are not numbers (NaN)"
    )  # fmt: skip
    if missing == outcomes.size:
        raise ServerError(
            f"model {variant.name} answered none of {missing} prompts of the test split: {first}",
            next_step="look for the model's name in the server's log",
        )
    note = f"{variant.name}: {missing} of {outcomes.size} prompts unanswered: {first}"
    progress(Progress("quality", outcomes.size, outcomes.size, note))


def _row_answers(
    variant: ModelVariant, dataset: PromptDataset, writer: Writer, in_flight: int
) -> dict[int, RowAnswer]:
    family, answers = family_of(variant.task), dict[int, RowAnswer]()
    for reply in _ask_all(variant, dataset, writer, in_flight):
        if reply.outputs is None:
            raise ServerError(reply.failure)
        (answers[int(reply.batch.rows[0])],) = family.row_answers(reply.batch, reply.outputs)
    return answers

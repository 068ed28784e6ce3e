"""A student beside its teacher, asked through the endpoint along texts that are known.

As its draft: along the teacher's texts. As the first stage of a cascade: along its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, ServerError
from harness.quality.speculation.acceptance import Matches
from harness.quality.writing import IN_FLIGHT, ONLY_READ, Writer
from harness.tasks.generation.outcomes import WrittenOutcomes
from harness.tasks.generation.rows import PromptDataset
from harness.types import ModelVariant


def draft_matches(
    variant: ModelVariant,
    dataset: PromptDataset,
    teacher: WrittenOutcomes,
    writer: Writer,
    *,
    in_flight: int = IN_FLIGHT,
) -> list[Matches]:
    """In which places of the teacher's texts a student would have written the same token.

    The student reads each prompt with the teacher's greedy text behind it, once.

    Args:
        variant: the loaded student, which tells how probable a prompt is.
        dataset: the prompts in its tokens.
        teacher: the teacher's greedy texts of the same prompts.
        writer: the way to the endpoint.
        in_flight: streams at once.

    Returns:
        Of each prompt that the teacher answered with at least one token, in the data's order.

    Raises:
        DataError: the two have different vocabularies, so that the student cannot be the draft.
        ServerError: a request failed.
    """
    if dataset.vocabulary != teacher.vocabulary:
        raise DataError(
            f"{variant.name} has another vocabulary than {teacher.variant}: a draft proposes the "
            "teacher's own tokens"
        )

    def asked(row: int) -> Matches:
        text = teacher.tokens[row].tolist()
        return np.asarray(_read(variant, dataset, row, text, writer)[0] == 1)

    rows = [row for row, text in enumerate(teacher.tokens) if len(text)]
    with ThreadPoolExecutor(in_flight, thread_name_prefix="draft") as executor:
        return list(executor.map(asked, rows))


def own_confidences(
    variant: ModelVariant,
    dataset: PromptDataset,
    outcomes: WrittenOutcomes,
    writer: Writer,
    *,
    in_flight: int = IN_FLIGHT,
) -> NDArray[np.float64]:
    """How probable a student finds its own texts: geometric means of tokens' probabilities.

    Args:
        variant: the loaded student, which tells how probable a prompt is.
        dataset: the prompts in its tokens.
        outcomes: what it wrote behind them.
        writer: the way to the endpoint.
        in_flight: streams at once.

    Returns:
        From 0 to 1, (prompts,); 0 where it wrote nothing.

    Raises:
        ServerError: a request failed.
    """

    def asked(row: int) -> float:
        text = outcomes.tokens[row].tolist()
        if not text:
            return 0.0
        return float(np.exp(_read(variant, dataset, row, text, writer)[1].mean()))

    with ThreadPoolExecutor(in_flight, thread_name_prefix="confidence") as executor:
        found = np.array(list(executor.map(asked, range(dataset.size))))
    return np.asarray(np.minimum(found, 1.0))


def _read(
    variant: ModelVariant, dataset: PromptDataset, row: int, text: list[int], writer: Writer
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ranks and log probabilities of a text's tokens behind its prompt, (tokens,) each."""
    prompt = dataset.prompts[row]
    read = writer.write(variant.served_name, (*prompt, *text), ONLY_READ)
    ranks, logprobs = read.prompt_ranks, read.prompt_logprobs
    wanted = len(prompt) + len(text)
    if ranks is None or logprobs is None or {len(ranks), len(logprobs)} != {wanted}:
        raise ServerError(f"model {variant.name} does not tell the ranks of a prompt's tokens")
    behind = slice(len(prompt), wanted)
    return np.asarray(ranks[behind], np.int64), np.asarray(logprobs[behind], np.float64)

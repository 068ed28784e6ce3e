"""A student as its teacher's draft: asked through the endpoint, along the teacher's own texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

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
        prompt, text = dataset.prompts[row], teacher.tokens[row].tolist()
        read = writer.write(variant.served_name, (*prompt, *text), ONLY_READ)
        ranks = read.prompt_ranks
        if ranks is None or len(ranks) != len(prompt) + len(text):
            raise ServerError(f"model {variant.name} does not tell the ranks of a prompt's tokens")
        return np.asarray(ranks[-len(text) :] == 1)

    rows = [row for row, text in enumerate(teacher.tokens) if len(text)]
    with ThreadPoolExecutor(in_flight, thread_name_prefix="draft") as executor:
        return list(executor.map(asked, rows))

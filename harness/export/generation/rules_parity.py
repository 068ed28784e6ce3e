"""Served rules beside `generate()`'s: of the library's own logits they choose the library's tokens.

What a checkpoint's `generation_config` asks of every answer is done to logits in two places: by
transformers, and by the server (`harness/tasks/generation/rules.py`). Here they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError
from harness.export.generation.parity import GreedyText
from harness.system.libraries import plain_reason, quiet
from harness.tasks.generation.rules import RuledAnswer
from harness.types.generation import AnswerRules, GeneratorSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def ask_generate_with_rules(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int
) -> list[GreedyText]:
    """What a causal model's `generate()` writes behind each prompt, with all of its configuration.

    Each prompt alone, because padding would be repeated tokens; texts end with the end token.

    Raises:
        CheckpointError: the library cannot run it.
    """
    try:
        with quiet():
            return [_generate(model, prompt, new_tokens) for prompt in prompts]
    except Exception as error:  # a model's own code, which fails as it likes
        raise CheckpointError(
            f"{type(model).__name__}: transformers' own generate() fails: {plain_reason(error)}"
        ) from error


def _generate(model: PreTrainedModel, prompt: Sequence[int], new_tokens: int) -> GreedyText:
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        answer: Any = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(answer.logits, dim=1).float().numpy()
    tokens = tuple(answer.sequences[0, len(prompt) :].tolist())
    return GreedyText(tuple(prompt), tokens, logits[0])


def check_rules(
    settings: GeneratorSettings, library: Sequence[GreedyText], new_tokens: int, name: str
) -> None:
    """Make sure that the served rules choose what `generate()` chose, of the library's own logits.

    Raises:
        CheckpointError: they choose another token: `generate()` does something more.
    """
    for one in library:
        ruled = shaped(settings, one, one.logits, new_tokens)
        for place, (ours, theirs) in enumerate(zip(ruled.argmax(-1), one.tokens, strict=True)):
            if ours != theirs:
                raise CheckpointError(
                    f"checkpoint {name}: of the same logits generate() chooses token {theirs} and "
                    f"the rules that are served token {ours}, in place {place} of an answer: its "
                    "generation_config asks for something that is not served"
                )


def check_forced(settings: GeneratorSettings, name: str) -> None:
    """Make sure that no rule forces a token that the model has not.

    Raises:
        CheckpointError: one does.
    """
    rules = settings.rules
    forced = {"forced_bos_token_id": rules.forced_first, "forced_eos_token_id": rules.forced_last}
    for what, token in forced.items():
        if token is not None and not 0 <= token < settings.vocabulary:
            raise CheckpointError(
                f"checkpoint {name}: its generation_config has {what} {token}, and the model "
                f"writes tokens 0 to {settings.vocabulary - 1}"
            )


def shaped(
    settings: GeneratorSettings, one: GreedyText, logits: NDArray[np.float32], new_tokens: int
) -> NDArray[np.float32]:
    """Logits under the rules, each place behind the library's tokens, (tokens, vocabulary)."""
    if settings.rules == AnswerRules():
        return logits
    answer = RuledAnswer(
        settings.rules,
        begun=[settings.decoder_start] if settings.has_encoder else one.prompt,
        source=one.prompt,
        end_tokens=settings.end_tokens,
        most=new_tokens,
    )
    rows = []
    for token, row in zip(one.tokens, logits, strict=True):
        rows.append(answer.shaped(row))
        answer.push(token)
    return np.stack(rows)

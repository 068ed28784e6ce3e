"""A checkpoint's `generation_config`: what of it is served, and what is refused.

`generate()` does what the configuration says: a summariser of the BART kind bans repetitions,
forces its first and last token and keeps to a least length; a chat model of the Qwen 2 kind
penalises repetitions. All of that is served. What would change an answer and is not served is
refused here, by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.system.libraries import quiet
from harness.types.generation import AnswerRules

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

_NOT_SERVED: dict[str, tuple[Any, ...]] = {
    "encoder_repetition_penalty": (None, 1.0),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1, 1.0),
    "penalty_alpha": (None, 0, 0.0),
    "dola_layers": (None,),
    "watermarking_config": (None,),
    "constraints": (None,),
    "force_words_ids": (None,),
    "num_return_sequences": (None, 1),
    "stop_strings": (None, []),
}
"""What changes an answer and is not served, with the values at which it does not."""


def read_generation_config(folder: Path, config: PretrainedConfig) -> GenerationConfig:
    """A checkpoint's own, or what transformers makes of its configuration where there is none."""
    from transformers import GenerationConfig

    with quiet():
        if (folder / "generation_config.json").is_file():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        return GenerationConfig.from_model_config(config)


def unserved(asked: GenerationConfig, num_beams: int | None, *, has_encoder: bool) -> Iterator[str]:
    """What of a checkpoint's `generation_config` would change its answers and is not served.

    Args:
        asked: the checkpoint's.
        num_beams: what the task says; 1 means that greedy answers are wanted in any case.
        has_encoder: whether the decoder begins with a token of its own.
    """
    beams = asked.num_beams or 1
    if beams > 1 and num_beams is None:
        yield (
            f"its generation_config searches with {beams} beams, and answers are served greedily: "
            "say num_beams: 1 in the task to compare teacher and students greedily, as "
            "generate(num_beams=1) writes"
        )
    for name, values in _NOT_SERVED.items():
        value = getattr(asked, name, None)
        if value not in values:
            yield f"its generation_config has {name} {value}, which is not served"
    if any(len(word) > 1 for word in asked.bad_words_ids or ()):
        yield "its generation_config has bad_words_ids of several tokens, which are not served"
    starts = _start(asked)
    if has_encoder and not isinstance(starts, int):
        yield f"its generation_config has the decoder_start_token_id {starts}: it must be one token"


def answer_rules(asked: GenerationConfig) -> AnswerRules:
    """What every answer is held to."""
    # `generate()` forgets `min_length` where there is a `min_new_tokens`.
    shortest, with_prompt = asked.min_new_tokens, 0
    if shortest is None:
        shortest, with_prompt = 0, asked.min_length or 0
    ends = _several(asked.eos_token_id)
    words = [word[0] for word in asked.bad_words_ids or () if len(word) == 1]
    last = _several(asked.forced_eos_token_id)
    return AnswerRules(
        forced_first=asked.forced_bos_token_id,
        forced_last=min(last) if last else None,
        min_tokens=shortest if ends else 0,
        min_length=with_prompt if ends else 0,
        no_repeat=asked.no_repeat_ngram_size or 0,
        no_repeat_source=asked.encoder_no_repeat_ngram_size or 0,
        repetition_penalty=float(asked.repetition_penalty or 1.0),
        # `generate()` leaves out bad words that are the end token.
        banned=(*(asked.suppress_tokens or ()), *(one for one in words if one not in ends)),
        banned_first=tuple(asked.begin_suppress_tokens or ()),
    )


def decoder_start(asked: GenerationConfig, name: str) -> int:
    """The token that the decoder reads first.

    Raises:
        CheckpointError: none is named.
    """
    start = _start(asked)
    if not isinstance(start, int):
        raise CheckpointError(f"checkpoint {name} names no single decoder_start_token_id")
    return start


def _start(asked: GenerationConfig) -> Any:
    named = asked.decoder_start_token_id
    return asked.bos_token_id if named is None else named


def _several(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)

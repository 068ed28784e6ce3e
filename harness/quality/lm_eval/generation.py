"""Greedy text from a served language model: its settings, and many prompts at once.

transformers' `generate`, which lm-eval's `hf` model calls, takes its settings from the checkpoint's
`generation_config.json` and, above it, from the task's `generation_kwargs`. Some of them change
which token a greedy generation takes next. A model that only scores keeps none of those; one that
writes keeps its checkpoint's, whatever a task says. What would not be kept is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.quality.token_scores import ProgressOfRows, Row, TokenScorer
from harness.system.libraries import quiet

OWN = frozenset({"until", "do_sample", "max_gen_toks"})
"""Settings of a task, in lm-eval's normal form, that are carried out here."""
_SAMPLING_ALONE = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff",
        "eta_cutoff", "use_cache", "length_penalty", "early_stopping", "renormalize_logits",
    }
)  # fmt: skip
"""Settings without effect on a greedy generation."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "diversity_penalty": (0,),
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "guidance_scale": (1,),
    "penalty_alpha": (0,),
    "token_healing": (False,),
    "remove_invalid_values": (False,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({},),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "constraints": (),
    "force_words_ids": (),
    "stop_strings": (),
    "max_time": (),
    "dola_layers": (),
    "watermarking_config": (),
}
"""Values beside None that leave a greedy generation as it is."""
_SERVED = frozenset(
    {
        "repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length",
        "min_new_tokens", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
        "forced_bos_token_id", "forced_eos_token_id",
    }
)  # fmt: skip
"""What a served model that writes keeps of its checkpoint (`types.generation.AnswerRules`)."""


def generation_settings(folder: Path) -> Mapping[str, Any]:
    """What transformers generates with by the word of a checkpoint alone; None where it is silent.

    Its `generation_config.json`, and only where there is none its `config.json`.
    """
    from transformers import GenerationConfig

    with quiet():
        try:
            found = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except OSError:
            found = GenerationConfig.from_pretrained(
                folder,
                config_file_name="config.json",
                local_files_only=True,
                _from_model_config=True,
            )
    settings: Mapping[str, Any] = found.to_dict()
    return settings


def end_tokens(settings: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that end a generation by `generation_settings`."""
    end = settings.get("eos_token_id")
    if end is None:
        return frozenset()
    return frozenset(end) if isinstance(end, list | tuple) else frozenset({int(end)})


def not_kept(asked: Mapping[str, Any]) -> Iterator[str]:
    """What a task's own settings ask for beyond a greedy generation, in words.

    Args:
        asked: in lm-eval's normal form (`normalize_gen_kwargs`).
    """
    if asked["do_sample"]:
        yield "it samples (do_sample or temperature), and the served model answers greedily alone"
    if asked["max_gen_toks"] < 1:
        yield f"its max_gen_toks is {asked['max_gen_toks']}: nothing would be generated"
    if "max_length" in asked:
        yield "its max_length counts the prompt's tokens too: set max_gen_toks"
    known = OWN | _SAMPLING_ALONE | _NEUTRAL.keys() | {"max_length"}
    for name, value in asked.items():
        if name not in known:
            yield f"its setting {name} is not known here: {value!r}"
        elif not _is_neutral(name, value):
            yield _changes(f"its {name} is {value!r}")


def not_kept_of(
    settings: Mapping[str, Any], asked: Mapping[str, Any], *, writes: bool
) -> Iterator[str]:
    """What of a checkpoint's own settings, and of a task's beside them, would not be carried out.

    Args:
        settings: as `generation_settings` gives them.
        asked: of one task, in lm-eval's normal form.
        writes: whether the served model writes by itself, and so keeps its checkpoint's settings;
            one that only scores is asked for its likeliest token, and keeps none.
    """
    for name, neutrals in _NEUTRAL.items():
        value = settings.get(name)
        if _is_neutral(name, value):
            continue
        if writes and name in _SERVED:
            if asked.get(name, value) != value:
                yield _overridden(name, value, asked[name])
        elif name not in asked:
            neutral = (*neutrals, "null")[0]
            yield (
                _changes(
                    f"its generation_config.json sets {name} to {value!r}, as lm-eval's own "
                    "model would"
                )
                + f": set {name}: {neutral} in the task's generation_kwargs, or take it out there"
            )
    own = settings.get("max_new_tokens")
    if own is not None and own != asked["max_gen_toks"]:
        yield (
            f"its generation_config.json sets max_new_tokens to {own}, which transformers puts "
            f"above the task's max_gen_toks ({asked['max_gen_toks']}): make them equal"
        )


def _overridden(name: str, own: Any, asked: Any) -> str:
    return (
        f"the task sets {name} to {asked!r}, and the served model writes by its "
        f"generation_config.json, with {own!r}: leave {name} out of the task's generation_kwargs, "
        "or change it in generation_config.json"
    )


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or name not in _NEUTRAL or value in _NEUTRAL[name]


def _changes(what: str) -> str:
    return f"{what}, and the served model says its likeliest token alone"


Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Stop:
    """A text that ends a generation."""

    text: str
    """Found in every text where it is empty."""
    last_tokens: int
    """How many of the last tokens it is looked for in."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued, and where the continuation ends."""

    token_ids: Row
    max_new_tokens: int
    stops: tuple[Stop, ...]

    def request(self, end_tokens: frozenset[int]) -> bytes:
        """What the answer cache knows it by."""
        stops = [(stop.text, stop.last_tokens) for stop in self.stops]
        asked = (self.token_ids, self.max_new_tokens, stops, sorted(end_tokens))
        return b"greedy" + json.dumps(asked).encode()


@dataclass
class _Running:
    prompt: Prompt
    made: list[int] = field(default_factory=list)
    ended: bool = False
    failed: bool = False

    @property
    def row(self) -> Row:
        return (*self.prompt.token_ids, *self.made)


def generate_greedily(
    prompts: Sequence[Prompt],
    scorer: TokenScorer,
    decode: Decode,
    *,
    end_tokens: frozenset[int],
    progress: ProgressOfRows | None = None,
) -> list[tuple[int, ...] | None]:
    """Continue prompts; None where a request failed on the way.

    Args:
        prompts: none is empty; equal ones are continued once.
        scorer: the way to the model.
        decode: token numbers to text, special tokens kept.
        end_tokens: end a generation.
        progress: called with prompts finished.

    Returns:
        The new tokens of each prompt, the one that ended it included. They may go past the first
        stop string, which a token may hold in its middle: cut the decoded text.
    """
    distinct = list(dict.fromkeys(prompts))
    known = _known(distinct, scorer, end_tokens)
    running = [_Running(prompt) for prompt in distinct if prompt not in known]
    while active := [one for one in running if not one.ended]:
        if progress is not None:
            progress(len(distinct) - len(active), len(distinct))
        answers = scorer.score([one.row for one in active], keep=False)
        for one, answer in zip(active, answers, strict=True):
            if answer is None:
                one.failed = one.ended = True
                continue
            _take(one, int(answer.greedy[-1]), decode, end_tokens)
            if one.ended and scorer.cache is not None:
                request = one.prompt.request(end_tokens)
                scorer.cache.add({request: np.asarray(one.made, "<i4").tobytes()})
    made = known | {one.prompt: None if one.failed else tuple(one.made) for one in running}
    return [made[prompt] for prompt in prompts]


def _take(one: _Running, token: int, decode: Decode, end_tokens: frozenset[int]) -> None:
    one.made.append(token)
    one.ended = (
        token in end_tokens
        or len(one.made) >= one.prompt.max_new_tokens
        or any(stop.text in decode(one.made[-stop.last_tokens :]) for stop in one.prompt.stops)
    )


def _known(
    prompts: Sequence[Prompt], scorer: TokenScorer, end_tokens: frozenset[int]
) -> dict[Prompt, tuple[int, ...] | None]:
    if scorer.cache is None:
        return {}
    names = {prompt.request(end_tokens): prompt for prompt in prompts}
    found = scorer.cache.get(list(names))
    scorer.counts.kept += len(found)
    return {
        names[request]: tuple(np.frombuffer(answer, "<i4").tolist())
        for request, answer in found.items()
    }

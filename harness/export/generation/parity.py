"""The gate of a decoder: it writes what the checkpoint's own library writes, token for token.

The library is `generate()` of a model loaded for this alone, greedy, asked each prompt by itself
and the prompts as one batch padded on the left, without what its `generation_config` asks of
answers (padding would count as repeated tokens): `rules_parity.py` compares that. The graph is
given the prompts in one batch, each row behind its own length, and then token by token. A long
prompt is in no batch: the graph reads it in parts. In single precision every token must be the
library's. A token may differ only where the library itself was undecided: where its two best logits
are closer than rounding moves them; the row is compared up to there.

int8 is another function: it is given the library's tokens, and asked what it would have written at
each place. Of the tokens that the library chose by a margin it must keep nine in ten (the rule of
`harness/export/parity.py`); how much quality that costs is measured through the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import CheckpointError, ParityError
from harness.export.generation.convert import INPUTS, LOGITS, buffer_names
from harness.export.parity import TOLERANCES
from harness.system.libraries import plain_reason, quiet
from harness.types import Precision
from harness.types.generation import GeneratorSettings
from harness.words.numbers import asked_percent, number, percent

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEW_TOKENS = 24
"""Written behind each prompt."""
TOGETHER = 256
"""A prompt of more tokens is in no batch, which would pad the others to its length."""
_ROUNDING = 1e-3
"""Share of the largest logit that single precision may move; the gate of other graphs has the
same."""


@dataclass(frozen=True)
class GreedyText:
    """What the library writes behind one prompt."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: NDArray[np.float32]
    """(tokens, vocabulary), before each token was chosen."""

    @property
    def margins(self) -> NDArray[np.float32]:
        """Between the best and the second best logit, (tokens,)."""
        best = np.sort(self.logits, axis=-1)[:, -2:]
        return best[:, 1] - best[:, 0]


@dataclass(frozen=True)
class GenerationParity:
    """How a decoder compares with its checkpoint."""

    prompts: int
    tokens: int
    """Compared, over all prompts."""
    agreement: float
    """Share of them that are the library's."""
    max_difference: float
    """Largest absolute difference of a logit, given the library's tokens."""


def ask_generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int = NEW_TOKENS
) -> list[GreedyText]:
    """Ask the bare library, each prompt alone and the short ones as one batch padded on the left.

    The end token ends nothing here, so that every prompt has as many tokens, and nothing of the
    model's `generation_config` counts.

    Raises:
        CheckpointError: the library cannot run it, or writes other tokens in a padded batch than
            alone where it was sure of them.
    """
    from transformers import GenerationConfig

    neutral = GenerationConfig()  # type: ignore[no-untyped-call]
    asked, model.generation_config = model.generation_config, neutral
    try:
        generate = partial(_generate, model, new_tokens=new_tokens)
        return written_alike(model, prompts, generate, "left")
    finally:
        model.generation_config = asked


def written_alike(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    generate: Callable[[Sequence[Sequence[int]]], list[GreedyText]],
    side: str,
) -> list[GreedyText]:
    """What the library writes behind each prompt alone, if it writes the same in a padded batch.

    Args:
        model: for messages.
        prompts: token ids.
        generate: the library's texts of one batch.
        side: where the batch is padded, `left` or `right`.

    Raises:
        CheckpointError: the library cannot run it, or writes other tokens in a padded batch than
            alone where it was sure of them.
    """
    try:
        with quiet():
            alone = [generate([prompt])[0] for prompt in prompts]
            beside = [one for one in alone if len(one.prompt) <= TOGETHER]
            together = generate([one.prompt for one in beside]) if beside else []
    except Exception as error:  # a model's own code, which fails as it likes
        raise CheckpointError(
            f"{type(model).__name__}: transformers' own generate() fails: {plain_reason(error)}"
        ) from error
    for one, other in zip(beside, together, strict=True):
        if differs_at(one, other.tokens) is not None:
            raise CheckpointError(
                f"{type(model).__name__}: transformers itself writes other tokens behind a prompt "
                f"of {len(one.prompt)} tokens when it is padded on the {side} than alone"
            )
    return alone


def _generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, new_tokens: int
) -> list[GreedyText]:
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode():
        answer: Any = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(answer.logits, dim=1).float().numpy()
    tokens = answer.sequences[:, width:].tolist()
    return [
        GreedyText(tuple(prompt), tuple(tokens[row]), logits[row])
        for row, prompt in enumerate(prompts)
    ]


class DecoderSession:
    """A decoder on ONNX Runtime, its buffers passed by value: slow, and plain."""

    def __init__(self, path: Path, settings: GeneratorSettings, rows: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: its warnings are about speed
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._names = buffer_names(settings.layers)
        shape = (rows, settings.heads, settings.context, settings.head_size)
        self._past = [np.zeros(shape, np.float32) for _ in self._names]

    def step(
        self, ids: NDArray[np.int64], start: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits (rows, answers, vocabulary); see `DecoderGraph.forward`."""
        span = np.arange(int(start.max()) + ids.shape[1])
        inputs = dict(zip(INPUTS, (ids, start, span, at), strict=True))
        inputs |= {f"past.{name}": one for name, one in zip(self._names, self._past, strict=True)}
        names = [LOGITS, *(f"present.{name}" for name in self._names)]
        logits, *self._past = self._session.run(names, inputs)
        return np.asarray(logits, np.float32)


def check_decoder(
    path: Path,
    settings: GeneratorSettings,
    library: Sequence[GreedyText],
    precision: Precision,
    name: str,
) -> GenerationParity:
    """Run a decoder behind the same prompts and hold it against the library.

    Raises:
        ParityError: it writes other tokens than its precision explains.
    """
    forced = in_batches(library, partial(_forced_logits, path, settings))
    return hold_against(library, forced, precision, name)


def hold_against(
    library: Sequence[GreedyText],
    forced: Sequence[NDArray[np.float32]],
    precision: Precision,
    name: str,
    ruled: Callable[[GreedyText, NDArray[np.float32]], NDArray[np.float32]] = lambda _, one: one,
) -> GenerationParity:
    """Hold logits behind the library's own tokens against the library's.

    Args:
        library: what `generate()` wrote.
        forced: the graph's logits before each of those tokens, (tokens, vocabulary) a prompt.
        precision: of the graph.
        name: of the artefact, for messages.
        ruled: a prompt's logits after the rules that tokens are chosen by; the same ones where
            there are none.

    Raises:
        ParityError: it writes other tokens than its precision explains.
    """
    pairs = list(zip(forced, library, strict=True))
    # Of an array: Python's own max takes a NaN that does not come first for no larger.
    difference = float(np.max([np.abs(ours - one.logits).max() for ours, one in pairs]))
    written = [tuple(ruled(one, ours).argmax(-1).tolist()) for ours, one in pairs]
    count = sum(len(one.tokens) for one in library)
    same = sum(
        ours == token
        for row, one in zip(written, library, strict=True)
        for ours, token in zip(row, one.tokens, strict=True)
    )
    parity = GenerationParity(len(library), count, same / count, difference)
    if not np.isfinite(difference):
        raise ParityError(f"{name} answers with logits that are no numbers")
    if precision is Precision.INT8:
        check_clear_tokens(forced, library, name)
        return parity
    for row, one in zip(written, library, strict=True):
        chosen = replace(one, logits=ruled(one, one.logits))
        place = differs_at(chosen, row)
        if place is not None:
            raise ParityError(
                f"{name} writes token {row[place]} where transformers' generate() writes "
                f"{one.tokens[place]}: place {place} of the answer to a prompt of "
                f"{len(one.prompt)} tokens, where the library's margin is "
                f"{number(float(chosen.margins[place]))}"
            )
    return parity


def in_batches(
    library: Sequence[GreedyText],
    read: Callable[[Sequence[GreedyText]], Sequence[NDArray[np.float32]]],
) -> list[NDArray[np.float32]]:
    """Logits of each prompt in turn, read in one batch, and the long ones each by itself.

    Args:
        library: the prompts, and what the library wrote.
        read: the logits of one batch.
    """
    beside = [one for one in library if len(one.prompt) <= TOGETHER]
    found = iter(read(beside) if beside else ())
    return [next(found) if len(one.prompt) <= TOGETHER else read([one])[0] for one in library]


def _forced_logits(
    path: Path, settings: GeneratorSettings, library: Sequence[GreedyText]
) -> list[NDArray[np.float32]]:
    """Logits before each of the library's tokens, (tokens, vocabulary) a prompt.

    As long as every token is the library's, that is what writing freely gives: the first token
    that differs shows either way.
    """
    rows, width = len(library), max(len(one.prompt) for one in library)
    session = DecoderSession(path, settings, rows)
    ids = np.zeros((rows, width), np.int64)
    lengths = np.array([len(one.prompt) for one in library])
    for row, one in enumerate(library):
        ids[row, : len(one.prompt)] = one.prompt
    steps = [_read(session, ids, lengths)]
    for place in range(len(library[0].tokens) - 1):
        new = np.array([[one.tokens[place]] for one in library])
        steps.append(session.step(new, lengths + place, np.zeros((rows, 1), np.int64)))
    return list(np.concatenate(steps, axis=1))


def _read(
    session: DecoderSession, ids: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Logits behind each prompt, (rows, 1, vocabulary); a long one is read in parts."""
    for first in range(0, ids.shape[1], TOGETHER):
        part = ids[:, first : first + TOGETHER]
        at = np.minimum(lengths[:, None] - 1 - first, part.shape[1] - 1)
        logits = session.step(part, np.full(len(ids), first), at)
    return logits


def differs_at(one: GreedyText, tokens: Sequence[int]) -> int | None:
    """The first place where other tokens differ from the library's; None if it was undecided."""
    for place, (token, other) in enumerate(zip(one.tokens, tokens, strict=True)):
        if token != other:
            # Rules take tokens out by minus infinity, which says nothing of the others' size.
            largest = float(np.abs(one.logits).max(initial=1.0, where=np.isfinite(one.logits)))
            return None if one.margins[place] <= _ROUNDING * largest else place
    return None


def check_clear_tokens(
    forced: Sequence[NDArray[np.float32]], library: Sequence[GreedyText], name: str
) -> None:
    """Hold an int8 graph's logits against the library's, given the library's tokens.

    Raises:
        ParityError: they are too far off, or too many tokens that the library was sure of change.
    """
    tolerance = TOLERANCES[Precision.INT8]
    expected = np.concatenate([one.logits for one in library])
    answered = np.concatenate(list(forced))
    # Of each token's logits the mean says nothing: softmax does not see it.
    centred = expected - expected.mean(-1, keepdims=True)
    off = answered - answered.mean(-1, keepdims=True) - centred
    relative = float(np.sqrt((off**2).mean() / (centred**2).mean()))
    limit = tolerance.relative_rms or 0.0
    margins = np.concatenate([one.margins for one in library])
    clear = margins > limit * np.sqrt((centred**2).mean())
    kept = (answered.argmax(-1) == expected.argmax(-1))[clear]
    share = float(kept.mean()) if clear.any() else 1.0
    if relative > limit or share < tolerance.agreement:
        raise ParityError(
            f"{name} is not the model it was made of: its logits differ by "
            f"{percent(relative)} of their spread (at most {asked_percent(limit)}), and it keeps "
            f"{percent(share)} of the tokens that the checkpoint is sure of (at least "
            f"{asked_percent(tolerance.agreement)})",
            next_step="serve it in fp32",
        )

"""The gate of an encoder-decoder: it writes what its checkpoint's `generate()` writes.

As `parity.py` does it for causal models, with two differences. `generate()` is asked with all that
the checkpoint's own `generation_config` says, greedily: forced tokens, banned repetitions and least
lengths are the library's, and the rules that are served must choose the same of the same logits.
And padding is on the right, as encoders are padded: behind a padding on the left, positions that
are learned are other positions, in the library too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.export.generation.convert import LOGITS, buffer_names
from harness.export.generation.encoder_decoder_files import DECODER_INPUTS, ENCODER_INPUTS
from harness.export.generation.parity import (
    NEW_TOKENS,
    GenerationParity,
    GreedyText,
    hold_against,
    in_batches,
    written_alike,
)
from harness.export.generation.rules_parity import shaped
from harness.types import Precision
from harness.types.generation import GeneratorSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def ask_generate_of_sources(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], new_tokens: int = NEW_TOKENS
) -> list[GreedyText]:
    """Ask the bare library, each prompt alone and the short ones as one batch padded on the right.

    Texts end where the library ends them, with the end token.

    Raises:
        CheckpointError: the library cannot run it, or writes other tokens in a padded batch than
            alone where it was sure of them.
    """
    return written_alike(model, prompts, partial(_generate, model, new_tokens=new_tokens), "right")


def _generate(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, new_tokens: int
) -> list[GreedyText]:
    import torch

    ids, lengths = _padded(prompts)
    tokens = torch.from_numpy(ids)
    mask = (torch.arange(tokens.shape[1])[None] < torch.from_numpy(lengths)[:, None]).long()
    with torch.inference_mode():
        answer: Any = model.generate(  # type: ignore[operator]
            tokens,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(answer.logits, dim=1).float().numpy()
    written = answer.sequences[:, 1:].tolist()
    found = []
    for row, prompt in enumerate(prompts):
        own = _until_end(written[row], model.generation_config.eos_token_id)
        found.append(GreedyText(tuple(prompt), own, logits[row, : len(own)]))
    return found


def _until_end(tokens: Sequence[int], ends: Any) -> tuple[int, ...]:
    known = ends if isinstance(ends, list) else [ends]
    place = next((place for place, token in enumerate(tokens) if token in known), len(tokens))
    return tuple(tokens[: place + 1])


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(prompt) for prompt in prompts])
    ids = np.zeros((len(prompts), int(lengths.max())), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
    return ids, lengths


def check_encoder_decoder(
    graphs: tuple[Path, Path],
    settings: GeneratorSettings,
    library: Sequence[GreedyText],
    precision: Precision,
    *,
    new_tokens: int,
    name: str,
) -> GenerationParity:
    """Run both graphs, long prompts alone, and hold them against the library.

    Args:
        graphs: the encoder's file and the decoder's.
        settings: their sizes and rules.
        library: what `generate()` wrote.
        precision: of the graphs.
        new_tokens: that `generate()` was allowed.
        name: of the artefact, for messages.

    Raises:
        ParityError: it writes other tokens than its precision explains.
    """
    forced = in_batches(library, partial(_forced_logits, graphs, settings))
    ruled = partial(shaped, settings, new_tokens=new_tokens)
    return hold_against(library, forced, precision, name, ruled)


def _forced_logits(
    graphs: tuple[Path, Path], settings: GeneratorSettings, library: Sequence[GreedyText]
) -> list[NDArray[np.float32]]:
    """Logits before each of the library's tokens, (tokens, vocabulary) a prompt."""
    ids, lengths = _padded([one.prompt for one in library])
    encoder, decoder = map(_session, graphs)
    read = encoder.run(None, dict(zip(ENCODER_INPUTS, (ids, lengths), strict=True)))
    names = buffer_names(settings.layers)
    buffers = {f"read.{name}": one for name, one in zip(names, read, strict=True)}
    shape = (len(library), settings.heads, settings.context, settings.head_size)
    past = [np.zeros(shape, np.float32) for _ in names]
    before = [(settings.decoder_start, *one.tokens[:-1]) for one in library]
    steps = []
    for place in range(max(map(len, before))):
        tokens = [one[place] if place < len(one) else 0 for one in before]
        values = (
            np.array(tokens)[:, None],
            np.full(len(library), place),
            np.arange(place + 1),
            np.zeros((len(library), 1), np.int64),
            lengths,
            np.arange(ids.shape[1]),
        )
        inputs = dict(zip(DECODER_INPUTS, values, strict=True)) | buffers
        inputs |= {f"past.{name}": one for name, one in zip(names, past, strict=True)}
        logits, *past = decoder.run([LOGITS, *(f"present.{name}" for name in names)], inputs)
        steps.append(logits)
    whole = np.concatenate(steps, axis=1)
    return [row[: len(one.tokens)] for row, one in zip(whole, library, strict=True)]


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about speed
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

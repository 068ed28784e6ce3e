"""Whether a tokenizer does the same inside the server as in its checkpoint's own library.

Inside the server there is the `tokenizers` package alone. So what travels there is the tokenizer
as transformers built it, with each setting that decides its tokens; and before anything is served
the server's own code is run on the study's rows and on texts that tell settings apart, and held
against a plain `AutoTokenizer.from_pretrained(FOLDER)(text, pair, truncation=True, ...)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import CheckpointError
from harness.serving.ensemble import TextTokenizer
from harness.study import SequenceClassification
from harness.tasks.probe_texts import PROBE_TEXTS, with_special_tokens
from harness.tasks.samples import Samples
from harness.tasks.tokenizer import load_tokenizer, open_bare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 256
"""Of the study's own, at even distances."""
_SHOWN_TOKENS = 12
_ADVICE = (
    "leave pipeline out of the family: the model itself is served and measured without it; or "
    "save the tokenizer so that its tokenizer.json alone makes its tokens"
)
_Row = tuple[str, str | None]


def travelling_tokenizer(
    task: SequenceClassification, folder: Path, *, trust_remote_code: bool
) -> TextTokenizer:
    """The tokenizer of a checkpoint with all that decides its tokens.

    Raises:
        CheckpointError: there is none, or a part of it is written in Python and cannot travel.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    try:
        definition = backend.to_str()
    except Exception as error:  # the tokenizers package raises nothing narrower
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} cannot be put into a pipeline: {error}",
            next_step=_ADVICE,
        ) from error
    return TextTokenizer(
        definition=definition,
        is_pair=task.text_pair is not None,
        max_length=task.max_length,
        buckets=task.buckets,
        pad_token_id=int(tokenizer.pad_token_id),
        pad_token_type_id=int(tokenizer.pad_token_type_id),
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=bool(tokenizer.split_special_tokens),
    )


def check_travel(
    travelling: TextTokenizer,
    samples: Samples,
    folder: Path,
    names: Sequence[str],
    *,
    trust_remote_code: bool,
) -> None:
    """Refuse a pipeline whose tokens would be other ones than its checkpoint's.

    Args:
        travelling: what the server would run.
        samples: the study's rows.
        folder: of the checkpoint.
        names: inputs of the served model.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: with the first text that comes out differently.
    """
    from harness.serving.pipeline_models.text_tensors import TextTensors

    bare = open_bare(folder, trust_remote_code=trust_remote_code)
    served = TextTensors(travelling.definition, **travelling.settings)
    for text, pair in _rows(travelling, samples, bare):
        wanted = _as_the_library(bare, text, pair, travelling.max_length, names)
        if not wanted.get("input_ids"):
            continue  # nothing to ask a model; the server refuses it too
        (row,) = served.encode([text], None if pair is None else [pair])
        got = {
            "input_ids": row.ids,
            "attention_mask": row.attention_mask,
            "token_type_ids": row.type_ids,
        }
        for name in names:
            if list(wanted[name]) != list(got[name]):
                raise CheckpointError(
                    f"the pipeline of {folder} would be served with other tokens than its own: "
                    f"{name} of {_named(text, pair)} are {_start(got[name])} inside the server "
                    f"and {_start(wanted[name])} by {type(bare).__name__}",
                    next_step=_ADVICE,
                )


def _rows(
    travelling: TextTokenizer, samples: Samples, tokenizer: PreTrainedTokenizerBase
) -> Iterator[_Row]:
    """The study's rows, and texts that tell one setting from another."""
    size = len(samples.texts)
    for row in np.unique(np.linspace(0, size - 1, min(size, ROWS)).astype(int)).tolist():
        yield samples.texts[row], samples.pairs[row] if samples.pairs else None
    # More characters than tokens can be: cut, on whichever side.
    longest = max(samples.texts, key=len)
    long = " ".join([longest, *(str(number) for number in range(travelling.max_length)), longest])
    texts = [*PROBE_TEXTS, *with_special_tokens(tokenizer), long]
    if not travelling.is_pair:
        yield from ((text, None) for text in texts)
        return
    for text in texts:
        yield from ((text, "a b"), ("a b", text), (text, text))
    yield long, f"{longest} {long}"


def _as_the_library(
    bare: PreTrainedTokenizerBase,
    text: str,
    pair: str | None,
    max_length: int,
    names: Sequence[str],
) -> dict[str, Any]:
    """One row as the checkpoint's own library makes it; nothing where it refuses to."""
    try:
        return dict(
            bare(
                text,
                pair,
                truncation=True,
                max_length=max_length,
                return_attention_mask=True,
                return_token_type_ids="token_type_ids" in names,
            )
        )
    except Exception:  # noqa: BLE001  (the tokenizers package raises nothing narrower)
        return {}


def _named(text: str, pair: str | None) -> str:
    return repr(text[:60]) if pair is None else f"{text[:40]!r} with {pair[:40]!r}"


def _start(values: Sequence[int]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN_TOKENS])
    return f"[{shown}{', ...' if len(values) > _SHOWN_TOKENS else ''}] ({len(values)})"

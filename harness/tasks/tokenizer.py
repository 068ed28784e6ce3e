"""The tokenizer that a checkpoint brings, and the inputs that its model takes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import CheckpointError
from harness.tasks.extras import require_extra
from harness.tasks.quiet import quiet
from harness.types import TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)
"""A tokenizer is one of these files; the first of them is enough by itself."""


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Open a checkpoint's tokenizer, set up to pad on the right.

    A tokenizer without a pad token (GPT-2's, Llama's) pads with its end-of-text token: padded
    positions are masked, so which token stands there changes nothing.

    Raises:
        CheckpointError: there is none, it cannot be read, or it cannot say which characters a
            token covers (a 'slow' tokenizer).
        MissingExtraError: transformers is not installed.
    """
    require_extra("transformers", "tokenizers")
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)})",
            next_step="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        )
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                padding_side="right",
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {error}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} is a tokenizer in Python, which keeps no "
            f"character offsets",
            next_step="save it in the tokenizers format, so that the folder has a tokenizer.json",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{folder}: the tokenizer has neither a pad nor an end-of-text token")
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)


def input_names(
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    kind: TaskKind,
    *,
    trust_remote_code: bool = False,
) -> tuple[str, ...]:
    """Inputs of the served model, in order.

    Token types are among them only where the tokenizer makes them and the model reads them; a
    language model is asked without (they would all be zero, which is the default).
    """
    names = ("input_ids", "attention_mask")
    if kind is TaskKind.CAUSAL_LM:
        return names
    if "token_type_ids" not in tokenizer.model_input_names:
        return names
    taken = _forward_parameters(folder, kind, trust_remote_code=trust_remote_code)
    return (*names, "token_type_ids") if taken is None or "token_type_ids" in taken else names


def _forward_parameters(
    folder: Path, kind: TaskKind, *, trust_remote_code: bool
) -> frozenset[str] | None:
    """Parameters of the model's forward pass; None when the folder does not tell."""
    from transformers import (
        AutoConfig,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
    )

    if not (folder / "config.json").is_file():
        return None
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        auto: Any = (
            AutoModelForQuestionAnswering
            if kind is TaskKind.QUESTION_ANSWERING
            else AutoModelForSequenceClassification
        )
        model: Any = auto._model_mapping[type(config)]
    except (OSError, ValueError, KeyError):
        return None  # code of its own, or no such model: then the tokenizer's word stands
    return frozenset(inspect.signature(model.forward).parameters)

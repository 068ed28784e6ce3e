"""The tokenizer that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError
from harness.tasks.extras import require_extra
from harness.tasks.quiet import quiet
from harness.tasks.vocabulary import (
    VOCABULARY_FILES,
    check_vocabulary,
    has_tokenizer,
    require_reader,
    vocabulary_size,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Open a checkpoint's tokenizer as its own library does, with something to pad with.

    A tokenizer without a pad token (GPT-2's, Llama's), or with one that was added to it and not
    to its model, pads with its end-of-text token, or with any: padded positions are masked, so
    which token stands there changes nothing.

    Raises:
        CheckpointError: there is none, it cannot be read, it would be made without its vocabulary,
            or it cannot say which characters a token covers (a 'slow' tokenizer).
        MissingExtraError: transformers is not installed; or the package that reads the folder's
            kind of vocabulary.
    """
    tokenizer = open_bare(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} is a tokenizer in Python, which keeps no "
            f"character offsets",
            next_step="save it in the tokenizers format, so that the folder has a tokenizer.json",
        )
    check_vocabulary(tokenizer, folder)
    size = vocabulary_size(folder, trust_remote_code=trust_remote_code)
    candidates = (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token)
    usable = (one for one in candidates if one is not None and _is_known(tokenizer, one, size))
    tokenizer.pad_token = next(usable, None) or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _is_known(tokenizer: PreTrainedTokenizerBase, token: str, vocabulary: int | None) -> bool:
    """Whether the model can look a token up; one that was added to the tokenizer it cannot."""
    number = tokenizer.convert_tokens_to_ids(token)
    return isinstance(number, int) and (vocabulary is None or number < vocabulary)


def open_bare(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer as `AutoTokenizer.from_pretrained` makes it, nothing of ours in it.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        MissingExtraError: transformers is not installed; or the package that reads the folder's
            kind of vocabulary.
    """
    require_extra("transformers", "tokenizers")
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)})",
            next_step="save it beside the model: tokenizer.save_pretrained(FOLDER)",
        )
    require_reader(folder)
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # each class reads its files in its own way, and so they fail
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {reason}") from error
    return tokenizer

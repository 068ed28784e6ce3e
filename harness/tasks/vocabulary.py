"""The files that hold a tokenizer's vocabulary, and whether they were read.

transformers makes a tokenizer of a class even where the class finds no file that it reads: one
that knows its special tokens alone, for which every text is unknown. Nothing is said.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CheckpointError
from harness.system.libraries import quiet, require_extra

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tiktoken.model",
)
"""A tokenizer is one of these files; the first of them is enough by itself."""

_EXTRA = "sentencepiece"
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")
"""Of tiktoken's files: base64 and a number. SentencePiece's are protocol buffers."""
_SAVE = "save it beside the model where it works: tokenizer.save_pretrained(FOLDER)"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)


def require_reader(folder: Path) -> None:
    """Ask for the package that converts a vocabulary of another library's, where it is needed.

    Raises:
        MissingExtraError: it is not installed.
        CheckpointError: it is, in a release that does not work with the other packages.
    """
    plain = [name for name in VOCABULARY_FILES if not name.endswith(".model")]
    if any((folder / name).is_file() for name in plain):
        return
    models = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    if not models:
        return
    needed_by = f"{folder}: a tokenizer that is only there as {models[0]}"
    if _RANK_LINE.match((folder / models[0]).read_bytes()[:200]):
        require_extra("tiktoken", extra=_EXTRA, needed_by=needed_by)
        return
    require_extra("sentencepiece", extra=_EXTRA, needed_by=needed_by)
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # protobuf's own, which says which release is too old
        raise CheckpointError(
            f"{needed_by} cannot be converted: sentencepiece {version('sentencepiece')} does not "
            f"work with protobuf {version('protobuf')}: {error}",
            next_step=f"pip install 'triton-distillation-harness[{_EXTRA}]', or save the "
            "tokenizer where it works: the folder then has a tokenizer.json",
        ) from error


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that was made without the folder's vocabulary.

    Raises:
        CheckpointError: it knows its special tokens alone.
    """
    there = [name for name in VOCABULARY_FILES if (folder / name).is_file()]
    kind = type(tokenizer).__name__
    known = set(tokenizer.get_vocab()) - {str(one) for one in tokenizer.all_special_tokens}
    ordinary = known - {str(one) for one in tokenizer.added_tokens_decoder.values()}
    if len(ordinary) <= 1:
        raise CheckpointError(
            f"{folder}: {kind} reads nothing of {', '.join(there)}: it would know its special "
            "tokens alone, and every text would be unknown to it",
            next_step=f"look at tokenizer_class in tokenizer_config.json; or {_SAVE}",
        )


def vocabulary_size(folder: Path, *, trust_remote_code: bool) -> int | None:
    """How many tokens the folder's model knows; None where its configuration does not say."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return None
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            ).get_text_config()
    except (OSError, ValueError, KeyError):
        return None
    size = getattr(config, "vocab_size", None)
    return int(size) if size else None


def check_tokens(
    tokenizer: PreTrainedTokenizerBase, largest: int, folder: Path, *, trust_remote_code: bool
) -> None:
    """Refuse tokens that the model has no embedding of.

    Args:
        tokenizer: that made them.
        largest: id among those of the data.
        folder: of the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: with the token.
    """
    size = vocabulary_size(folder, trust_remote_code=trust_remote_code)
    if size is not None and largest >= size:
        raise CheckpointError(
            f"{folder}: the tokenizer makes token {largest} "
            f"({tokenizer.convert_ids_to_tokens(largest)!r}) of the data, and the model's "
            f"vocabulary ends at {size - 1}: the tokenizer is another model's, or tokens were "
            "added to it alone",
            next_step="save the model's own tokenizer beside it; or resize_token_embeddings, and "
            "train those that are new",
        )

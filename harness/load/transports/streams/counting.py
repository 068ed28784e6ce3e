"""Tokens of an answer by the model's own tokenizer, where its server does not count them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from harness.errors import MissingExtraError, UsageError
from harness.load.transports.streams.tokens import TokenCounter

FILE = "tokenizer.json"


def tokenizer_file(path: Path) -> Path:
    """The one file that is read of a tokenizer: the path itself, or what lies in a folder."""
    return path / FILE if path.is_dir() else path


@cache
def load_tokenizer(path: Path) -> Any:
    """A tokenizer of the library `tokenizers`, which gives every token of a text and no other.

    A file may hold how its tokenizer was used last: cut at so many tokens, filled up to as many.

    Args:
        path: `tokenizer.json`, or a checkpoint's folder that holds it.

    Raises:
        UsageError: it is none.
        MissingExtraError: the library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("tokenizers", "export") from error
    file = tokenizer_file(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise UsageError(
            f"{file}: no tokenizer: {error}",
            next_step=f"name a checkpoint's folder or its {FILE}",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_counter(path: Path) -> TokenCounter:
    """Counts the tokens of an answer's pieces; a token belongs to the piece that completes it.

    The whole text is tokenized at once: pieces tokenized apart would each begin anew, and a
    tokenizer that puts a token before each text would put one before each piece.

    Raises:
        UsageError, MissingExtraError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(path)

    def count(texts: Sequence[bytes]) -> list[int]:
        whole = b"".join(texts)
        # Ends in characters, as the tokenizer has them; half a character belongs to the next piece.
        ends = [len(whole[:end].decode(errors="ignore")) for end in accumulate(map(len, texts))]
        found = tokenizer.encode(whole.decode(errors="replace"), add_special_tokens=False)
        counts = [0] * len(texts)
        for _, end in found.offsets:
            counts[min(bisect_left(ends, end), len(counts) - 1)] += 1
        return counts

    return count

"""Rows of text as the checkpoint's own library tokenises each by itself, many in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


def tokenize_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    **settings: Any,
) -> BatchEncoding:
    """What `tokenizer(text, pair, **settings)` makes of each row.

    An empty second text is none in transformers' call of one row, and a text without tokens in its
    call of many; a model is asked one text at a time, so the former counts.
    """
    if pairs is None or all(pairs):
        seconds = None if pairs is None else list(pairs)
        encoded: BatchEncoding = tokenizer(list(texts), seconds, **settings)
        return encoded
    from transformers import BatchEncoding

    single = [row for row, pair in enumerate(pairs) if not pair]
    double = [row for row, pair in enumerate(pairs) if pair]
    parts = [(single, tokenizer([texts[row] for row in single], **settings))]
    if double:
        two = [texts[row] for row in double], [pairs[row] for row in double]
        parts.append((double, tokenizer(*two, **settings)))
    places = sorted(
        (row, part, position)
        for part, (rows, _) in enumerate(parts)
        for position, row in enumerate(rows)
    )
    data = {
        name: [parts[part][1][name][position] for _, part, position in places]
        for name in parts[0][1]
    }
    encodings = [(parts[part][1].encodings or ())[position] for _, part, position in places]
    return BatchEncoding(data, encodings)

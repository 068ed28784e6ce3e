"""Texts to tensors exactly as a checkpoint's tokenizer makes them, with `tokenizers` alone.

Written into the model repository as `<variant>-tokenize/1/text_tensors.py`, beside the model that
Triton's Python backend runs: it imports nothing of the harness. The harness runs the same file
before anything is served and holds its tokens against the checkpoint's own library.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer


class TextTensors:
    """A tokenizer with every setting that decides what it makes of a text."""

    def __init__(
        self,
        definition: str,
        *,
        truncation: Mapping[str, Any],
        split_special_tokens: bool,
        buckets: Sequence[int],
        pads: Mapping[str, int],
    ) -> None:
        """Build the tokenizer.

        Args:
            definition: `tokenizer.json`'s content.
            truncation: `max_length`, `stride`, `strategy` and `direction` of longer texts.
            split_special_tokens: whether special tokens that a text holds are text like any other.
            buckets: padded lengths, ascending; the last is `max_length`.
            pads: what stands after a row's own tokens, by input name.
        """
        self._buckets, self._pads = buckets, pads
        self._tokenizer = Tokenizer.from_str(definition)
        self._tokenizer.enable_truncation(**truncation)
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = split_special_tokens

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Encoding]:
        """Tokens of each row, special tokens included; an empty second text is none.

        That is what transformers makes of `tokenizer(text, "")`.
        """
        if pairs is None:
            return self._tokenizer.encode_batch(list(texts))
        return self._tokenizer.encode_batch(
            [(text, pair) if pair else text for text, pair in zip(texts, pairs, strict=True)]
        )

    def pad(self, rows: Sequence[Encoding], names: Sequence[str]) -> dict[str, Any]:
        """The named inputs, int64 (rows, length): all as long as the bucket of the longest row.

        Raises:
            ValueError: a row has no token at all.
        """
        if not all(len(row.ids) for row in rows):
            raise ValueError("there is no token in an empty text")
        longest = max(len(row.ids) for row in rows)
        length = next(bucket for bucket in self._buckets if bucket >= longest)
        columns = {
            "input_ids": [row.ids for row in rows],
            "attention_mask": [row.attention_mask for row in rows],
            "token_type_ids": [row.type_ids for row in rows],
        }
        padded = {}
        for name in names:
            array = np.full((len(rows), length), self._pads[name], dtype=np.int64)
            for place, values in enumerate(columns[name]):
                array[place, : len(values)] = values
            padded[name] = array
        return padded

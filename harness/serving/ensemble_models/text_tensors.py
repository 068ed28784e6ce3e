"""Texts to tensors exactly as a checkpoint's tokenizer makes them, with `tokenizers` alone.

Written into the model repository as `<variant>-tokenize/1/text_tensors.py`, beside the model that
Triton's Python backend runs: it imports nothing of the harness. The harness runs the same file
before anything is served and holds its tokens against the checkpoint's own library.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

OFFSETS, WORDS = "OFFSETS", "WORDS"
"""What says where a token lies in its text: characters (first, end), and whether it begins a word
(1), goes on with one (0), or is none of the text's (-1)."""


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
        unk_token_id: int | None = None,
    ) -> None:
        """Build the tokenizer.

        Args:
            definition: `tokenizer.json`'s content.
            truncation: `max_length`, `stride`, `strategy` and `direction` of longer texts.
            split_special_tokens: whether special tokens that a text holds are text like any other.
            buckets: padded lengths, ascending; the last is `max_length`.
            pads: what stands after a row's own tokens, by input name.
            unk_token_id: the token of what is not in the vocabulary: its own word.
        """
        self._buckets, self._pads, self._unknown = buckets, pads, unk_token_id
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

    def places(self, texts: Sequence[str], rows: Sequence[Encoding], length: int) -> dict[str, Any]:
        """Where each token lies in its text: OFFSETS (rows, length, 2) and WORDS (rows, length).

        Words are transformers' own (its token classification pipeline): a tokenizer that marks
        the pieces that go on with a word tells by that, any other by the space before a piece.
        """
        offsets = np.zeros((len(rows), length, 2), dtype=np.int64)
        words = np.full((len(rows), length), -1, dtype=np.int64)
        marked = bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))
        for row, (text, encoding) in enumerate(zip(texts, rows, strict=True)):
            pieces = zip(
                encoding.ids,
                encoding.tokens,
                encoding.offsets,
                encoding.special_tokens_mask,
                strict=True,
            )
            for place, (token, piece, (first, end), special) in enumerate(pieces):
                offsets[row, place] = first, end
                if special:
                    continue
                if marked:
                    goes_on = len(piece) != end - first
                else:
                    goes_on = first > 0 and " " not in text[first - 1 : first + 1]
                words[row, place] = token == self._unknown or not goes_on
        return {OFFSETS: offsets, WORDS: words}

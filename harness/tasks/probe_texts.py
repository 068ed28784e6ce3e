"""Short texts on which tokenizers and their settings differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE_TEXTS = (
    "",
    " ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK Brown FoX",
    " leading,  doubled   and trailing spaces ",
    "naïve café, Zürich, İstanbul: e\u0301 o\u0308 \ufb01 \u00bd \u2460",
    "東京は日本の首都 北京 서울 العربية हिन्दी 🚀👩‍👩‍👧",
    "tab\tand\nline\r\nends",
    "zero\u200bwidth, no-break\u00a0space, soft\u00adhyphen, control\x07, nul\x00 in it",
    "don't stop: 3.14 costs $1,000 (50%) at a@b.io/x_y?z=1#2",
    "camelCase snake_case kebab-case 1234567890 aaaaaaaaaaaaaaaaaaaaaaaa",
    "def f(x):\n    return x ** 2  # squared",
)
"""Case, accents, composed characters, scripts, white space, controls, digits, punctuation, code."""
_MOST_SPECIAL = 8
"""From either end of the list."""


def with_special_tokens(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Texts that hold the tokenizer's special and added tokens."""
    added = [str(token) for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    known = [*tokenizer.all_special_tokens, *added]
    for token in dict.fromkeys([*known[:_MOST_SPECIAL], *known[-_MOST_SPECIAL:]]):
        yield f"before {token} after"
        yield f"before{token}after"

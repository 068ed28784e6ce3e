"""Lists and objects that stand as text in one field of a row, as a CSV has them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from itertools import pairwise

AS_JSON = 'in a CSV a list is written as JSON: ["EU", "rejects"]'
_SPELT = re.compile(r"""\s*(\[\s*['"{]|\{\s*['"]).*[]}]\s*""", re.DOTALL)
"""How a list or object of texts begins and ends."""
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT}


def spelt(text: str) -> object:
    """The list or object that a text spells, else the text itself.

    It is spelt as JSON, or as Python prints it, which is what pandas writes to a CSV: `['EU',
    'rejects']`.

    Raises:
        ValueError: it begins and ends as a list or object of texts does, and is spelt in neither
            way; numpy, for one, prints no commas.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _python(text)
    if isinstance(found, list | dict | tuple):
        return found
    if _SPELT.fullmatch(text):
        raise ValueError(f"neither JSON nor a list of Python's: {text[:60]}")
    return text


def _python(text: str) -> object:
    """The value of a Python literal; None of any other text."""
    try:
        found = ast.literal_eval(text.strip())
        return None if _has_joined_texts(text.strip()) else found
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
        return None


def _has_joined_texts(literal: str) -> bool:
    """Whether two texts stand beside each other, which Python takes for one."""
    kinds = [
        one.type
        for one in tokenize.generate_tokens(io.StringIO(literal).readline)
        if one.type not in _LAYOUT
    ]
    return (tokenize.STRING, tokenize.STRING) in pairwise(kinds)

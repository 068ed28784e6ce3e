"""What a label says, however it was written: as the name of a class, and as an index.

`2`, `2.0`, `"02"` and numpy's `int64(2)` are one number; `true`, `"TRUE"` and `True` one truth
value; `" Pos "` and `"pos"` one name; `LABEL_2` is transformers' own way to write the index 2.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property

import numpy as np

Form = tuple[str, object]
"""Kind (text, number, truth, generic) and value: equal where two labels say the same."""

_GENERIC = re.compile(r"label_(\d+)")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_TRUTH = {"true": True, "false": False}
_SAID = {True: {"true", "yes", "positive", "pos", "on"}, False: {"false", "no", "negative", "neg",
         "off"}}  # fmt: skip


_MOST_LISTED = 8


def listed(names: Sequence[str]) -> str:
    """So many of them that a line holds, on one line."""
    shown = [" ".join(str(one).split()) for one in names[:_MOST_LISTED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def form_of(value: object) -> Form | None:
    """What a label says; None for what is not a label (missing, empty, a list, not a number)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int):
        return "number", Decimal(value)
    if isinstance(value, float):
        return ("number", Decimal(repr(value))) if math.isfinite(value) else None
    return _form_of_text(value) if isinstance(value, str) else None


def index_of(value: object) -> int | None:
    """The index that a label stands for where it is one; a truth value counts as 0 or 1."""
    kind, said = form_of(value) or ("", None)
    if kind == "number" and isinstance(said, Decimal):
        return int(said) if said == said.to_integral_value() else None
    return int(said) if kind in {"truth", "generic"} and isinstance(said, int) else None


def is_truth(value: object) -> bool:
    """Whether a label is true or false."""
    return (form_of(value) or ("", None))[0] == "truth"


def says_truth(names: Sequence[str]) -> bool:
    """Whether two names say false and true, in this order, as in `neg`, `pos`."""
    folded = [_plain(name).casefold() for name in names]
    if len(folded) != 2:  # noqa: PLR2004  (false and true)
        return False
    no, yes = folded
    return (no in _SAID[False] and yes in _SAID[True]) or no in {f"not {yes}", f"not_{yes}",
           f"not-{yes}", f"non-{yes}", f"non_{yes}", f"no {yes}", f"no_{yes}"}  # fmt: skip


def is_generic(names: Sequence[str]) -> bool:
    """Whether names are transformers' fill-ins (LABEL_0, LABEL_1, ...) and so say nothing."""
    return all(name == f"LABEL_{index}" for index, name in enumerate(names))


class NameTable:
    """Finds a label among the names of classes; what could mean two of them is not found."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def find(self, value: object) -> int | None:
        """Position of the name that a label is, exactly or as `form_of` has it."""
        exact = str(value) if isinstance(value, str | int) else None
        if exact is not None and self.names.count(exact) == 1:
            return self.names.index(exact)
        form = form_of(value)
        return self._place(form) if form else None

    def find_loosely(self, value: object) -> int | None:
        """Find a name, else one that says the same in another form: 1, true and LABEL_1."""
        found = self.find(value)
        if found is not None:
            return found
        kind, said = form_of(value) or ("", None)
        index = index_of(value)
        if kind not in {"number", "truth"} or index is None:
            return None
        others: list[Form] = [("number", Decimal(index)), ("generic", index)]
        others += [("truth", bool(index))] if index in {0, 1} else []
        places = {self._place(one) for one in others if one != (kind, said)} - {None}
        return places.pop() if len(places) == 1 else None

    @property
    def has_numbers(self) -> bool:
        """Whether a number could be one of the names."""
        return any(form and form[0] != "text" for form in self._forms)

    def _place(self, form: Form) -> int | None:
        return self._forms.index(form) if self._counts[form] == 1 else None

    @cached_property
    def _forms(self) -> list[Form | None]:
        return [form_of(name) for name in self.names]

    @cached_property
    def _counts(self) -> Counter[Form | None]:
        return Counter(self._forms)


def _form_of_text(text: str) -> Form | None:
    plain = _plain(text)
    folded = plain.casefold()
    if not plain:
        return None
    if folded in _TRUTH:
        return "truth", _TRUTH[folded]
    if _NUMBER.fullmatch(plain):
        return "number", Decimal(plain)
    generic = _GENERIC.fullmatch(folded)
    return ("generic", int(generic[1])) if generic else ("text", folded)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()

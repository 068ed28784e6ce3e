"""Dataclasses of which rows can be taken: every field says how it is cut, and one function cuts.

    @rowwise
    @dataclass(frozen=True)
    class Answers:
        variant: str = field(metadata=OF_ALL)
        correct: NDArray[np.bool_] = field(metadata=PER_ROW)

    take(answers, np.array([0, 2]))

A field that does not say so is refused where the class is made: a new one cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
"""(taken,) indexes of the rows to take, from 0 on."""
T = TypeVar("T")

_CUT = "harness.rows"


def _by_row(values: Any, rows: Positions) -> Any:
    if values is None:
        return None
    if isinstance(values, np.ndarray):
        return values[rows]
    if isinstance(values, Mapping):
        return {name: _by_row(one, rows) for name, one in values.items()}
    if is_dataclass(values) and not isinstance(values, type):
        return take(values, rows)
    return tuple(values[row] for row in rows.tolist())


def cut_by(cut: Callable[[Any, Positions], Any]) -> Mapping[str, Any]:
    """Metadata of a field that is made again.

    Args:
        cut: takes the whole container and the positions, gives the field's value.
    """
    return {_CUT: cut}


PER_ROW: Mapping[str, Any] = {_CUT: _by_row}
"""Marks a field with an entry per row: an array, a sequence, a mapping of those or another such
dataclass; or None."""
OF_ALL: Mapping[str, Any] = {_CUT: None}
"""Marks a field that says the same of any of the rows."""


def rowwise(cls: type[T]) -> type[T]:
    """Make sure that every field of a dataclass says how it is cut.

    Raises:
        TypeError: with the fields that do not.
    """
    forgotten = [one.name for one in fields(cls) if _CUT not in one.metadata]  # type: ignore[arg-type]  # checked by it
    if forgotten:
        raise TypeError(
            f"{cls.__name__}: {', '.join(forgotten)}: say PER_ROW, OF_ALL or cut_by in the "
            "field's metadata"
        )
    return cls


def take(container: T, rows: NDArray[Any]) -> T:
    """Some rows of a rowwise dataclass, in the order asked for.

    Args:
        container: of a class that `rowwise` checked.
        rows: positions, or a mask with an entry per row.

    Raises:
        ValueError: the container's own fields differ in their number of rows.
    """
    positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
    per_row = {
        one.name: _length(getattr(container, one.name))
        for one in fields(container)  # type: ignore[arg-type]  # a dataclass, by `rowwise`
        if one.metadata[_CUT] is _by_row
    }
    known = {name: length for name, length in per_row.items() if length is not None}
    if len(set(known.values())) > 1:
        raise ValueError(f"{type(container).__name__}: fields of unequal length: {known}")
    cut = {
        one.name: _cut(one, container, positions)
        for one in fields(container)  # type: ignore[arg-type]  # likewise
        if one.metadata[_CUT] is not None
    }
    return replace(container, **cut)  # type: ignore[type-var]  # likewise


def _cut(one: Field[Any], container: Any, rows: Positions) -> Any:
    cut = one.metadata[_CUT]
    return cut(getattr(container, one.name) if cut is _by_row else container, rows)


def _length(values: Any) -> int | None:
    """Rows; None where there are none to count, or where the values count their own."""
    if values is None or (is_dataclass(values) and not isinstance(values, type)):
        return None
    if isinstance(values, Mapping):
        return next((_length(one) for one in values.values()), None)
    return len(values)

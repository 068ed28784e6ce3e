"""From a row's label to the index of the checkpoint's output that stands for it.

Data and checkpoint often number the same classes differently: MNLI's data says entailment,
neutral, contradiction; many MNLI models say contradiction, entailment, neutral. Scoring by raw
index would then report nonsense without an error. So wherever both sides have names, names
decide, and indexes are only read through the names of the side that wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_GENERIC = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of one data set for one checkpoint."""

    names: tuple[str, ...] | None
    """Class names in the checkpoint's order; None when nobody names the classes."""
    written: tuple[str, ...] | None
    """Class names in the data's order; None when the data does not name its indexes."""
    classes: int | None
    """Number of classes; None when unknown (indexes are then taken as they are)."""

    @property
    def allowed(self) -> str:
        """What a label may be, in words."""
        names = self.written or self.names
        if names:
            return f"{', '.join(names)}, or an index from 0 to {len(names) - 1}"
        if self.classes is not None:
            return f"an index from 0 to {self.classes - 1} (the checkpoint names no classes)"
        return "an index from 0"

    def read(self, value: object) -> int | None:
        """Index of the checkpoint's class, or None when the value is no label."""
        if isinstance(value, str):
            return self._by_name(value.strip())
        if isinstance(value, int) and not isinstance(value, bool):
            return self._by_index(value)
        return None

    def _by_name(self, value: str) -> int | None:
        found = _position(value, self.written) if self.written else _position(value, self.names)
        if found is None:
            return self._by_index(int(value)) if re.fullmatch(r"-?\d+", value) else None
        return self._by_index(found)

    def _by_index(self, index: int) -> int | None:
        if self.written is None:
            in_range = index >= 0 and (self.classes is None or index < self.classes)
            return index if in_range else None
        if not 0 <= index < len(self.written):
            return None
        return index if self.names is None else _position(self.written[index], self.names)


def is_generic(names: Sequence[str]) -> bool:
    """Whether names are transformers' fill-ins (LABEL_0, LABEL_1, ...) and so say nothing."""
    return all(_GENERIC.fullmatch(name) for name in names)


def make_reader(
    written: Sequence[str] | None, checkpoint: Sequence[str] | None
) -> tuple[LabelReader, str]:
    """Bring the data's class names and the checkpoint's together.

    Args:
        written: the study's `labels`, or the names the data set declares.
        checkpoint: the checkpoint's id2label, in order.

    Returns:
        The reader, and what is wrong (empty when nothing is).
    """
    classes = len(checkpoint) if checkpoint else None
    named = tuple(checkpoint) if checkpoint and not is_generic(checkpoint) else None
    if not written:
        return LabelReader(named, None, classes), ""
    data = tuple(written)
    if named is None:
        problem = ""
        if classes is not None and classes != len(data):
            problem = (
                f"the data has {len(data)} classes ({', '.join(data)}), "
                f"the checkpoint has {classes}"
            )
        return LabelReader(data, data, len(data)), problem
    unknown = [name for name in data if _position(name, named) is None]
    problem = mismatch(data, named) if unknown else ""
    return LabelReader(named, data, classes), problem


def mismatch(data: Sequence[str], checkpoint: Sequence[str]) -> str:
    """The sentence about two lists that do not go together."""
    return (
        f"labels do not match: the data's are [{', '.join(data)}], "
        f"the checkpoint's are [{', '.join(checkpoint)}]"
    )


def _position(name: str, names: Sequence[str] | None) -> int | None:
    """Position of a name: exact first, else ignoring case where that is unambiguous."""
    if names is None:
        return None
    if name in names:
        return list(names).index(name)
    folded = [index for index, other in enumerate(names) if other.casefold() == name.casefold()]
    return folded[0] if len(folded) == 1 else None

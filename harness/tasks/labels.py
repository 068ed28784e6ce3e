"""From a row's label to the index of the checkpoint's output that stands for it.

Data and checkpoint often number the same classes differently: MNLI's data says entailment,
neutral, contradiction; many MNLI models say contradiction, entailment, neutral. Scoring by raw
index would then report nonsense without an error. So names decide wherever they can, also where
they are numbers: twelve classes may be called 0, 1, 10, 11, 2, ..., and the label 2 is then the
class "2", not the third output.

The whole column decides how it is read, never one row:

| the labels are                              | read as                                        |
|---------------------------------------------|------------------------------------------------|
| declared as indexes (`datasets.ClassLabel`) | indexes of the declared names                  |
| all names of classes                        | names                                          |
| not all names, but all indexes              | indexes                                        |
| some names, some indexes, no doubt which    | each as what it is                             |
| anything else, or two readings that differ  | refused; the study's `labels` settles it       |

Numbers that stand in the names of classes are a reading as well: of `1 star` to `5 stars`, labels
from 1 to 4 may be the names' numbers or indexes.

An index counts in the order of the study's `labels`, else of the teacher's classes where teacher
and student share names, else of the checkpoint's own.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.tasks.label_values import (
    NameTable,
    form_of,
    index_of,
    is_generic,
    is_truth,
    says_truth,
)

_LISTED = 20
_NUMBER_IN_NAME = re.compile(r"\d+")


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of one column for one checkpoint."""

    model: str
    """The model's name in messages."""
    outputs: tuple[str, ...]
    """The checkpoint's id2label, in order."""
    order: tuple[str, ...] | None = None
    """Class names in the data's order, where the study or the data declares them."""
    counted_by: tuple[str, ...] | None = None
    """Class names that an index counts in, where those are another model's."""
    by_index: bool = False
    """What the column holds, where a label could be both."""
    class_names: tuple[str, ...] = ()
    """What each output stands for, in the words of the family's teacher: equal for equal classes,
    whatever the checkpoints call them; each once."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the outputs: the checkpoint's, else the data's."""
        unnamed = is_generic(self.outputs)
        whole = self.order is not None and len(self.order) == len(self.outputs)
        return self.order if unnamed and whole and self.order else self.outputs

    def read(self, value: object) -> int | None:
        """Index of the checkpoint's output, or None when the value is not a label of it."""
        first, second = self.named, self.indexed
        if self.by_index:
            first, second = second, first
        found = first(value)
        if found is None and (index_of(value) is None or not self._numbers_are_names):
            return second(value)
        return found

    def named(self, value: object) -> int | None:
        """The output of a label that is taken as a name."""
        place = self._names.find_loosely(value) if self._names else None
        return place if place is None or self.order is None else self._of_order(place)

    def indexed(self, value: object) -> int | None:
        """The output of a label that is taken as an index."""
        index = index_of(value)
        counted = self.order or self.counted_by or self.outputs
        if index is None or not 0 <= index < len(counted):
            return None
        if is_truth(value) and not self._takes_truth:
            return None
        if self.order is not None:
            return self._of_order(index)
        return index if self.counted_by is None else self._own.find(self.counted_by[index])

    @property
    def is_named(self) -> bool:
        """Whether the checkpoint names its classes."""
        return not is_generic(self.outputs)

    def _of_order(self, place: int) -> int | None:
        if self.order is None or self.is_named:
            return self._own.find((self.order or self.outputs)[place])
        return place if place < len(self.outputs) else None

    @property
    def _takes_truth(self) -> bool:
        """Whether false and true can only mean the first and the second class."""
        if len(self.order or self.outputs) != 2:  # noqa: PLR2004  (false and true)
            return False
        return self.order is not None or not self.is_named or says_truth(self.outputs)

    @property
    def _numbers_are_names(self) -> bool:
        return self._names is not None and self._names.has_numbers

    @cached_property
    def _own(self) -> NameTable:
        return NameTable(self.outputs)

    @cached_property
    def _names(self) -> NameTable | None:
        """What a label may be a name of."""
        if self.order is not None:
            return NameTable(self.order)
        return self._own if self.is_named else None


@dataclass(frozen=True)
class LabelReading:
    """How a column is read for a checkpoint."""

    reader: LabelReader
    problem: str = ""
    """Why it cannot be, with both lists; empty where it can."""
    note: str = ""
    """What a person should know of it; empty for the plain case."""


def choose_reading(
    values: Sequence[object],
    model: str,
    outputs: Sequence[str],
    *,
    order: Sequence[str] | None = None,
    declared: bool = False,
    teacher: LabelReader | None = None,
) -> LabelReading:
    """Decide how the labels of a column are read for a checkpoint.

    Args:
        values: all labels of the column.
        model: the checkpoint's, as messages name it.
        outputs: its id2label, in order.
        order: class names in the data's order: the study's `labels`, or those that the data
            declares.
        declared: the data declares the column to hold indexes.
        teacher: how the same column was read for the family's teacher.
    """
    distinct = distinct_labels(values)
    reader = LabelReader(model, tuple(outputs), tuple(order) if order else None)
    if problem := _order_problem(reader):
        return LabelReading(reader, problem)
    if teacher is not None and order is None and _share_names(reader, teacher):
        reader = dataclasses.replace(reader, counted_by=teacher.outputs)
    reading = _decided(reader, distinct, declared=declared)
    if not reading.problem and teacher is not None:
        reading = _beside(reading, teacher, distinct)
    if teacher is None:
        own = _unique(reading.reader.names)
    else:
        own = _shared(reading.reader, teacher, distinct)
    return dataclasses.replace(reading, reader=dataclasses.replace(reading.reader, class_names=own))


def distinct_labels(values: Sequence[object]) -> list[object]:
    """One value of each that is written alike, numbers and names in their order."""
    found = {(type(value), repr(value)): value for value in values}
    return sorted(found.values(), key=lambda value: form_of(value) or ("", repr(value)))


def mismatch(values: Sequence[object], reader: LabelReader, why: str) -> str:
    """The sentence about labels that do not go with a checkpoint's classes; both lists in it."""
    return (
        f"labels do not match the classes of {reader.model}: the data's are "
        f"[{_listed(values)}], the checkpoint's are [{_listed(reader.outputs)}]: {why}"
    )


def _decided(reader: LabelReader, distinct: Sequence[object], *, declared: bool) -> LabelReading:
    """How the labels are read, by the table above."""
    as_names = dataclasses.replace(reader, by_index=False)
    as_indexes = dataclasses.replace(reader, by_index=True)
    if declared:
        return LabelReading(as_indexes)
    readings = [(value, reader.named(value), reader.indexed(value)) for value in distinct]
    apart = [one for one in readings if None not in one[1:] and one[1] != one[2]]
    all_named = all(name is not None for _, name, _ in readings)
    all_indexed = all(index is not None for _, _, index in readings)
    if all_named and not (apart and all_indexed):
        return LabelReading(as_names)
    if all_named and _are_names(reader, distinct):
        note = "" if reader.order else _read_as("names of classes, not as indexes", apart, reader)
        return LabelReading(as_names, note=note)
    if all_indexed and (reader.order or not all_named):
        why = "" if reader.order else _other_numbers(readings, reader)
        if why:
            why = mismatch(distinct, reader, why)
        return LabelReading(
            as_indexes, why, note=_read_as("indexes, not as names of classes", apart, reader)
        )
    if apart:
        return LabelReading(as_names, mismatch(distinct, reader, _two_readings(apart[0], reader)))
    return LabelReading(as_names)


def _are_names(reader: LabelReader, distinct: Sequence[object]) -> bool:
    """Whether all labels are names as they stand, rather than in another kind's words."""
    table = NameTable(reader.order or reader.outputs)
    return all(table.find(value) is not None for value in distinct)


_Apart = tuple[object, int | None, int | None]


def _read_as(kind: str, apart: Sequence[_Apart], reader: LabelReader) -> str:
    if not apart:
        return ""
    value, name, index = apart[0]
    place = name if kind.startswith("names") else index
    return (
        f"its labels are read as {kind}: {_shown(value)} is '{reader.outputs[place or 0]}', output "
        f"{place}; the task's 'labels' settles it if that is wrong"
    )


def _two_readings(one: _Apart, reader: LabelReader) -> str:
    value, name, index = one
    return (
        f"{_shown(value)} may be the name of '{reader.outputs[name or 0]}' or the index of "
        f"'{reader.outputs[index or 0]}', and the column does not say which"
    )


def _other_numbers(
    readings: Sequence[tuple[object, int | None, int | None]], reader: LabelReader
) -> str:
    """A remark where indexes may also be numbers in other classes' names; empty where they cannot.

    Args:
        readings: each label, its output by name, and its output by index.
        reader: whose classes they are.
    """
    found = [_NUMBER_IN_NAME.findall(name) for name in reader.outputs]
    numbers = [int(one[0]) for one in found if len(one) == 1]
    if len(set(numbers)) < len(reader.outputs):
        return ""
    labels = [(value, index_of(value), index) for value, _, index in readings]
    if not all(number in numbers for _, number, _ in labels):
        return ""
    for value, number, index in labels:
        named = numbers.index(number or 0)
        if named != index:
            return (
                f"{_shown(value)} may be the number in '{reader.outputs[named]}' or the index of "
                f"'{reader.outputs[index or 0]}', and the column does not say which"
            )
    return ""


def _order_problem(reader: LabelReader) -> str:
    """Why the data's declared names do not go with the checkpoint's."""
    order = reader.order
    if order is None:
        return ""
    if not reader.is_named:
        if len(order) == len(reader.outputs):
            return ""
        count = f"the data has {len(order)} classes, the checkpoint has {len(reader.outputs)}"
        return mismatch(order, reader, count)
    own = NameTable(reader.outputs)
    unknown = [name for name in order if own.find(name) is None]
    return mismatch(order, reader, f"{_listed(unknown)} is not among them") if unknown else ""


def _share_names(reader: LabelReader, teacher: LabelReader) -> bool:
    """Whether the two call some class alike, so that the teacher's order can be looked up."""
    if not (reader.is_named and teacher.is_named):
        return False
    own = NameTable(reader.outputs)
    return any(own.find(name) is not None for name in teacher.outputs)


def _beside(
    reading: LabelReading, teacher: LabelReader, distinct: Sequence[object]
) -> LabelReading:
    """Make sure that a row's truth is one class, whichever model it is read for."""
    reader = reading.reader
    read = [(value, teacher.read(value), reader.read(value)) for value in distinct]
    known = [(v, theirs, own) for v, theirs, own in read if theirs is not None and own is not None]
    pairs = {(theirs, own) for _, theirs, own in known}
    theirs_twice = Counter(theirs for theirs, _ in pairs)
    own_twice = Counter(own for _, own in pairs)
    both_named = teacher.is_named and reader.is_named
    told_by_index_alone = not reader.is_named and reader.order is None and not teacher.by_index
    table = NameTable(reader.outputs)
    for value, theirs, own in known:
        called = teacher.outputs[theirs]
        by_name = table.find(called) if both_named else None
        if (
            theirs_twice[theirs] > 1
            or own_twice[own] > 1
            or (by_name is not None and by_name != own)
            or (told_by_index_alone and theirs != own)
        ):
            why = (
                f"{_shown(value)} is the class '{called}' of the teacher {teacher.model} "
                f"[{_listed(teacher.outputs)}], and here output {own}, '{reader.outputs[own]}'"
            )
            return dataclasses.replace(reading, problem=mismatch(distinct, reader, why))
    return reading


def _shared(
    reader: LabelReader, teacher: LabelReader, distinct: Sequence[object]
) -> tuple[str, ...]:
    """The teacher's name for each output; an output that it does not know keeps its own.

    The labels of the data tell it first: what one of them is read as for both is one class.
    """
    found: dict[int, str] = {}
    for theirs, own in ((teacher.read(value), reader.read(value)) for value in distinct):
        if theirs is not None and own is not None:
            found.setdefault(own, teacher.class_names[theirs])
    for place, called in enumerate(teacher.class_names):
        if called in found.values():
            continue
        if reader.order is not None:
            own = reader.named(called)
        else:
            own = reader.read(place if teacher.by_index else called)
        if own is None and not reader.is_named and place < len(reader.outputs):
            own = place
        if own is not None and own not in found:
            found[own] = called
    taken = set(teacher.class_names)
    return _unique(
        tuple(
            found.get(place, name if name not in taken else f"{name} of {reader.model}")
            for place, name in enumerate(reader.names)
        )
    )


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which each stands once: a second `x` becomes `x (2)`."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)


def _listed(values: Sequence[object]) -> str:
    shown = [_shown(value) for value in values[:_LISTED]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more else "")


def _shown(value: object) -> str:
    return str(value) if form_of(value) and "," not in str(value) else repr(value)

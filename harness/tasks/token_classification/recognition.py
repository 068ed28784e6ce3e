"""Which columns of a data file hold a sentence's words and their tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.errors import DataError
from harness.tasks.label_values import index_of
from harness.tasks.rows import DataTable
from harness.tasks.token_classification.rows import as_list

TOKENS = ("tokens", "words", "token", "word")
TAGS = ("ner_tags", "tags", "labels", "ner", "entities")
"""What the columns are called elsewhere, the likeliest first."""
_SAMPLE = 500
"""Rows that are looked at."""
_TAG = re.compile(r"O|[BIESLUM]-\S+", re.IGNORECASE)

Lists = Sequence[list[object]]


def recognise_words(
    table: DataTable, named: Mapping[str, str], label_names: Sequence[str] | None
) -> dict[str, str]:
    """The columns of words and of tags, beside those that are known already.

    A column of tags holds lists of a checkpoint's own tags, of names like B-PER, or of indexes of
    its outputs; one of words as long lists of texts.

    Args:
        table: the data.
        named: columns by key, `tokens` or `tags`, that a person named.
        label_names: of the checkpoint's outputs; None where they are not known.

    Raises:
        DataError: no two columns go together like that, or several do.
    """
    lists = {name: found for name in table.columns if (found := _lists(table, name)) is not None}
    named_tags, named_tokens = named.get("tags"), named.get("tokens")
    fitting = [
        (words, tags)
        for tags in _by_name(lists, TAGS, named_tags)
        if tags in lists and (named_tags or _are_tags(lists[tags], label_names or ()))
        for words in _by_name(lists, TOKENS, named_tokens)
        if words != tags and words in lists and _are_words(lists[words], lists[tags])
    ]
    own = set(label_names or ())
    fitting = [
        one for one in fitting if {str(tag) for row in lists[one[1]] for tag in row} <= own
    ] or fitting  # the checkpoint's own tags come before others of their form
    known = [one for one in fitting if one[1] in TAGS and one[0] in TOKENS]
    best = known[:1] or _richest(fitting, lists)
    if len({tags for _, tags in best}) != 1 or len(best) != 1:
        raise _untold(table, best or fitting)
    return {**named, "tokens": best[0][0], "tags": best[0][1]}


def _richest(
    fitting: Sequence[tuple[str, str]], lists: Mapping[str, Lists]
) -> list[tuple[str, str]]:
    """The columns with the most distinct words: parts of speech have few."""
    sizes = [len({word for row in lists[words] for word in row}) for words, _ in fitting]
    most = max(sizes, default=0)
    return [one for one, size in zip(fitting, sizes, strict=True) if size == most]


def _by_name(lists: Mapping[str, Lists], usual: Sequence[str], named: str | None) -> list[str]:
    """The one that a person named; else all, those of a usual name first."""
    if named:
        return [named]
    first = [name for name in usual if name in lists]
    return [*first, *(name for name in lists if name not in first)]


def _lists(table: DataTable, column: str) -> Lists | None:
    found = [as_list(row.get(column)) for row in table.rows[:_SAMPLE]]
    return None if any(one is None for one in found) else [one for one in found if one is not None]


def _are_tags(lists: Lists, label_names: Sequence[str]) -> bool:
    values = [tag for row in lists for tag in row]
    return bool(values) and (
        all(str(tag) in label_names for tag in values)
        or all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in values)
        or all((index := index_of(tag)) is not None and 0 <= index < len(label_names)
               for tag in values)
    )  # fmt: skip


def _are_words(words: Lists, tags: Lists) -> bool:
    return all(
        len(row) == len(own) and all(isinstance(word, str) for word in row)
        for row, own in zip(words, tags, strict=True)
    )


def _untold(table: DataTable, fitting: Sequence[tuple[str, str]]) -> DataError:
    columns = f"its columns are {', '.join(table.columns)}"
    if fitting:
        shown = "; ".join(f"{words} with {tags}" for words, tags in fitting[:4])
        return DataError(
            f"{table.source}: several columns could be a sentence's words and their tags: {shown}",
            next_step="say which: --column tokens=COLUMN --column tags=COLUMN",
        )
    return DataError(
        f"{table.source}: no column holds a sentence's words with one of as many tags; {columns}",
        next_step='a row is a sentence, {"tokens": ["In", "Oslo"], "ner_tags": ["O", "B-LOC"]}; '
        "name the columns: --column tokens=COLUMN --column tags=COLUMN",
    )

"""The language task: English paragraphs of PyTorch's docstrings, some hundred characters each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from harness.errors import DataError
from harness.reference.corpus import REINSTALL, SourceFile, Split, split_of

MINIMUM_CHARACTERS = 120
MINIMUM_LETTER_SHARE = 0.9
"""Letters and spaces among the characters: separates sentences from code, tables and formulas."""
BLOCK_PARAGRAPHS = 4
MINIMUM_ROWS = 500

_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""', re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n")


def build_prose(sources: Iterable[SourceFile]) -> Mapping[Split, tuple[str, ...]]:
    """All distinct paragraphs in the order of the files, by split.

    Raises:
        DataError: the source holds too few docstrings (a build of PyTorch stripped of them).
    """
    rows: dict[Split, list[str]] = {split: [] for split in Split}
    seen: set[str] = set()
    for source in sources:
        for number, paragraph in enumerate(_paragraphs(source.text)):
            if paragraph not in seen:
                seen.add(paragraph)
                rows[split_of(source.name, number // BLOCK_PARAGRAPHS)].append(paragraph)
    if len(seen) < MINIMUM_ROWS:
        raise DataError(
            f"torch's source holds only {len(seen)} paragraphs of prose, {MINIMUM_ROWS} are needed",
            next_step=REINSTALL,
        )
    return {split: tuple(texts) for split, texts in rows.items()}


def _paragraphs(text: str) -> Iterator[str]:
    for match in _TRIPLE_QUOTED.finditer(text):
        for part in _BLANK_LINES.split(match.group(1)):
            paragraph = " ".join(part.split())
            if is_prose(paragraph):
                yield paragraph


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph reads like sentences rather than code or a table."""
    if len(paragraph) < MINIMUM_CHARACTERS:
        return False
    plain = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        paragraph[0].isupper()
        and paragraph[-1] in ".:"
        and plain >= MINIMUM_LETTER_SHARE * len(paragraph)
    )

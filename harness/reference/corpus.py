"""Text that every machine with the `[export]` extra has: PyTorch's source and its docstrings.

The package is pinned (`torch==2.13.0`), so the text, and with it the tasks' difficulty, is the
same under every Python version and distribution; the standard library's source is neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from harness.errors import DataError, MissingExtraError

REINSTALL = "reinstall torch with its .py files: pip install --force-reinstall torch==2.13.0"
"""The next step where the text is not there."""

_BUCKETS = 100
_VALIDATION_FROM_BUCKET = 20
_TRAIN_FROM_BUCKET = 30


class Split(StrEnum):
    """What a row may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    """For choices: sizes, steps, learning rates."""
    TEST = "test"
    """For the scores that are reported, and for load; nothing is chosen on it."""


@dataclass(frozen=True)
class SourceFile:
    """One file's text; `name` is its path inside the package, with forward slashes."""

    name: str
    text: str


def package_folder() -> Path:
    """Where PyTorch's source files lie, found without importing it.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise MissingExtraError("torch", "export")
    return Path(spec.origin).parent


def read_sources(folder: Path) -> Iterator[SourceFile]:
    """All `.py` files under `folder` in a fixed order; undecodable bytes become U+FFFD."""
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        yield SourceFile(name, path.read_text(encoding="utf-8", errors="replace"))


def source_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all source files."""
    digest = hashlib.sha256()
    for source in read_sources(folder):
        content = hashlib.sha256(source.text.encode()).hexdigest()
        digest.update(f"{source.name} {content}\n".encode())
    return digest.hexdigest()


def split_of(file_name: str, block: int) -> Split:
    """The split of a block of neighbouring rows of one file.

    70 % train, 10 % validation, 20 % test. Rows of one block stay together, so a test row's
    neighbours are never trained on; other blocks of its file may be ('same files, unseen blocks').
    """
    digest = hashlib.sha256(f"{file_name}#{block}".encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % _BUCKETS
    if bucket >= _TRAIN_FROM_BUCKET:
        return Split.TRAIN
    return Split.VALIDATION if bucket >= _VALIDATION_FROM_BUCKET else Split.TEST


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

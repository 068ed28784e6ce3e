"""The reference models' data: text that every machine has, and the tasks that are made of it.

The package is pinned (`torch==2.13.0`), so the text, and with it the tasks' difficulty, is the same
under every Python version and distribution; the standard library's source is neither.

The classification task: which of PyTorch's sub-packages do these words of source come from? A row
is a run of neighbouring words of one file, as a search index would see them: identifiers split at
underscores and capitals, punctuation, digits and single letters dropped, the sub-packages' own
names removed, duplicates dropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness.errors import DataError, MissingExtraError
from harness.reference.recipes import (
    NEW_TOKENS,
    PROSE_LENGTH,
    PROSE_VOCABULARY,
    TOPICS_LENGTH,
    TOPICS_VOCABULARY,
)
from harness.reference.vocabulary import train_classifier_tokenizer, train_language_tokenizer

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


PROMPT_WORDS = 8
REFERENCE_WORDS = 10


@dataclass(frozen=True)
class Continuation:
    """The beginning of a paragraph, and how it goes on."""

    prompt: str
    reference: str
    """Begins with the space behind the prompt's last word."""


def build_continuations(
    paragraphs: Iterable[str], tokens: Callable[[str], int]
) -> tuple[Continuation, ...]:
    """Paragraphs that are long enough, as prompts with references that fit the models.

    Args:
        paragraphs: of one split.
        tokens: number of tokens of a text.
    """
    rows = []
    for paragraph in paragraphs:
        words = paragraph.split(" ")
        prompt = " ".join(words[:PROMPT_WORDS])
        reference = "".join(f" {word}" for word in words[PROMPT_WORDS:][:REFERENCE_WORDS])
        is_long = len(words) >= PROMPT_WORDS + REFERENCE_WORDS
        if is_long and tokens(prompt) + max(NEW_TOKENS, tokens(reference)) <= PROSE_LENGTH:
            rows.append(Continuation(prompt, reference))
    return tuple(rows)


CANDIDATES = (
    "_dynamo",
    "_inductor",
    "ao",
    "distributed",
    "distributions",
    "export",
    "jit",
    "nn",
    "onnx",
    "optim",
    "profiler",
    "autograd",
    "cuda",
    "sparse",
)
"""Sub-packages in order of preference: the first `CLASSES` with enough rows are the labels."""

CLASSES = 10
MINIMUM_CLASSES = 6
SNIPPET_WORDS = 24
BLOCK_SNIPPETS = 12
ROWS_PER_CLASS: Mapping[Split, int] = {Split.TRAIN: 1000, Split.VALIDATION: 100, Split.TEST: 150}

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_MASKED_WORDS = frozenset(candidate.lstrip("_") for candidate in CANDIDATES) | {
    "aot",
    "distribution",
    "exported",
    "exporter",
    "optimizer",
    "profile",
}
"""Words that name a class outright."""


@dataclass(frozen=True)
class LabelledText:
    """One row of the task."""

    text: str
    label: str


def split_words(text: str) -> list[str]:
    """The lower-case words of source text, without those that name a class."""
    words = (word.lower() for word in _WORD.findall(text))
    return [word for word in words if len(word) > 1 and word not in _MASKED_WORDS]


def label_of(file_name: str) -> str:
    """The sub-package a file belongs to, without the underscore of private ones."""
    return file_name.partition("/")[0].lstrip("_")


def build_topics(
    sources: Iterable[SourceFile], *, seed: int
) -> Mapping[Split, tuple[LabelledText, ...]]:
    """Cuts, masks, deduplicates, samples evenly over the classes, and splits.

    Raises:
        DataError: fewer than `MINIMUM_CLASSES` sub-packages have enough source.
    """
    labels = {candidate.lstrip("_") for candidate in CANDIDATES}
    pools: dict[tuple[str, Split], list[str]] = {}
    seen: set[str] = set()
    for source in sources:
        label = label_of(source.name)
        if label not in labels:
            continue
        for block, snippet in _snippets(source):
            if snippet not in seen:
                seen.add(snippet)
                pools.setdefault((label, split_of(source.name, block)), []).append(snippet)
    chosen = _choose_labels(pools)
    return {split: _sample(pools, chosen, split, seed) for split in Split}


def _snippets(source: SourceFile) -> Iterator[tuple[int, str]]:
    words = split_words(source.text)
    starts = range(0, len(words) - SNIPPET_WORDS + 1, SNIPPET_WORDS)
    for number, start in enumerate(starts):
        yield number // BLOCK_SNIPPETS, " ".join(words[start : start + SNIPPET_WORDS])


def _choose_labels(pools: Mapping[tuple[str, Split], list[str]]) -> list[str]:
    """The first classes of the list that fill every split."""
    candidates = [candidate.lstrip("_") for candidate in CANDIDATES]
    full = [
        label
        for label in candidates
        if all(len(pools.get((label, split), ())) >= rows for split, rows in ROWS_PER_CLASS.items())
    ]
    if len(full) < MINIMUM_CLASSES:
        raise DataError(
            f"only {len(full)} of torch's sub-packages have enough source for the reference task, "
            f"{MINIMUM_CLASSES} are needed",
            next_step=REINSTALL,
        )
    return sorted(full[:CLASSES])


def _sample(
    pools: Mapping[tuple[str, Split], list[str]], labels: list[str], split: Split, seed: int
) -> tuple[LabelledText, ...]:
    """Equally many rows per class, shuffled; the same for the same seed."""
    generator = np.random.default_rng([seed, list(Split).index(split)])
    rows = [
        LabelledText(pools[label, split][index], label)
        for label in labels
        for index in generator.permutation(len(pools[label, split]))[: ROWS_PER_CLASS[split]]
    ]
    return tuple(rows[index] for index in generator.permutation(len(rows)))


INVERSE_REGULARISATION = 10.0
MAXIMUM_ITERATIONS = 300


def predict_baseline(
    train_texts: Sequence[str], train_labels: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """Predicted class names, aligned with `test_texts`; deterministic (no random solver).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "export") from error
    pipeline = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS),
    )
    pipeline.fit(list(train_texts), list(train_labels))
    return [str(label) for label in pipeline.predict(list(test_texts))]


BASELINE_FILE = "baseline.json"


def split_file(data: Path, split: Split) -> Path:
    """Where a split's rows lie."""
    return data / f"{split}.jsonl"


def tokenizer_folder(data: Path) -> Path:
    """Where the family's tokenizer lies."""
    return data / "tokenizer"


def read_rows(data: Path, split: Split) -> list[dict[str, str]]:
    """A split's rows as they stand in the file."""
    with split_file(data, split).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_topics(folder: Path, *, seed: int) -> None:
    """Writes the classification task into an existing folder."""
    splits = build_topics(read_sources(package_folder()), seed=seed)
    for split, rows in splits.items():
        _write_rows(
            split_file(folder, split), ({"text": row.text, "label": row.label} for row in rows)
        )
    train = splits[Split.TRAIN]
    texts = [row.text for row in train]
    train_classifier_tokenizer(
        texts, vocabulary=TOPICS_VOCABULARY, max_length=TOPICS_LENGTH
    ).save_pretrained(tokenizer_folder(folder))
    predictions = predict_baseline(
        texts, [row.label for row in train], [row.text for row in splits[Split.TEST]]
    )
    (folder / BASELINE_FILE).write_text(json.dumps(predictions), encoding="utf-8")


def write_prose(folder: Path) -> None:
    """Writes the language task into an existing folder."""
    splits = build_prose(read_sources(package_folder()))
    for split, texts in splits.items():
        _write_rows(split_file(folder, split), ({"text": text} for text in texts))
    train_language_tokenizer(
        splits[Split.TRAIN], vocabulary=PROSE_VOCABULARY, max_length=PROSE_LENGTH
    ).save_pretrained(tokenizer_folder(folder))


def write_continuations(folder: Path, prose: Path) -> None:
    """Writes the generation task, made of the language task's folder, into an existing folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(prose))
    for split in (Split.TRAIN, Split.TEST):
        rows = build_continuations(
            (row["text"] for row in read_rows(prose, split)),
            lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"]),
        )
        _write_rows(
            split_file(folder, split),
            ({"prompt": row.prompt, "reference": row.reference} for row in rows),
        )


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

"""The classification task: which of PyTorch's sub-packages do these words of source come from?

A row is a run of neighbouring words of one file, as a search index would see them: identifiers
split at underscores and capitals, punctuation, digits and single letters dropped, the
sub-packages' own names removed, duplicates dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.errors import DataError
from harness.reference.corpus import REINSTALL, SourceFile, Split, split_of

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

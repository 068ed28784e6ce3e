"""Which rows every step of a variant's making is asked: all, or so many drawn by the seed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from harness.tasks.encoding import EncodedDataset

Windows = tuple[tuple[int, int, int], ...]


def drawn_rows(
    dataset: EncodedDataset,
    reference: EncodedDataset,
    family: Iterable[EncodedDataset],
    *,
    most: int,
    seed: int,
) -> NDArray[np.int64]:
    """Positions of the rows, ascending.

    Models of one family are asked the same samples. Where their tokenizers cut a text into other
    windows, the same stretches of text: whole documents in an order drawn by the seed, the last one
    cut where the reference has as many windows as are wanted.

    Args:
        dataset: of the model that is asked.
        reference: of the family's teacher.
        family: the data sets of all models that are compared.
        most: rows, of the reference.
        seed: of the draw.
    """
    every = list(family)
    if max(one.size for one in every) <= most:
        return np.arange(dataset.size)
    if reference.windows is None or all(one.windows == reference.windows for one in every):
        if dataset.size <= most:
            return np.arange(dataset.size)
        drawn = np.random.default_rng(seed).choice(dataset.size, most, replace=False)
        return np.sort(drawn)
    ends = _drawn_text(reference.windows, most, seed)
    kept = [begin < ends.get(document, 0) for document, begin, _ in dataset.windows or ()]
    return np.flatnonzero(kept)


def _drawn_text(windows: Windows, most: int, seed: int) -> dict[int, int]:
    """Up to which character each drawn document is asked."""
    spans: dict[int, list[int]] = {}
    for document, _, end in windows:
        spans.setdefault(document, []).append(end)
    ends: dict[int, int] = {}
    left = most
    for document in np.random.default_rng(seed).permutation(sorted(spans)).tolist():
        if not left:
            break
        taken = spans[document][:left]
        ends[document], left = taken[-1], left - len(taken)
    return ends

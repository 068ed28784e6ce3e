"""An ensemble's outcomes: labels by name, and rows that nobody answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quality_samples import CLASSES, dataset, variant

from harness.errors import DataError, ServerError
from harness.quality.collection import collect_text_answers
from harness.types import Progress, TensorSpec

SPLIT = dataset(rows=20)
TEXTS = [
    {"TEXT": np.array([str(row).encode() for row in group.rows])[:, None]} for group in SPLIT.groups
]


class Endpoint:
    """Answers each row with its own class, but for every fifth; refuses the rows named."""

    def __init__(self, refuses: tuple[int, ...] = (), says: str = "") -> None:
        self.refuses = refuses
        self.says = says

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = [int(text) for text in inputs["TEXT"][:, 0]]
        if set(rows) & set(self.refuses):
            raise ServerError(f"refused {rows}")
        said = [self.says or CLASSES[(row + (row % 5 == 0)) % len(CLASSES)] for row in rows]
        return {"LABEL": np.array([one.encode() for one in said], dtype=object)[:, None]}


def collect(endpoint: Endpoint, notes: list[Progress], split=SPLIT):
    ensemble = replace(variant(), outputs=(TensorSpec("LABEL", "BYTES", (1,)),))
    return collect_text_answers(
        ensemble, split, TEXTS, endpoint, batch_size=1, progress=notes.append
    )


def test_labels_become_the_classes_they_name() -> None:
    outcomes = collect(Endpoint(), notes := [])
    assert outcomes.correct is not None
    assert np.array_equal(outcomes.correct, np.arange(20) % 5 != 0)
    assert (notes[-1].done, notes[-1].total) == (20, 20)


def test_rows_whose_request_failed_are_unanswered_and_counted() -> None:
    outcomes = collect(Endpoint(refuses=(3, 7)), notes := [])
    assert np.flatnonzero(outcomes.unanswered).tolist() == [3, 7]
    assert not outcomes.correct[[3, 7]].any()
    assert "2 of 20 rows unanswered: refused" in notes[-1].note


def test_an_ensemble_of_other_labels_answers_nothing() -> None:
    with pytest.raises(
        ServerError, match=r"none of 20 rows .* none of its labels is one of the data"
    ):
        collect(Endpoint(says="spam"), [])
    with pytest.raises(DataError, match="no labels"):
        collect(Endpoint(), [], dataset(rows=20, language=True))

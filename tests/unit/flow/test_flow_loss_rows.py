"""Every step of a making is asked the same samples, also where tokenizers cut other windows."""

from __future__ import annotations

import numpy as np
import pytest

from harness.flow.losses import drawn_rows
from harness.tasks.causal_lm.rows import WindowDataset

DOCUMENTS, CHARACTERS = 40, 60


def cut(step: int, documents: int = DOCUMENTS) -> WindowDataset:
    """Every document in windows of this many characters."""
    windows = tuple(
        (document, begin, min(begin + step, CHARACTERS))
        for document in range(documents)
        for begin in range(0, CHARACTERS, step)
    )
    counts = np.full(len(windows), step)
    return WindowDataset(
        groups=(),
        size=len(windows),
        truncated=0,
        padding_share=0.0,
        digest="",
        pad_token_id=0,
        byte_counts=counts,
        word_counts=counts,
        windows=windows,
    )


def text_of(dataset: WindowDataset, rows: np.ndarray) -> set[tuple[int, int]]:
    return {
        (document, character)
        for document, begin, end in (dataset.windows[row] for row in rows)
        for character in range(begin, end)
    }


def test_few_rows_are_all_asked():
    one, other = cut(10), cut(20)
    for dataset in (one, other):
        rows = drawn_rows(dataset, one, [one, other], most=240, seed=1)
        assert rows.tolist() == list(range(dataset.size))


def test_one_tokenizers_windows_are_drawn_one_by_one():
    whole = cut(10)
    rows = drawn_rows(whole, whole, [whole, cut(10)], most=50, seed=1)
    assert len(rows) == len(set(rows.tolist())) == 50
    assert rows.tolist() == sorted(rows.tolist())
    assert len({whole.windows[row][0] for row in rows}) > 20
    assert rows.tolist() != drawn_rows(whole, whole, [whole], most=50, seed=2).tolist()


@pytest.mark.parametrize("most", [60, 62])
def test_two_tokenizers_are_asked_the_same_text(most: int):
    teacher, student = cut(10), cut(20)
    drawn = {
        name: drawn_rows(dataset, teacher, [teacher, student], most=most, seed=3)
        for name, dataset in (("teacher", teacher), ("student", student))
    }
    assert len(drawn["teacher"]) == most
    one, other = text_of(teacher, drawn["teacher"]), text_of(student, drawn["student"])
    assert one == other


def test_one_long_text_is_cut_where_the_teacher_has_enough():
    teacher, student = cut(10, documents=1), cut(20, documents=1)
    rows = drawn_rows(teacher, teacher, [teacher, student], most=4, seed=0)
    assert rows.tolist() == [0, 1, 2, 3]
    assert drawn_rows(student, teacher, [teacher, student], most=4, seed=0).tolist() == [0, 1]

"""Texts beside the teacher's, token by token."""

from __future__ import annotations

import pytest

from harness.tasks.generation.agreement import agreement, characters, common_prefix

END = 0


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        ((1, 2, 3), (1, 2, 3), 3),
        ((1, 2, 3), (1, 2, 4), 2),
        ((5, 2, 3), (1, 2, 3), 0),
        ((1, 2), (1, 2, 3), 2),
        ((), (1,), 0),
    ],
)
def test_common_prefix(first: tuple[int, ...], second: tuple[int, ...], length: int) -> None:
    assert common_prefix(first, second) == length
    assert common_prefix(second, first) == length


def test_a_text_that_goes_on_where_the_teachers_ends_is_another_text() -> None:
    found = agreement([(1, 2, 3), (1, 2, END)], [(1, 2, END), (1, 2, END)])
    assert found.same.tolist() == [False, True]
    assert found.prefix.tolist() == [2, 3]
    assert found.share.tolist() == [pytest.approx(2 / 3), 1.0]


def test_by_character_the_end_counts_as_well() -> None:
    teacher = characters("ab", by_itself=True)
    others = [characters("ab", by_itself=False), characters("abc", by_itself=False), teacher]
    found = agreement(others, [teacher] * 3)
    assert found.same.tolist() == [False, False, True]
    assert found.share.tolist() == [pytest.approx(2 / 3), pytest.approx(2 / 3), 1.0]


def test_nothing_agrees_with_nothing_alone() -> None:
    found = agreement([(), (7,)], [(), ()])
    assert found.same.tolist() == [True, False]
    assert found.share.tolist() == [1.0, 0.0]

"""Texts beside the teacher's, token by token."""

from __future__ import annotations

import pytest

from harness.tasks.generation.agreement import agreement, common_prefix, ended


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
    teacher = ended([1, 2], by_itself=True)
    found = agreement([ended([1, 2, 3], by_itself=False), teacher], [teacher, teacher])
    assert found.same.tolist() == [False, True]
    assert found.prefix.tolist() == [2, 3]
    assert found.share.tolist() == [pytest.approx(2 / 3), 1.0]


def test_a_text_cut_at_the_limit_agrees_with_one_cut_there_too() -> None:
    cut = ended([1, 2, 3], by_itself=False)
    assert agreement([cut], [cut]).same.tolist() == [True]
    assert agreement([ended([1, 2, 3], by_itself=True)], [cut]).same.tolist() == [False]


def test_an_empty_text_agrees_with_an_empty_text() -> None:
    nothing = ended([], by_itself=True)
    found = agreement([nothing, ended([7], by_itself=False)], [nothing, nothing])
    assert found.same.tolist() == [True, False]
    assert found.share.tolist() == [1.0, 0.0]

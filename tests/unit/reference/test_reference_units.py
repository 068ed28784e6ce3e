"""The order of making: what needs what, and what is spared."""

from pathlib import Path

import pytest

from harness.reference.recipes import RECIPES
from harness.reference.units import all_units, order_missing

UNITS = all_units(Path("store"), RECIPES.values(), seed=1)


def ordered(wanted: list[str], made: set[str] = frozenset()) -> list[str]:
    return [unit.name for unit in order_missing(UNITS, wanted, lambda name: name in made)]


def test_every_recipe_is_a_unit():
    assert set(RECIPES) <= set(UNITS)


def test_a_student_brings_its_teacher_and_the_teachers_answers():
    assert ordered(["topics-student"]) == [
        "topics-data",
        "topics-teacher",
        "topics-answers",
        "topics-student",
    ]


def test_a_language_student_learns_from_the_teacher_itself():
    assert ordered(["prose-student"]) == ["prose-data", "prose-teacher", "prose-student"]


def test_the_control_needs_no_teacher():
    assert ordered(["prose-control"]) == ["prose-data", "prose-control"]


def test_shared_needs_are_made_once():
    names = ordered(["topics-tiny", "topics-student", "topics-teacher"])
    assert len(names) == len(set(names)) == 5


@pytest.mark.parametrize(
    ("made", "rest"),
    [
        ({"topics-data", "topics-teacher", "topics-answers"}, ["topics-student"]),
        ({"topics-data", "topics-answers"}, ["topics-student"]),
        ({"topics-data"}, ["topics-teacher", "topics-answers", "topics-student"]),
        ({"topics-student"}, []),
    ],
)
def test_what_is_made_is_spared(made, rest):
    assert ordered(["topics-student"], made) == rest


def test_every_unit_has_a_weight_for_the_progress_bar():
    assert all(unit.cost_ms > 0 for unit in UNITS.values())

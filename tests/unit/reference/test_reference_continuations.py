"""The embedded generation task: beginnings of paragraphs, and how they go on."""

from __future__ import annotations

from pathlib import Path

from harness.reference.corpus import PROMPT_WORDS, REFERENCE_WORDS, build_continuations
from harness.reference.recipes import PROSE_LENGTH, RECIPES
from harness.reference.units import all_units, order_missing

WORDS = [f"w{number}" for number in range(40)]


def _count(text: str) -> int:
    return len(text.split())


def test_a_reference_goes_on_where_its_prompt_ends() -> None:
    (row,) = build_continuations([" ".join(WORDS)], _count)
    assert row.prompt == " ".join(WORDS[:PROMPT_WORDS])
    assert row.prompt + row.reference == " ".join(WORDS[: PROMPT_WORDS + REFERENCE_WORDS])


def test_paragraphs_that_are_too_short_are_left_out() -> None:
    least = PROMPT_WORDS + REFERENCE_WORDS
    rows = build_continuations([" ".join(WORDS[:least]), " ".join(WORDS[: least - 1])], _count)
    assert len(rows) == 1


def test_what_does_not_fit_the_models_positions_is_left_out() -> None:
    assert build_continuations([" ".join(WORDS)], lambda text: PROSE_LENGTH // 2 + 1) == ()
    assert len(build_continuations([" ".join(WORDS)], lambda text: PROSE_LENGTH // 2)) == 1


def test_they_are_made_of_the_prose() -> None:
    units = all_units(Path("store"), RECIPES.values(), seed=1)
    made = order_missing(units, ["continuations-data"], lambda name: False)
    assert [unit.name for unit in made] == ["prose-data", "continuations-data"]

"""Mixes of sizes, as they are written on a command line."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.types.workloads import mix_text, parse_mix


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("1:0.7,8:0.3", ((1, 0.7), (8, 0.3))),
        ("16:2", ((16, 2.0),)),
        (" 32 : 1 , 64 : 3 ", ((32, 1.0), (64, 3.0))),
    ],
)
def test_sizes_with_weights(text: str, mix: tuple[tuple[int, float], ...]) -> None:
    assert parse_mix(text) == mix
    assert parse_mix(mix_text(mix)) == mix


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:1", "1:b", "1.5:1", "1:1,", "1:1;2:1"])
def test_what_is_no_mix_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="is not a mix") as caught:
        parse_mix(text)
    assert "1:0.7,8:0.3" in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0:1", "a size of 0"),
        ("-4:1", "a size of -4"),
        ("1:0", "gives 1 a weight of 0"),
        ("1:1,8:-2", "gives 8 a weight of -2"),
        ("8:nan", "gives 8 a weight of nan"),
        ("8:inf", "gives 8 a weight of inf"),
        ("8:1,8:2", "names 8 more than once"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_mix(text)

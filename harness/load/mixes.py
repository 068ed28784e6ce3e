"""Mixes: the sizes that requests are drawn from, each with its weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from harness.errors import UsageError

SYNTAX = "write it as SIZE:WEIGHT,SIZE:WEIGHT, for example 1:0.7,8:0.3"


def parse_mix(text: str) -> tuple[tuple[int, float], ...]:
    """Parse `1:0.7,8:0.3`; weights need not add up to one.

    Raises:
        UsageError: not of that form, or a mix that `check_mix` refuses.
    """
    mix = []
    for part in text.split(","):
        size, colon, weight = part.partition(":")
        try:
            mix.append((int(size), float(weight if colon else "")))
        except ValueError as error:
            raise UsageError(f"'{text}' is no mix: '{part}'", next_step=SYNTAX) from error
    check_mix("the mix", mix)
    return tuple(mix)


def check_mix(what: str, mix: Sequence[tuple[int, float]]) -> None:
    """Refuse sizes and weights that nothing can be drawn by.

    Raises:
        UsageError: a size below 1, a size twice, or a weight that is not above 0.
    """
    for size, weight in mix:
        if size < 1:
            raise UsageError(f"{what} has a size of {size}: it must be 1 or more")
        if not (isfinite(weight) and weight > 0):
            raise UsageError(f"{what} gives {size} a weight of {weight:g}: it must be above 0")
    for size, times in Counter(size for size, _ in mix).items():
        if times > 1:
            raise UsageError(f"{what} names {size} more than once")

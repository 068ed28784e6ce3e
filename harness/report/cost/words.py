"""How money, its bounds and its paying back read: on the terminal and on pages."""

from __future__ import annotations

from collections.abc import Callable

from harness.types.costs import BreakEven, MachineFleet
from harness.types.estimates import Interval
from harness.words.numbers import number, percent, span, whole

ESTIMATE, MEASURED, NEVER = "estimate", "measured", "never"


def basis(*, is_estimate: bool) -> str:
    """Whether a throughput was measured on that very type."""
    return ESTIMATE if is_estimate else MEASURED


def bounds(amount: Interval, read: Callable[[float], str] = number) -> str:
    """An interval without its value; nothing where it has no width."""
    return "" if amount.low == amount.high else span(read(amount.low), read(amount.high))


def bounded(amount: Interval, read: Callable[[float], str] = number) -> str:
    """On one line: `0.278 (0.252-0.309)`, with an en dash."""
    ends = bounds(amount, read)
    return read(amount.value) + (f" ({ends})" if ends else "")


def machines(fleet: MachineFleet) -> str:
    """`12 (7-23) machines`, with an en dash."""
    said = bounded(fleet.machines, whole)
    return f"{said} {'machine' if said == '1' else 'machines'}"


def paid_back(one: BreakEven) -> tuple[str, str]:
    """Months until savings have paid for what was invested, and the earliest and the latest.

    `never` where nothing is saved; no bounds where there is no other.
    """
    if one.earliest_months is None:
        return NEVER, ""
    value = NEVER if one.months is None else f"{number(one.months)} months"
    if one.earliest_months == one.latest_months:
        return value, ""
    latest = NEVER if one.latest_months is None else number(one.latest_months)
    return value, f"{number(one.earliest_months)} to {latest}"


def returned(one: BreakEven) -> str:
    """What the horizon gives back over what was invested, less 1; nothing where nothing was."""
    gained = one.return_on_investment
    return "" if gained is None else bounded(gained, percent)

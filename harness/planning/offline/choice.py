"""Which variant to run the job of a family on: the cheapest of those whose quality passes."""

from __future__ import annotations

from collections.abc import Sequence

from harness.types import Decision
from harness.types.estimates import Interval
from harness.types.offline import MachineNeed, OfflineChoice, OfflineVariant
from harness.words.numbers import number, span, things


def choices_of(variants: Sequence[OfflineVariant]) -> tuple[OfflineChoice, ...]:
    """One choice per family, in the order in which they come."""
    families = dict.fromkeys(one.family for one in variants)
    return tuple(
        _choice(name, [one for one in variants if one.family == name]) for name in families
    )


def _choice(family: str, variants: Sequence[OfflineVariant]) -> OfflineChoice:
    able = [(one, need) for one in variants if one.quality is Decision.PASS for need in one.needs]
    if not able:
        return OfflineChoice(family, "", "", _why_none(variants))
    best, need = min(able, key=lambda pair: measure_of(pair[1]).value)
    others = [
        other.variant
        for other, its in able
        if other is not best and _may_be_less(other, its, best, need)
    ]
    reason = (
        f"the {'cheapest' if need.usd_per_job else 'fewest machines'} of those whose quality "
        f"passes: {_words(need)}"
    )
    if others:
        names = ", ".join(dict.fromkeys(others))
        reason += f"; by its interval it cannot be told from {names}"
    return OfflineChoice(family, best.variant, need.instance, reason)


def _may_be_less(
    other: OfflineVariant, its: MachineNeed, best: OfflineVariant, need: MachineNeed
) -> bool:
    """Whether the intervals allow that another does the job for less.

    On one instance type by the rates as measured: how fast the type is hits both alike.
    """
    if its.instance == need.instance:
        return other.inferences_per_s.high >= best.inferences_per_s.low
    return measure_of(its).low <= measure_of(need).high


def measure_of(need: MachineNeed) -> Interval:
    """What needs are compared by: the cost of a job, or the machines where none is priced."""
    return need.usd_per_job or need.with_loss


def _words(need: MachineNeed) -> str:
    cost = need.usd_per_job
    machines = things(need.recommended, "machine")
    if cost is None:
        return machines
    return f"{number(cost.value)} ({span(number(cost.low), number(cost.high))}) USD per job"


def _why_none(variants: Sequence[OfflineVariant]) -> str:
    if any(one.quality is Decision.PASS for one in variants):
        return "no variant whose quality passes can do the job in time"
    reasons = "; ".join(f"{one.variant} {one.quality_reason}" for one in variants)
    return f"the quality of none passes: {reasons}"

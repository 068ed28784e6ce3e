"""The difference of two estimates, and whether it is a change for the worse.

Two estimates from different measurements have no joint interval, so theirs are combined by the
method of variance estimates recovery (MOVER: Zou and Donner 2008, Statistics in Medicine 27,
1693-1702; for two shares it is method 10 of Newcombe 1998, Statistics in Medicine 17, 873-890).
It keeps the asymmetry of either interval, and treats the two as independent. Scores on the same
rows are positively correlated, so for them it errs on the wide side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.metrics import METRICS, OF_ARTEFACTS
from harness.types.losses import Estimate
from harness.types.metrics import Metric
from harness.types.review import Change
from harness.words.numbers import asked_percent


def independent_difference(before: Estimate, after: Estimate) -> Estimate:
    """After less before, with its interval at (at least) the confidence of the two.

    A bound that either estimate lacks, or that is infinite, is None in the difference.
    """
    change = after.value - before.value
    down = _distance(after.value, after.low, before.high, before.value)
    up = _distance(before.value, before.low, after.high, after.value)
    return Estimate(
        change, None if down is None else change - down, None if up is None else change + up
    )


def _distance(
    first: float, first_low: float | None, second_high: float | None, second: float
) -> float | None:
    """How far the difference may be off on one side: one value lower and the other higher."""
    if first_low is None or second_high is None:
        return None
    distance = math.hypot(first - first_low, second_high - second)
    return distance if math.isfinite(distance) else None


@dataclass(frozen=True)
class WorseningTolerance:
    """How much worse a metric may get, as a share of its earlier value."""

    everywhere: float | None = None
    """0 to 1; None where nothing was said: then whatever is surely worse counts."""
    by_metric: Mapping[str, float] = field(default_factory=dict)

    def of(self, metric: str) -> float | None:
        """The share for a metric."""
        return self.by_metric.get(metric, self.everywhere)

    @property
    def words(self) -> str:
        """`5%, accuracy 1%`; empty where nothing is tolerated."""
        own = [f"{name} {asked_percent(share)}" for name, share in self.by_metric.items()]
        general = [] if self.everywhere is None else [asked_percent(self.everywhere)]
        return ", ".join([*general, *own])


def parse_tolerance(texts: list[str]) -> WorseningTolerance:
    """Read `5%` for every metric and `accuracy=1%` for one.

    Raises:
        UsageError: a text is no percentage from 0% on, or names no metric.
    """
    everywhere: float | None = None
    by_metric: dict[str, float] = {}
    for text in texts:
        name, joined, amount = text.rpartition("=")
        share = _share(amount, text)
        if not joined:
            everywhere = share
        elif name in METRICS or name in OF_ARTEFACTS.entries:
            by_metric[name] = share
        else:
            raise UsageError(
                f"--tolerate {text}: there is no metric '{name}'",
                next_step=f"name one of: {', '.join([*METRICS, *OF_ARTEFACTS.entries])}",
            )
    return WorseningTolerance(everywhere, by_metric)


def _share(amount: str, text: str) -> float:
    try:
        share = float(amount.strip().removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    if not amount.strip().endswith("%") or not 0 <= share < math.inf:
        raise UsageError(
            f"--tolerate {text}: '{amount}' is not a percentage",
            next_step="write for example --tolerate 5% or --tolerate accuracy=1%",
        )
    return share


def change_of(
    metric: Metric, before: float, difference: Estimate, tolerated: float | None
) -> Change:
    """What a difference says, by its interval.

    Without a tolerance: better or worse where the interval excludes zero, else no difference is
    shown. With one, of a share of the earlier value: worse where the whole interval lies beyond
    it, undecided where a part of it does, and tolerated where it is worse by surely no more.
    Where the interval is open on the worse side, nothing is known to be tolerated.

    Args:
        metric: which direction is worse.
        before: the earlier value.
        difference: after less before.
        tolerated: share of `before`; None for nothing.
    """
    sign = 1.0 if metric.lower_is_better else -1.0
    ends = (difference.low, difference.high) if sign > 0 else (difference.high, difference.low)
    least, most = (None if end is None else sign * end for end in ends)
    if most is not None and most < 0:
        return Change.BETTER
    surely_worse = least is not None and least > 0
    if tolerated is None:
        return Change.WORSE if surely_worse else Change.SAME
    limit = tolerated * abs(before)
    if least is not None and least > limit:
        return Change.WORSE
    if most is None or most > limit:
        return Change.UNDECIDED
    return Change.TOLERATED if surely_worse else Change.SAME

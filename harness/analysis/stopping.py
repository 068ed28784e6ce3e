"""When a trial may look at its evidence, and how sure it must be each time.

A trial that looks at every instant and stops when it likes the answer errs far more often than its
interval says. Here it looks a few times only, fixed in advance, each window twice the one before,
and spends an equal part of the error that is allowed at each look (Bonferroni; an equal level at
each look is Pocock's design, Biometrika 64, 1977). That holds however the looks depend on each
other. A trial of 0.5 s to 8 s has five looks, so that 95% over the trial is 99% a look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

_ROUNDING = 1e-9


@dataclass(frozen=True)
class LookSchedule:
    """The looks of one trial, counted from its window's start."""

    shortest_s: float
    """Window of the first look; `longest_s` for a trial that runs its time out."""
    longest_s: float
    """Window of the last look, after which an undecided trial stays so."""
    confidence: float = 0.95
    """Probability (0 to 1) that the whole trial decides nothing wrongly."""

    @cached_property
    def looks(self) -> tuple[float, ...]:
        """Windows in seconds: evenly spaced on a logarithmic scale, at most a factor of 2 apart."""
        if self.shortest_s >= self.longest_s:
            return (self.longest_s,)
        ratio = self.longest_s / self.shortest_s
        steps = math.ceil(math.log2(ratio) - _ROUNDING)
        inner = (self.shortest_s * ratio ** (step / steps) for step in range(steps))
        return (*inner, self.longest_s)

    @property
    def confidence_per_look(self) -> float:
        """Confidence of the two-sided interval that each look judges by."""
        return 1 - (1 - self.confidence) / len(self.looks)

    def next_look(self, elapsed_s: float) -> float | None:
        """The first look after a window of `elapsed_s`; None after the last."""
        return next((look for look in self.looks if look > elapsed_s + _ROUNDING), None)


def seconds_needed(elapsed_s: float, evidence_factor: float | None) -> float | None:
    """Window that would decide, by how many times the present evidence is needed.

    Evidence grows with time, and an interval shrinks with its square root: the factor is that of
    the objective's undecided clause. None where it foretells nothing.
    """
    if evidence_factor is None or not math.isfinite(evidence_factor):
        return None
    return elapsed_s * max(1.0, evidence_factor)

"""Thousands of rollouts at once: the same decisions as `stages.look`, as arrays.

To show that a rollout errs no more often than it says takes thousands of them with hundreds of
looks each, and a look that also gives bounds takes tens of milliseconds. Here a look of all
rollouts together takes about as long, because only what decides is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.planning.rollout.guardrails import log_evidence
from harness.planning.rollout.stages import check_plan
from harness.types.rollout import Comparison, Guardrail, RolloutPlan

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

Traffic = Callable[[int, Integers], Mapping[str, Integers]]
"""From the number of a look and the stage of each rollout, (rollouts,), to what was counted since
the last look: by guardrail the fields of `Tally` in their order, (rollouts, 8)."""


@dataclass(frozen=True, eq=False)
class SimulatedRollouts:
    """How rollouts stand after some looks; all (rollouts,)."""

    stage: Integers
    """Position among the plan's stages that each has reached."""
    rolled_back: Mask
    taken_over: Mask
    looks: Integers
    """Number of the last look that each took: the one that ended it, or the last of all."""


def simulate(
    plan: RolloutPlan, traffic: Traffic, *, rollouts: int, looks: int
) -> SimulatedRollouts:
    """Take many rollouts of one plan through some looks.

    Args:
        plan: that all of them follow.
        traffic: what each look counts.
        rollouts: number of them.
        looks: that each takes, unless it ends before.

    Raises:
        UsageError: the plan cannot be carried out.
    """
    check_plan(plan)
    judged = np.array(
        [
            [one in plan.judged(stage) for one in plan.guardrails]
            for stage in range(len(plan.stages))
        ]
    )
    least = np.array([stage.least_requests for stage in plan.stages])
    tallies = {one.name: np.zeros((rollouts, 8), dtype=np.int64) for one in plan.guardrails}
    stage, ended_at = np.zeros(rollouts, dtype=np.int64), np.zeros(rollouts, dtype=np.int64)
    back, over = np.zeros(rollouts, dtype=bool), np.zeros(rollouts, dtype=bool)
    for number in range(1, looks + 1):
        running = ~(back | over)
        if not running.any():
            break
        observed = traffic(number, stage)
        breached, passed = np.zeros(rollouts, dtype=bool), running.copy()
        for place, one in enumerate(plan.guardrails):
            asked = judged[stage, place] & running
            counted = tallies[one.name]
            counted[asked] += observed[one.name][asked]
            breaches, passes = _judged(plan, one, counted)
            heard = _seen(one, observed[one.name]) > 0
            breached |= asked & breaches
            passed &= ~asked | (heard & passes & (_seen(one, counted) >= least[stage]))
        back |= breached
        passed &= ~breached
        ended_at[running] = number
        following = np.minimum(stage + 1, len(plan.stages) - 1)
        is_last = (stage + 1 == len(plan.stages)) | ~judged[following].any(axis=1)
        over |= passed & is_last
        stage = np.where(passed, following, stage)
        for counted in tallies.values():
            counted[passed] = 0
    return SimulatedRollouts(stage, back, over, ended_at)


def _judged(plan: RolloutPlan, guardrail: Guardrail, counted: Integers) -> tuple[Mask, Mask]:
    """Whether each rollout breaches a guardrail, and whether it passes it."""

    def reaches(limit: float, error: float, *, above: bool) -> Mask:
        evidence = log_evidence(guardrail, counted, np.full(len(counted), limit), above=above)
        return np.asarray((evidence >= -np.log(error)) & (_seen(guardrail, counted) > 0))

    breaches = reaches(guardrail.alarm, plan.breach_error, above=False)
    return breaches, reaches(guardrail.limit, plan.error, above=True)


def _seen(guardrail: Guardrail, counts: Integers) -> Integers:
    """(rollouts,) what `Tally.seen` says of each simulated rollout."""
    if guardrail.comparison is Comparison.PAIRED:
        return np.asarray(counts[:, 4:].sum(axis=1))
    if guardrail.comparison is Comparison.TEACHER:
        return np.where(counts[:, 3] > 0, counts[:, 1], 0)
    return counts[:, 1]

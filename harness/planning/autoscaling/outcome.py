"""What a live run came to, beside what was simulated of its policy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import scipy

from harness.errors import GeneratorError
from harness.types.autoscaling import LiveOutcome, LiveState, LiveStep, ScalingCourse
from harness.types.estimates import Interval


def outcome_of(state: LiveState) -> LiveOutcome:
    """What was measured, beside what was simulated of the same policy.

    Raises:
        GeneratorError: nothing was sent.
    """
    plan, steps = state.plan, state.steps
    if not steps or not steps[-1].requests:
        raise GeneratorError("the live run sent nothing", next_step="make it longer: --live 3min")
    last = steps[-1]
    predicted = next(one for one in plan.outcomes if one.policy.name == state.policy.name)
    share = scipy.stats.binomtest(last.in_time, last.requests).proportion_ci(plan.confidence)
    starts = state.start_times_s or (0.0,)
    ordered = [one.ordered for one in steps]
    return LiveOutcome(
        policy=state.policy.name,
        length_s=state.length_s,
        requests=last.requests,
        failed=last.failed,
        attained=Interval(last.in_time / last.requests, float(share.low), float(share.high)),
        predicted=predicted.attained,
        replica_hours=_replica_hours(steps),
        predicted_replica_hours=predicted.replica_hours,
        scalings=sum(one != other for one, other in pairwise(ordered)),
        predicted_scalings=predicted.scalings,
        most_replicas=max(ordered),
        predicted_most=predicted.most_replicas,
        start_s=Interval(sum(starts) / len(starts), min(starts), max(starts)),
        course=_course(state),
        resumed=state.resumed,
    )


def _replica_hours(steps: Sequence[LiveStep]) -> float:
    """Hours of all replicas that were ordered; each number holds from its decision to the next."""
    # A resumed run begins where requests were counted up to, a little before its last decision.
    held = [
        sooner.ordered * max(0.0, later.at_s - sooner.at_s) for sooner, later in pairwise(steps)
    ]
    return sum(held) / 3600


def _course(state: LiveState) -> ScalingCourse:
    """What happened between decisions; a request counts where its outcome became known."""
    steps, stretch_s = state.steps, state.plan.terms.sync_s
    came = [later.requests - sooner.requests for sooner, later in pairwise(steps)]
    inside = [later.in_time - sooner.in_time for sooner, later in pairwise(steps)]
    return ScalingCourse(
        stretch_s=stretch_s,
        demand_per_s=tuple(one / stretch_s for one in came),
        ordered=tuple(float(one.ordered) for one in steps[:-1]),
        ready=tuple(float(one.ready) for one in steps[:-1]),
        attained=tuple(
            right / count if count else -1.0 for right, count in zip(inside, came, strict=True)
        ),
    )

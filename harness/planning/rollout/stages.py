"""A rollout: stages of the student's share, one look after the other, a decision at each.

How the error is spent. A student beyond a limit must pass *every* guardrail to be promoted, and a
student that is bad from the start must pass the first stage before any other: so each stage and
guardrail may use the whole error, and the probability that such a student is ever promoted is at
most `error`. A good student can be rolled back by any guardrail at any stage, so for rollbacks the
error is divided by their number.

Each stage is judged on its own requests. Over stages of different shares the two models' requests
would come from different times, and an hour that is bad for both would look like a difference
(Simpson's paradox).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from harness.errors import UsageError
from harness.planning.rollout.guardrails import check_guardrails, find
from harness.types.rollout import (
    BadOutcome,
    Comparison,
    Guardrail,
    GuardrailFinding,
    RolloutLook,
    RolloutMode,
    RolloutPlan,
    RolloutState,
    RolloutStatus,
    RolloutStep,
    Tally,
)
from harness.words.numbers import (
    asked,
    asked_percent,
    count,
    latency,
    percent,
    points,
    span,
    things,
)

_BUCKETS = 2**64


def check_plan(plan: RolloutPlan) -> None:
    """Refuse a plan that cannot be carried out.

    Raises:
        UsageError: its guardrails contradict each other, or its stages are none.
    """
    check_guardrails(plan.guardrails, mirrored=plan.mode is not RolloutMode.CANARY)
    shares = [stage.share for stage in plan.stages]
    if not shares or not shares[0] > 0 or sorted(set(shares)) != shares or shares[-1] > 1:
        raise UsageError(
            f"the stages {', '.join(map(asked_percent, shares)) or 'are none'}: shares of the "
            "traffic must grow from above 0% to at most 100%",
            next_step="for example 1%, 5%, 25%, 50%, 100%",
        )
    if not 0 < plan.error < 1:
        raise UsageError(
            f"an error of {asked(plan.error)} is not a probability above 0 and below 1"
        )
    if not any(plan.judged(stage) for stage in range(len(plan.stages))):
        raise UsageError(
            "no stage can be judged: at 100% the teacher has no requests of its own",
            next_step="put a stage below 100% before it",
        )
    if any(stage.least_requests < 1 for stage in plan.stages):
        raise UsageError("a stage cannot be passed on fewer than 1 request")


def begin(plan: RolloutPlan) -> RolloutState:
    """A rollout before its first look.

    Raises:
        UsageError: the plan cannot be carried out.
    """
    check_plan(plan)
    return RolloutState(plan)


def look(state: RolloutState, number: int, observed: Mapping[str, Tally]) -> RolloutState:
    """Take in what was counted since the last look, and decide.

    Args:
        state: as the last look left it.
        number: of this look, one more than the last one's. A look that was taken already (its
            state was written, and then the process was killed) changes nothing.
        observed: increases by guardrail since the last look, of requests under the present share.
            One that is left out was not measured.

    Returns:
        The state after the look; its `last` says what was decided and why.

    Raises:
        UsageError: a look was left out, or counts of a guardrail that the plan has not.
        DataError: the counts cannot be.
    """
    if number <= state.looks or state.status is not RolloutStatus.RUNNING:
        return state
    if number != state.looks + 1:
        raise UsageError(f"look {number} follows look {state.looks}: one was left out")
    if unknown := set(observed) - {one.name for one in state.plan.guardrails}:
        raise UsageError(f"counts of '{min(unknown)}', which is no guardrail of this rollout")
    guardrails = state.plan.judged(state.stage)
    tallies = {
        one.name: state.tallies.get(one.name, Tally()) + observed.get(one.name, Tally())
        for one in guardrails
    }
    findings = tuple(
        find(
            one,
            tallies[one.name],
            pass_error=state.plan.error,
            breach_error=state.plan.breach_error,
        )
        for one in guardrails
    )
    step, reason = _decide(state, findings, observed)
    done = RolloutLook(number, state.stage, step, reason, findings)
    seen = replace(state, looks=number, last=done, tallies=tallies)
    return seen if step is RolloutStep.HOLD else _changed(seen, done)


def in_student_share(key: str, share: float, *, salt: str = "") -> bool:
    """Whether the student serves the requests of a key at a share.

    A key stays where it is as long as the share does not shrink: users do not go back and forth.

    Args:
        key: of a user or session.
        share: of all keys that the student serves.
        salt: of the rollout, so that the same users are not the first in every one.
    """
    digest = hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * _BUCKETS


def _changed(state: RolloutState, done: RolloutLook) -> RolloutState:
    """After a promotion or a rollback."""
    changes = (*state.changes, done)
    if done.step is RolloutStep.ROLL_BACK:
        return replace(state, status=RolloutStatus.ROLLED_BACK, changes=changes)
    following = state.stage + 1
    if following == len(state.plan.stages):
        return replace(state, status=RolloutStatus.TAKEN_OVER, changes=changes)
    running = bool(state.plan.judged(following))  # at 100% there may be nothing left to compare
    status = RolloutStatus.RUNNING if running else RolloutStatus.TAKEN_OVER
    return replace(state, status=status, stage=following, tallies={}, changes=changes)


def _decide(
    state: RolloutState, findings: tuple[GuardrailFinding, ...], observed: Mapping[str, Tally]
) -> tuple[RolloutStep, str]:
    """A breach first, then what is missing, then what is not certain yet."""
    guardrails = {one.name: one for one in state.plan.guardrails}
    words = {one.guardrail: _words(guardrails[one.guardrail], one) for one in findings}
    if breaches := [words[one.guardrail] for one in findings if one.breaches]:
        return RolloutStep.ROLL_BACK, f"certainly beyond the limit: {'; '.join(breaches)}"
    silent = [
        one.guardrail
        for one in findings
        if not observed.get(one.guardrail, Tally()).seen(guardrails[one.guardrail])
    ]
    if silent:
        return RolloutStep.HOLD, f"no requests were counted for {', '.join(silent)} in this look"
    least = state.plan.stages[state.stage].least_requests
    few = [one for one in findings if one.requests < least]
    if few:
        return RolloutStep.HOLD, (
            f"{few[0].guardrail}: {count(few[0].requests)} of the {count(least)} requests that "
            "this stage asks for"
        )
    if open_ones := [words[one.guardrail] for one in findings if not one.passes]:
        return RolloutStep.HOLD, f"not certain yet: {'; '.join(open_ones)}"
    return RolloutStep.PROMOTE, f"certainly within every limit: {'; '.join(words.values())}"


def _words(guardrail: Guardrail, finding: GuardrailFinding) -> str:
    """`errors: 0.4% failed (0.1-0.9%), limit 1%, 2,000 requests`."""
    if finding.value is None:
        return f"{guardrail.name}: no requests"
    limit = guardrail.alarm if finding.breaches else guardrail.limit
    value, low, high = finding.value.value, finding.value.low, finding.value.high
    requests = things(finding.requests, "request")
    if guardrail.comparison is Comparison.LIMIT:
        shown = f"{percent(value)} {_bad_words(guardrail)} ({span(percent(low), percent(high))})"
        return f"{guardrail.name}: {shown}, limit {asked_percent(limit)}, {requests}"
    times = "" if guardrail.factor == 1 else f"{asked(guardrail.factor)} times "
    interval = span(points(low).removesuffix(" points"), points(high))
    shown = f"share {_bad_words(guardrail)} less {times}the teacher's is {points(value)}"
    return f"{guardrail.name}: {shown} ({interval}), limit {points(limit)}, {requests}"


def _bad_words(guardrail: Guardrail) -> str:
    """What a bad request is, after a share of them."""
    if guardrail.outcome is BadOutcome.SLOW:
        return f"not within {latency(guardrail.bound_ms)}"
    return {
        BadOutcome.FAILED: "failed",
        BadOutcome.DISAGREES: "answered otherwise than by the teacher",
        BadOutcome.WRONG: "wrong",
        BadOutcome.OWN: "bad",
    }[guardrail.outcome]

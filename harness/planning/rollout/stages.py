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
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunFolderError, UsageError
from harness.planning.rollout.guardrails import (
    Comparison,
    Guardrail,
    GuardrailFinding,
    Tally,
    check_guardrails,
    find,
)
from harness.system.storage import replace_text
from harness.words.numbers import asked_percent, count, percent, points, span

_BUCKETS = 2**64


class RolloutStep(StrEnum):
    """What a look decides."""

    PROMOTE = "promote"
    """On to the next stage; at the last one, the student has taken over."""
    HOLD = "hold"
    ROLL_BACK = "roll back"
    """All traffic to the teacher, from this look on."""


class RolloutMode(StrEnum):
    """Which requests go to which model."""

    CANARY = "canary"
    """Each to one: the student answers the keys in its share, the teacher the others."""
    MIRROR = "mirror"
    """As a canary; the teacher is asked what the student answers as well, and compared."""
    SHADOW = "shadow"
    """The teacher answers everything; the student is asked the keys in its share as well."""


class RolloutStatus(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    TAKEN_OVER = "taken over"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class RolloutStage:
    """A share of the traffic that the student serves until it is promoted."""

    share: float
    """Above 0; 1 is all of it."""
    least_requests: int = 1
    """Requests of the student, for each guardrail, before it can be promoted."""


DEFAULT_STAGES = tuple(RolloutStage(share) for share in (0.01, 0.05, 0.25, 0.5, 1.0))


@dataclass(frozen=True)
class RolloutPlan:
    """What a rollout is to do; fixed before it starts."""

    student: str
    teacher: str
    guardrails: tuple[Guardrail, ...]
    stages: tuple[RolloutStage, ...] = DEFAULT_STAGES
    mode: RolloutMode = RolloutMode.CANARY
    error: float = 0.05
    """Probability that a student beyond a limit is ever promoted, and that one within all limits
    is ever rolled back; looked at as often as one likes."""

    def check(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            UsageError: its guardrails contradict each other, or its stages are none.
        """
        check_guardrails(self.guardrails, mirrored=self.mode is not RolloutMode.CANARY)
        shares = [stage.share for stage in self.stages]
        if not shares or not shares[0] > 0 or sorted(set(shares)) != shares or shares[-1] > 1:
            raise UsageError(
                f"the stages {', '.join(map(asked_percent, shares)) or 'are none'}: shares of the "
                "traffic must grow from above 0% to at most 100%",
                next_step="for example 1%, 5%, 25%, 50%, 100%",
            )
        if not 0 < self.error < 1:
            raise UsageError(f"an error of {self.error:g} is not a probability above 0 and below 1")
        if not any(self.judged(stage) for stage in range(len(self.stages))):
            raise UsageError(
                "no stage can be judged: at 100% the teacher has no requests of its own",
                next_step="put a stage below 100% before it",
            )
        if any(stage.least_requests < 1 for stage in self.stages):
            raise UsageError("a stage cannot be passed on fewer than 1 request")

    def judged(self, stage: int) -> tuple[Guardrail, ...]:
        """The guardrails of a stage: at 100% the teacher has no requests of its own."""
        alone = self.stages[stage].share >= 1
        return tuple(one for one in self.guardrails if not (alone and one.needs_teacher))

    @property
    def breach_error(self) -> float:
        """Of each guardrail at each stage, so that a good student's rollback has `error` in all."""
        return self.error / sum(len(self.judged(stage)) for stage in range(len(self.stages)))


@dataclass(frozen=True)
class RolloutLook:
    """One look and what it decided."""

    number: int
    stage: int
    """Position among the plan's stages, from 0."""
    step: RolloutStep
    reason: str
    findings: tuple[GuardrailFinding, ...]


@dataclass(frozen=True)
class RolloutState:
    """All that a rollout has to remember: whole after every look, and enough to go on from."""

    plan: RolloutPlan
    status: RolloutStatus = RolloutStatus.RUNNING
    stage: int = 0
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """By guardrail, since the stage began."""
    looks: int = 0
    """Number of the last look."""
    last: RolloutLook | None = None
    changes: tuple[RolloutLook, ...] = ()
    """The looks that promoted or rolled back."""

    @property
    def share(self) -> float:
        """Of the traffic that the student is to serve now."""
        if self.status is RolloutStatus.ROLLED_BACK:
            return 0.0
        return self.plan.stages[self.stage].share


def begin(plan: RolloutPlan) -> RolloutState:
    """A rollout before its first look.

    Raises:
        UsageError: the plan cannot be carried out.
    """
    plan.check()
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


def save_state(path: Path, state: RolloutState) -> None:
    """Write a rollout's state, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    replace_text(path, _STATE.dump_json(state, indent=2).decode() + "\n")


def load_state(path: Path, plan: RolloutPlan | None = None) -> RolloutState:
    """Read a rollout's state back.

    Args:
        path: where it was written.
        plan: what it is to go on with; None for whatever it was begun with.

    Raises:
        RunFolderError: there is none, or it is damaged.
        UsageError: it was begun with another plan.
    """
    try:
        state = _STATE.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunFolderError(
            f"{path} holds no rollout that this version wrote: {error}",
            next_step="begin the rollout anew",
        ) from error
    if plan is not None and plan != state.plan:
        raise UsageError(
            f"{path} is of a rollout with another plan, and its error holds for that alone",
            next_step="go on with the plan that it was begun with, or begin anew",
        )
    return state


_STATE = TypeAdapter(RolloutState)


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
    """`errors 0.4% (0.1-0.9%), limit 1%, 2,000 requests`."""
    if finding.value is None:
        return f"{guardrail.name}: no requests"
    limit = guardrail.alarm if finding.breaches else guardrail.limit
    value, low, high = finding.value.value, finding.value.low, finding.value.high
    if guardrail.comparison is Comparison.LIMIT:
        shown = f"{percent(value)} ({span(percent(low), percent(high))})"
        limit_words = asked_percent(limit)
    else:
        interval = span(points(low).removesuffix(" points"), points(high))
        shown = f"{points(value)} against the teacher ({interval})"
        limit_words = points(limit)
    requests = f"{count(finding.requests)} requests"
    return f"{guardrail.name} {shown}, limit {limit_words}, {requests}"

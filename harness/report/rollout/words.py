"""How a rollout reads."""

from __future__ import annotations

from harness.types.rollout import RolloutRecord, RolloutStatus
from harness.words.numbers import asked_percent, count


def outcome_words(record: RolloutRecord) -> str:
    """Where a rollout stands, and why, in a sentence or two."""
    state, plan = record.state, record.plan
    looks = f"{count(state.looks)} {'look' if state.looks == 1 else 'looks'}"
    last = state.last
    why = f": {last.reason}" if last is not None else ""
    if state.status is RolloutStatus.TAKEN_OVER:
        return f"{plan.student} has taken over from {plan.teacher} after {looks}{why}."
    share = asked_percent(plan.stages[state.stage].share)
    if state.status is RolloutStatus.ROLLED_BACK:
        return (
            f"{plan.student} was rolled back at {share} of the traffic, at look "
            f"{count(state.looks)}{why}.{_checked(record)}"
        )
    return f"{plan.student} is held at {share} of the traffic after {looks}{why}."


def _checked(record: RolloutRecord) -> str:
    checked = record.rollback
    if checked is None:
        return ""
    if not checked.by_student:
        return f" The teacher answered all of the {count(checked.requests)} requests sent after it."
    return (
        f" But the student still answered {count(checked.by_student)} of the "
        f"{count(checked.requests)} requests sent after it."
    )


def sizes_words(record: RolloutRecord) -> tuple[str, ...]:
    """The planned size of the first stage, a line per guardrail."""
    stage = asked_percent(record.plan.stages[0].share)
    return tuple(
        f"{one.guardrail}: about {count(one.requests)} requests of the student pass the {stage} "
        "stage with 80% probability, by the offline scores"
        if one.requests is not None
        else f"{one.guardrail}: no planned size, as {one.reason}"
        for one in record.planned
    )

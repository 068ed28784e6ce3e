"""A rollout's decisions: promoted on evidence, taken back on evidence, and nothing on no data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError, UsageError
from harness.planning.rollout.guardrails import log_evidence
from harness.planning.rollout.sizing import ExpectedShares, planned_requests
from harness.planning.rollout.stages import begin, in_student_share, look
from harness.runs.documents import read_document, rewrite_document, write_document
from harness.types.rollout import (
    BadOutcome,
    Comparison,
    Guardrail,
    RolloutMode,
    RolloutPlan,
    RolloutStage,
    RolloutState,
    RolloutStatus,
    RolloutStep,
    Tally,
)

ERRORS = Guardrail("errors", BadOutcome.FAILED, Comparison.LIMIT, 0.02)
AGAINST = Guardrail("refunds", BadOutcome.OWN, Comparison.TEACHER, 0.02)
WRONG = Guardrail("accuracy", BadOutcome.WRONG, Comparison.PAIRED, 0.03)
SLOW = Guardrail("p95 < 50 ms", BadOutcome.SLOW, Comparison.LIMIT, 0.05, bound_ms=50.0)
AGREES = Guardrail("agreement", BadOutcome.DISAGREES, Comparison.LIMIT, 0.05)
GOOD = {"errors": Tally(2, 2000), "refunds": Tally(40, 2000, 4000, 200_000)}
PLAN = RolloutPlan("student", "teacher", (ERRORS, AGAINST))


def test_a_good_student_goes_through_every_stage() -> None:
    state = begin(PLAN)
    shares = [state.share]
    for number in range(1, 30):
        state = look(state, number, GOOD)
        if state.share != shares[-1]:
            shares.append(state.share)
        if state.status is not RolloutStatus.RUNNING:
            break
    assert shares == [0.01, 0.05, 0.25, 0.5, 1.0]
    assert state.status is RolloutStatus.TAKEN_OVER
    assert [one.step for one in state.changes] == [RolloutStep.PROMOTE] * 5
    assert state.changes[0].reason.startswith(
        "certainly within every limit: errors: 0.10% failed ("
    )


def test_a_look_gives_the_share_its_bounds_and_the_limit_in_words() -> None:
    state = look(begin(PLAN), 1, {"errors": Tally(300, 2000), "refunds": Tally(0, 2000, 0, 9)})
    assert state.last is not None
    finding = state.last.findings[0]
    assert finding.breaches
    assert not finding.passes
    assert finding.value is not None
    assert finding.value.value == 0.15
    assert 0.1 < finding.value.low < 0.15 < finding.value.high < 0.2
    assert state.last.reason == (
        "certainly beyond the limit: "
        "errors: 15.0% failed (11.8\u201317.8%), limit 2%, 2,000 requests"
    )


def test_a_rollback_takes_effect_at_the_look_that_sees_it() -> None:
    """In the middle of a rollout that went well; nothing later brings the student back."""
    state = begin(PLAN)
    number = 0
    while state.stage < 2:
        number += 1
        state = look(state, number, GOOD)
    state = look(state, number + 1, {**GOOD, "errors": Tally(900, 2000)})
    assert (state.share, state.status) == (0.0, RolloutStatus.ROLLED_BACK)
    assert state.changes[-1].step is RolloutStep.ROLL_BACK
    assert look(state, number + 2, GOOD) == state


def test_one_bad_guardrail_is_enough_and_a_promotion_wants_all() -> None:
    only_refunds_bad = {**GOOD, "refunds": Tally(900, 2000, 4000, 200_000)}
    assert look(begin(PLAN), 1, only_refunds_bad).status is RolloutStatus.ROLLED_BACK
    undecided = {**GOOD, "refunds": Tally(2, 60, 120, 6000)}
    state = look(begin(PLAN), 1, undecided)
    assert state.last is not None
    assert (state.stage, state.last.step) == (0, RolloutStep.HOLD)
    assert state.last.reason.startswith(
        "not certain yet: refunds: share bad less the teacher's is +1.33 points ("
    )


@pytest.mark.parametrize(
    ("observed", "missing"),
    [
        ({}, "errors, refunds"),
        ({"errors": Tally(0, 2000), "refunds": Tally()}, "refunds"),
        ({"errors": Tally(0, 2000), "refunds": Tally(20, 2000)}, "refunds"),  # of the student alone
    ],
)
def test_no_data_never_passes(observed: dict[str, Tally], missing: str) -> None:
    """Not at first, and not on the strength of what was seen before it stopped."""
    state = begin(PLAN)
    for number in range(1, 50):
        state = look(state, number, observed)
        assert state.last is not None
        assert (state.stage, state.last.step) == (0, RolloutStep.HOLD)
        assert state.last.reason == f"no requests were counted for {missing} in this look"


def test_what_was_certain_before_the_data_stopped_is_no_promotion() -> None:
    plan = replace(PLAN, stages=(RolloutStage(0.1, least_requests=5000), RolloutStage(1.0)))
    state = look(look(begin(plan), 1, GOOD), 2, GOOD)
    assert state.last is not None
    assert all(one.passes for one in state.last.findings)
    assert state.last.reason == "errors: 4,000 of the 5,000 requests that this stage asks for"
    state = look(state, 3, {})
    assert state.last is not None
    assert state.last.step is RolloutStep.HOLD
    assert look(state, 4, GOOD).share == 1.0


def test_every_request_failing_is_a_rollback_and_not_a_success() -> None:
    assert look(begin(PLAN), 1, {"errors": Tally(25, 25)}).status is RolloutStatus.ROLLED_BACK


def test_a_stage_is_judged_on_its_own_requests() -> None:
    """An hour that is bad for both models makes no difference between them."""
    state = begin(PLAN)
    number = 0
    while state.stage < 1:
        number += 1
        state = look(state, number, GOOD)
    assert state.tallies == {}
    bad_hour = {"errors": Tally(2, 2000), "refunds": Tally(400, 2000, 8000, 40_000)}
    assert look(state, number + 1, bad_hour).status is RolloutStatus.RUNNING


def test_the_whole_of_the_traffic_is_still_watched_where_it_can_be() -> None:
    """At 100% the teacher has no requests of its own; limits of the student's hold on."""
    assert [one.name for one in PLAN.judged(4)] == ["errors"]
    assert PLAN.breach_error == pytest.approx(0.05 / 9)
    compared_only = replace(PLAN, guardrails=(AGAINST,))
    state = begin(replace(compared_only, stages=(RolloutStage(0.5), RolloutStage(1.0))))
    for number in range(1, 9):
        state = look(state, number, {"refunds": GOOD["refunds"]})
    assert (state.share, state.status) == (1.0, RolloutStatus.TAKEN_OVER)


def test_a_state_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """Written after each look and read back; a look that is repeated counts once."""
    path = write_document(tmp_path, "rollout", begin(PLAN))
    kept = begin(PLAN)
    for number, observed in enumerate([{}, GOOD, {"errors": Tally(1, 50)}, GOOD, GOOD], start=1):
        kept = look(kept, number, observed)
        for _ in range(2):
            restarted = read_document(tmp_path, "rollout", RolloutState)
            assert restarted is not None
            rewrite_document(path, look(restarted, number, observed))
    assert read_document(tmp_path, "rollout", RolloutState) == kept
    assert kept.looks == 5


def test_looks_come_one_after_the_other() -> None:
    with pytest.raises(UsageError, match="look 3 follows look 0"):
        look(begin(PLAN), 3, GOOD)
    with pytest.raises(UsageError, match="'latency', which is no guardrail"):
        look(begin(PLAN), 1, {"latency": Tally(0, 1)})


@pytest.mark.parametrize("counts", [Tally(3, 2), Tally(-1, 2), Tally(0, 5, 7, 6)])
def test_counts_that_cannot_be_are_refused(counts: Tally) -> None:
    with pytest.raises(DataError, match="a negative number"):
        look(begin(PLAN), 1, {"errors": counts})


@pytest.mark.parametrize(
    ("guardrails", "problem"),
    [
        ((), "there is no guardrail"),
        ((ERRORS, replace(ERRORS, limit=0.05)), "'errors' is the name of 2 guardrails"),
        ((ERRORS, replace(ERRORS, name="e", limit=0.05)), r"\(0.02\) and 'e' \(0.05\) are two lim"),
        ((replace(ERRORS, roll_back_over=0.01),), "between them both"),
        ((replace(ERRORS, limit=0.0),), "must lie between 0 and 1"),
        ((replace(AGAINST, limit=1.0),), "must lie between -1 and 1"),
        ((replace(AGAINST, factor=0.0),), "a factor of 0"),
        ((replace(SLOW, bound_ms=None),), "none are given"),
        ((replace(AGREES, comparison=Comparison.TEACHER),), "always agrees with itself"),
        ((replace(WRONG, limit=-0.06), AGREES), "wants 0.06 fewer wrong answers"),
    ],
)
def test_guardrails_that_contradict_each_other_are_refused(
    guardrails: tuple[Guardrail, ...], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        begin(RolloutPlan("student", "teacher", guardrails, mode=RolloutMode.MIRROR))
    assert refused.value.exit_code == 2


def test_answers_to_one_request_are_compared_only_where_both_are_asked() -> None:
    with pytest.raises(UsageError, match="no request goes to both models"):
        begin(RolloutPlan("student", "teacher", (WRONG,)))
    begin(
        RolloutPlan(
            "student", "teacher", (WRONG, AGREES, SLOW, ERRORS, AGAINST), mode=RolloutMode.MIRROR
        )
    )


@pytest.mark.parametrize("shares", [(), (0.0, 1.0), (0.5, 0.1), (0.5, 0.5), (0.5, 1.2)])
def test_stages_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="must grow"):
        begin(replace(PLAN, stages=tuple(map(RolloutStage, shares))))


def test_a_key_stays_with_the_student_while_its_share_grows() -> None:
    keys = [f"user-{number}" for number in range(8000)]
    before: set[str] = set()
    for share in (0.0, 0.01, 0.05, 0.25, 0.5, 1.0):
        now = {key for key in keys if in_student_share(key, share)}
        assert before <= now
        assert len(now) / len(keys) == pytest.approx(share, abs=3 * 0.5 / len(keys) ** 0.5)
        before = now
    other = {key for key in keys if in_student_share(key, 0.5, salt="another rollout")}
    assert 0.4 < len(other & {key for key in keys if in_student_share(key, 0.5)}) / 4000 < 0.6


@pytest.mark.parametrize(
    ("guardrail", "expected"),
    [
        (SLOW, ExpectedShares(0.02)),
        (AGAINST, ExpectedShares(0.05, 0.05)),
        (WRONG, ExpectedShares(0.11, 0.10, 0.08)),
    ],
)
def test_the_planned_requests_give_the_power_that_was_asked(
    guardrail: Guardrail, expected: ExpectedShares
) -> None:
    """Other rollouts, looked at at the end alone: about the 80%; with a third of them, far less."""
    size = planned_requests(guardrail, expected, share=0.05, seed=1)
    draws = np.random.default_rng(2)

    def passing(requests: int) -> float:
        counts = np.zeros((400, 8), dtype=np.int64)
        counts[:, 0] = draws.binomial(requests, expected.student_bad, 400)
        counts[:, 1], counts[:, 3] = requests, 19 * requests
        counts[:, 2] = draws.binomial(19 * requests, expected.teacher_bad, 400)
        counts[:, 4:] = draws.multinomial(requests, expected.pairs, 400)
        limit = np.full(400, guardrail.limit)
        return float((log_evidence(guardrail, counts, limit, above=True) >= np.log(20)).mean())

    assert 0.65 < passing(size) < 0.95
    assert passing(size // 3) < 0.4


def test_a_student_beyond_the_limit_offline_has_no_planned_size() -> None:
    with pytest.raises(UsageError, match="no number of requests shows"):
        planned_requests(ERRORS, ExpectedShares(0.02), share=0.01)
    with pytest.raises(UsageError, match="no shares of requests"):
        planned_requests(WRONG, ExpectedShares(0.1, 0.1, 0.3), share=0.01)

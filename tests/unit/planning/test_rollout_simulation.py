"""Whole rollouts by the thousand: the same as one by one, and wrong no more often than stated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.planning.rollout.simulation import SimulatedRollouts, Traffic, simulate
from harness.planning.rollout.stages import begin, look
from harness.types.rollout import (
    BadOutcome,
    Comparison,
    Guardrail,
    RolloutMode,
    RolloutPlan,
    RolloutStage,
    RolloutStatus,
    Tally,
)

ERRORS = Guardrail("errors", BadOutcome.FAILED, Comparison.LIMIT, 0.02)
SLOW = Guardrail("p90 < 50 ms", BadOutcome.SLOW, Comparison.LIMIT, 0.1, bound_ms=50.0)
AGAINST = Guardrail("refunds", BadOutcome.OWN, Comparison.TEACHER, 0.03)
WRONG = Guardrail("accuracy", BadOutcome.WRONG, Comparison.PAIRED, 0.03)
PLAN = RolloutPlan("student", "teacher", (ERRORS, AGAINST, WRONG), mode=RolloutMode.MIRROR)
TEACHER_WRONG, BOTH_WRONG = 0.10, 0.08
THREE_ERRORS = 3 * (0.05 * 0.95 / 2000) ** 0.5
"""Three standard errors of 2,000 rollouts of which 5% are wrong."""


def traffic(
    *, failing: float, refunded: float, wrong: float, requests: int, seed: int, rollouts: int
) -> Traffic:
    """Shares of the student's requests; the teacher is refunded on 5% and wrong on 10%."""
    draws = np.random.default_rng(seed)
    pairs = (
        1 - wrong - TEACHER_WRONG + BOTH_WRONG,
        wrong - BOTH_WRONG,
        TEACHER_WRONG - BOTH_WRONG,
        BOTH_WRONG,
    )

    def counted(_number: int, stages: NDArray[np.int64]) -> Mapping[str, NDArray[np.int64]]:
        shares = np.array([stage.share for stage in PLAN.stages])[stages]
        others = np.round(requests * (1 - shares) / shares).astype(np.int64)
        found = {one.name: np.zeros((rollouts, 8), dtype=np.int64) for one in PLAN.guardrails}
        found["errors"][:, 0] = draws.binomial(requests, failing, rollouts)
        found["refunds"][:, 0] = draws.binomial(requests, refunded, rollouts)
        found["refunds"][:, 2] = draws.binomial(others, 0.05)
        found["refunds"][:, 3] = others
        for one in ("errors", "refunds"):
            found[one][:, 1] = requests
        found["accuracy"][:, 4:] = draws.multinomial(requests, pairs, rollouts)
        return found

    return counted


def simulated(
    looks: int,
    *,
    plan: RolloutPlan = PLAN,
    rollouts: int = 2000,
    requests: int = 300,
    **shares: float,
) -> SimulatedRollouts:
    """Many rollouts of a student that is as good as the teacher but for what is said."""
    usual = {"failing": 0.005, "refunded": 0.05, "wrong": 0.10} | shares
    asked = traffic(**usual, requests=requests, seed=11, rollouts=rollouts)
    return simulate(plan, asked, rollouts=rollouts, looks=looks)


@pytest.mark.parametrize("wrong", [0.10, 0.13, 0.2])
def test_many_at_once_decide_as_one_alone(wrong: float) -> None:
    """Each of 12 rollouts, look by look, against the state machine on the same counts."""
    stages = (RolloutStage(0.05), RolloutStage(0.5, least_requests=1000), RolloutStage(1.0))
    plan = RolloutPlan("s", "t", PLAN.guardrails, stages, RolloutMode.MIRROR)
    looks, rollouts = 12, 12
    asked = traffic(
        failing=0.01, refunded=0.05, wrong=wrong, requests=700, seed=4, rollouts=rollouts
    )
    seen: list[Mapping[str, NDArray[np.int64]]] = []

    def remembered(number: int, stage: NDArray[np.int64]) -> Mapping[str, NDArray[np.int64]]:
        found = dict(asked(number, stage))
        if number == 3:  # a look without data
            found["errors"] = np.zeros_like(found["errors"])
        seen.append(found)
        return found

    together = simulate(plan, remembered, rollouts=rollouts, looks=looks)
    for place in range(rollouts):
        state = begin(plan)
        for number, found in enumerate(seen, start=1):
            counts = {name: Tally(*map(int, rows[place])) for name, rows in found.items()}
            state = look(state, number, counts)
        assert state.stage == together.stage[place]
        assert state.looks == together.looks[place]
        assert (state.status is RolloutStatus.ROLLED_BACK) == together.rolled_back[place]
        assert (state.status is RolloutStatus.TAKEN_OVER) == together.taken_over[place]


def test_simulated_rollouts_end_as_the_student_deserves() -> None:
    good = simulated(80, rollouts=50, requests=1500)
    assert good.taken_over.all()
    bad = simulated(80, rollouts=50, requests=1500, wrong=0.2)
    assert bad.rolled_back.all()
    assert bad.looks.max() <= 2
    assert simulated(80, rollouts=50, requests=1500, failing=0.08).rolled_back.all()
    assert simulated(80, rollouts=50, requests=1500, refunded=0.2).rolled_back.all()


def test_a_student_on_the_limit_is_promoted_and_rolled_back_about_as_seldom_as_stated() -> None:
    """Exactly 3 points worse, the limit; 60 looks of 300 requests. Quick: of 300 rollouts."""
    found = simulated(60, rollouts=300, wrong=0.13)
    three_errors = 3 * (0.05 * 0.95 / 300) ** 0.5
    assert (found.stage > 0).mean() <= 0.05 + three_errors
    assert found.rolled_back.mean() <= 0.05 + three_errors
    assert (found.stage > 0).any()  # the error is used, so a test that never passes would show


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares",
    [{"wrong": 0.13}, {"failing": 0.02}, {"refunded": 0.08}, {"wrong": 0.13, "failing": 0.02}],
)
def test_two_thousand_rollouts_on_the_limit_err_no_more_often_than_stated(
    shares: dict[str, float],
) -> None:
    """200 looks, 60,000 requests of the student: on the limit neither decision comes too often."""
    found = simulated(200, **shares)
    assert (found.stage > 0).mean() <= 0.05 + THREE_ERRORS
    assert found.rolled_back.mean() <= 0.05 + THREE_ERRORS


@pytest.mark.slow
def test_one_test_repeated_at_every_look_would_promote_far_more_often() -> None:
    """What the evidence is for: a fixed-size test at each look errs several times as often."""
    draws = np.random.default_rng(11)
    bad = np.cumsum(draws.binomial(300, 0.02, (2000, 200)), axis=1)
    total = 300 * np.arange(1, 201)
    share = bad / total
    z = (0.02 - share) / np.sqrt(np.maximum(share * (1 - share), 1e-9) / total)
    assert (z > 1.6449).any(axis=1).mean() > 3 * 0.05


@pytest.mark.slow
def test_two_thousand_good_students_are_almost_never_taken_back() -> None:
    found = simulated(200)
    assert found.rolled_back.mean() <= 0.05
    assert found.taken_over.mean() > 0.9

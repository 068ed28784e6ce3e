"""The verdict on a router that was deployed, by numbers made up."""

from __future__ import annotations

import pytest
from planning_samples import make_result

from harness.planning.assessment import QualityJudgement
from harness.planning.routing.deployed import judge_router, keeps_promise
from harness.study.objective import parse_objective
from harness.types import Decision
from harness.types.estimates import Interval

SLO = parse_objective("p95 < 50 ms, accuracy >= 90% of teacher")
KEEPS = QualityJudgement(Decision.PASS, "keeps 97% of the teacher's accuracy")
QUICK, SLOW = make_result(p95_ms=40.0), make_result(p95_ms=80.0)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (0.95, 1.0, Decision.PASS),
        (0.949, 1.0, Decision.UNDECIDED),
        (0.90, 0.95, Decision.UNDECIDED),
        (0.90, 0.9499, Decision.FAIL),
    ],
)
def test_a_promise_is_judged_by_the_interval(low: float, high: float, decision: Decision) -> None:
    assert keeps_promise(Interval((low + high) / 2, low, high), 0.95) is decision


def test_nothing_known_is_no_promise_kept() -> None:
    assert keeps_promise(None, 0.95) is Decision.UNDECIDED


@pytest.mark.parametrize(
    ("quality", "results", "decision", "said"),
    [
        (KEEPS, [QUICK], Decision.PASS, "meets the objective: 1,000 inferences/s at p95 40"),
        (KEEPS, [SLOW, QUICK], Decision.PASS, "at p95 40"),
        (KEEPS, [SLOW], Decision.FAIL, "The router fails: 1,000 inferences/s at p95 80"),
        (
            KEEPS,
            [make_result(p95_ms=50.0)],
            Decision.UNDECIDED,
            "Whether the router passes is undecided",
        ),
        (
            KEEPS,
            [make_result(invalid="the generator was the limit")],
            Decision.INVALID,
            "is undecided: 1,000 inferences/s at p95 40",
        ),
        (KEEPS, [], Decision.UNDECIDED, "was not load-tested"),
        (
            QualityJudgement(Decision.FAIL, "keeps 80%"),
            [QUICK],
            Decision.FAIL,
            "The router fails on quality: it keeps 80%.",
        ),
        (
            QualityJudgement(Decision.UNDECIDED, "keeps 89% to 93%"),
            [QUICK],
            Decision.UNDECIDED,
            "its quality does not: it keeps 89% to 93%.",
        ),
    ],
)  # fmt: skip
def test_quality_and_the_last_trial_decide(
    quality: QualityJudgement, results: list, decision: Decision, said: str
) -> None:
    found, words = judge_router(SLO, quality, results)
    assert found is decision
    assert said in words

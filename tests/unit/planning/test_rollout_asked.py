"""What a rollout is held to: the clauses of an objective, agreement, counters of a Prometheus."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.planning.rollout.asked import (
    OwnCounters,
    agreement_guardrail,
    guardrails_of,
    parse_own,
    parse_stages,
)
from harness.study.objective import parse_objective
from harness.types.rollout import BadOutcome, Comparison, Guardrail, RolloutMode, RolloutStage


@pytest.mark.parametrize(
    ("clause", "mode", "guardrail"),
    [
        (
            "p95 < 50 ms",
            RolloutMode.MIRROR,
            Guardrail("p95 < 50 ms", BadOutcome.SLOW, Comparison.LIMIT, limit=0.05, bound_ms=50.0),
        ),
        (
            "p99 < 2 s",
            RolloutMode.CANARY,
            Guardrail("p99 < 2 s", BadOutcome.SLOW, Comparison.LIMIT, limit=0.01, bound_ms=2000.0),
        ),
        (
            "error_rate < 1%",
            RolloutMode.CANARY,
            Guardrail("error_rate < 1%", BadOutcome.FAILED, Comparison.LIMIT, limit=0.01),
        ),
        (
            "accuracy >= 80%",
            RolloutMode.CANARY,
            Guardrail("accuracy >= 80%", BadOutcome.WRONG, Comparison.LIMIT, limit=0.2),
        ),
        # right >= 0.9 x the teacher's right is wrong <= 0.1 + 0.9 x the teacher's wrong
        (
            "accuracy >= 90% of teacher",
            RolloutMode.MIRROR,
            Guardrail(
                "accuracy >= 90% of teacher",
                BadOutcome.WRONG,
                Comparison.PAIRED,
                limit=0.1,
                factor=0.9,
            ),
        ),
        (
            "accuracy >= 90% of teacher",
            RolloutMode.CANARY,
            Guardrail(
                "accuracy >= 90% of teacher",
                BadOutcome.WRONG,
                Comparison.TEACHER,
                limit=0.1,
                factor=0.9,
            ),
        ),
    ],
)
def test_a_clause_is_a_share_of_bad_requests(
    clause: str, mode: RolloutMode, guardrail: Guardrail
) -> None:
    assert guardrails_of(parse_objective(clause), mode) == ((guardrail,), ())


@pytest.mark.parametrize("clause", ["mean < 20 ms", "throughput > 100/s", "macro_f1 >= 80%"])
def test_a_clause_that_says_nothing_of_a_request_is_left_out_and_said(clause: str) -> None:
    slo = parse_objective(f"{clause}, error_rate < 1%")
    found, notes = guardrails_of(slo, RolloutMode.CANARY)
    assert [one.name for one in found] == ["error_rate < 1%"]
    (note,) = notes
    assert note.startswith(f"`{clause}` is no guardrail: ")


def test_agreement_is_a_share_of_answers_that_differ() -> None:
    found = agreement_guardrail(0.95)
    assert (found.outcome, found.comparison, found.limit) == (
        BadOutcome.DISAGREES,
        Comparison.LIMIT,
        0.05,
    )
    assert found.needs_pairs


def test_two_counters_and_a_limit_are_read() -> None:
    text = 'refunds < 2%; bad: sum(refunds_total{app="a;b"}); all: sum(orders_total)'
    assert parse_own(text) == (
        Guardrail("refunds", BadOutcome.OWN, Comparison.LIMIT, 0.02),
        OwnCounters("refunds", 'sum(refunds_total{app="a;b"})', "sum(orders_total)"),
    )
    assert parse_own("a b<0.5;bad:x;all:y")[0].limit == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "refunds",
        "refunds < 2%",
        "refunds < 2%; bad: x",
        "refunds < much%; bad: x; all: y",
        "refunds > 2%; bad: x; all: y",
        "refunds < 2%; bad: ; all: y",
    ],
)
def test_counters_that_cannot_be_read_are_refused_with_how_they_are_written(text: str) -> None:
    with pytest.raises(UsageError, match="a name, a limit and two counters") as refused:
        parse_own(text)
    assert "bad: sum(refunds_total)" in (refused.value.next_step or "")
    assert refused.value.exit_code == 2


def test_stages_are_shares() -> None:
    assert parse_stages("5%, 0.25,100%") == (
        RolloutStage(0.05),
        RolloutStage(0.25),
        RolloutStage(1.0),
    )


@pytest.mark.parametrize(("text", "part"), [("5%,half", "half"), ("", ""), ("5%,,100%", "")])
def test_stages_that_are_no_shares_are_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=f"'{part}' is no share of the traffic"):
        parse_stages(text)

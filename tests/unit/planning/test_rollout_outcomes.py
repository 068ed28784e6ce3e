"""Requests of a look counted by hand for each guardrail, as for the offline scores."""

from __future__ import annotations

import numpy as np
import pytest

from harness.planning.rollout.outcomes import (
    NO_CLASS,
    LookOutcomes,
    ModelOutcomes,
    expected_shares,
    tally,
)
from harness.planning.rollout.sizing import ExpectedShares
from harness.types.rollout import BadOutcome, Comparison, Guardrail, Tally

INF = np.inf
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def model(asked: str, classes: list[int], latency_ms: list[float]) -> ModelOutcomes:
    """`asked` has an x for each request that the model was sent; class -1 there is a failure."""
    sent = np.array([one == "x" for one in asked])
    found = np.array(classes)
    return ModelOutcomes(sent, sent & (found == NO_CLASS), np.array(latency_ms), found)


LOOK = LookOutcomes(
    # The student: right, right, wrong, failed, slow and right, (not asked) x 3.
    student=model("xxxxx...", [0, 1, 0, -1, 1, -1, -1, -1], [5, 5, 5, INF, 80, INF, INF, INF]),
    # The teacher: right, wrong, right, right, (not asked), right, wrong, failed.
    teacher=model("xxxx.xxx", [0, 2, 2, 0, -1, 2, 1, -1], [9, 9, 90, 9, INF, 9, 90, INF]),
    labels=LABELS,
)


def rail(outcome: BadOutcome, comparison: Comparison = Comparison.LIMIT) -> Guardrail:
    bound_ms = 50.0 if outcome is BadOutcome.SLOW else None
    return Guardrail("one", outcome, comparison, 0.1, bound_ms=bound_ms)


@pytest.mark.parametrize(
    ("guardrail", "counts"),
    [
        (rail(BadOutcome.FAILED), Tally(1, 5)),
        (rail(BadOutcome.SLOW), Tally(2, 5)),  # the one that failed took for ever
        (rail(BadOutcome.WRONG), Tally(2, 5)),  # a failure is no right answer
        (rail(BadOutcome.DISAGREES), Tally(3, 4)),  # of the four that both were asked
        # The teacher's own requests are the last three.
        (rail(BadOutcome.FAILED, Comparison.TEACHER), Tally(1, 5, 1, 3)),
        (rail(BadOutcome.SLOW, Comparison.TEACHER), Tally(2, 5, 2, 3)),
        (rail(BadOutcome.WRONG, Comparison.TEACHER), Tally(2, 5, 2, 3)),
        # Of the first four: neither wrong, the teacher, the student, the student.
        (rail(BadOutcome.WRONG, Comparison.PAIRED), Tally(0, 0, 0, 0, 1, 2, 1, 0)),
        (rail(BadOutcome.SLOW, Comparison.PAIRED), Tally(0, 0, 0, 0, 2, 1, 1, 0)),
    ],
)
def test_a_look_is_counted(guardrail: Guardrail, counts: Tally) -> None:
    assert tally(guardrail, LOOK) == counts


def test_a_failure_of_the_teacher_is_no_other_answer_of_the_students() -> None:
    """Nobody knows what the teacher would have answered; the student's own failure counts."""
    found = LookOutcomes(
        # Alike, alike, other, failed alone, the teacher failed, both failed.
        student=model("xxxxxx", [0, 1, 0, -1, 1, -1], [5, 5, 5, INF, 5, INF]),
        teacher=model("xxxxxx", [0, 1, 2, 0, -1, -1], [9, 9, 9, 9, INF, INF]),
        labels=LABELS[:6],
    )
    agreement = rail(BadOutcome.DISAGREES)
    assert tally(agreement, found) == Tally(2, 4)
    assert expected_shares(agreement, found) == ExpectedShares(0.5)
    nothing = model("xxxxxx", [-1] * 6, [INF] * 6)
    silent = LookOutcomes(found.student, nothing, LABELS[:6])
    assert tally(agreement, silent) == Tally()
    assert expected_shares(agreement, silent) is None
    # The accuracy of pairs counts either's failures
    both = rail(BadOutcome.WRONG, Comparison.PAIRED)
    assert sum(tally(both, found).pairs) == 6


def test_a_look_without_requests_of_the_student_counts_none() -> None:
    nobody = model("........", [-1] * 8, [INF] * 8)
    found = LookOutcomes(nobody, LOOK.teacher, LABELS)
    for outcome in (BadOutcome.FAILED, BadOutcome.SLOW, BadOutcome.WRONG, BadOutcome.DISAGREES):
        assert tally(rail(outcome), found) == Tally()
    assert tally(rail(BadOutcome.WRONG, Comparison.PAIRED), found) == Tally()


def test_stored_answers_tell_what_to_expect() -> None:
    every, no_time = "xxxxxxxx", [0.0] * 8
    offline = LookOutcomes(
        model(every, [0, 1, 0, 1, 1, 2, 0, -1], no_time),  # wrong on rows 2, 3, 7
        model(every, [0, 1, 2, 2, 1, 0, 0, 1], no_time),  # wrong on rows 3, 5
        LABELS,
    )
    wrong = rail(BadOutcome.WRONG, Comparison.PAIRED)
    assert expected_shares(wrong, offline) == ExpectedShares(3 / 8, 2 / 8, 1 / 8)
    assert expected_shares(rail(BadOutcome.FAILED), offline) == ExpectedShares(1 / 8, 0.0, 0.0)
    # Other answers than the teacher's: rows 2, 3, 5, 7.
    assert expected_shares(rail(BadOutcome.DISAGREES), offline) == ExpectedShares(0.5)
    assert expected_shares(rail(BadOutcome.SLOW), offline) is None
    assert expected_shares(rail(BadOutcome.OWN), offline) is None

"""What a look's requests met with at either model, counted for each guardrail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.planning.rollout.sizing import ExpectedShares
from harness.types.rollout import BadOutcome, Comparison, Guardrail, Tally

Mask = NDArray[np.bool_]
NO_CLASS = -1
"""Class of a request that the model was not asked, or did not answer."""


@dataclass(frozen=True, eq=False)
class ModelOutcomes:
    """What one model did with each request of a look; all (requests,)."""

    asked: Mask
    failed: Mask
    """Whether each request was asked and got no usable answer."""
    latency_ms: NDArray[np.float64]
    """Infinite where it failed."""
    classes: NDArray[np.int64]

    def bad(self, guardrail: Guardrail, other: ModelOutcomes, labels: NDArray[np.int64]) -> Mask:
        """Whether each request was a bad one of the model; false where it was not asked."""
        if guardrail.outcome is BadOutcome.FAILED:
            return self.failed
        if guardrail.outcome is BadOutcome.SLOW:
            assert guardrail.bound_ms is not None  # noqa: S101  (checked with the plan)
            return np.asarray(self.asked & ~(self.latency_ms < guardrail.bound_ms))
        if guardrail.outcome is BadOutcome.DISAGREES:
            return np.asarray(self.asked & (self.failed | (self.classes != other.classes)))
        return np.asarray(self.asked & (self.classes != labels))


@dataclass(frozen=True, eq=False)
class LookOutcomes:
    """Both models' part of the requests that were sent between two looks."""

    student: ModelOutcomes
    teacher: ModelOutcomes
    labels: NDArray[np.int64]
    """The true class of each request's row, (requests,)."""


def tally(guardrail: Guardrail, found: LookOutcomes) -> Tally:
    """Count a look's requests for one guardrail; its own counters are not among them."""
    student, teacher = found.student, found.teacher
    bad = student.bad(guardrail, teacher, found.labels)
    both = student.asked & teacher.asked
    if guardrail.comparison is Comparison.PAIRED:
        theirs = teacher.bad(guardrail, student, found.labels)
        return Tally(
            pairs_neither_bad=int((both & ~bad & ~theirs).sum()),
            pairs_student_bad=int((both & bad & ~theirs).sum()),
            pairs_teacher_bad=int((both & ~bad & theirs).sum()),
            pairs_both_bad=int((both & bad & theirs).sum()),
        )
    counted = _compared(found) if guardrail.needs_pairs else student.asked
    own = Tally(student_bad=int((counted & bad).sum()), student_total=int(counted.sum()))
    if guardrail.comparison is Comparison.LIMIT:
        return own
    alone = teacher.asked & ~student.asked
    theirs = teacher.bad(guardrail, student, found.labels)
    return own + Tally(teacher_bad=int((alone & theirs).sum()), teacher_total=int(alone.sum()))


def _compared(found: LookOutcomes) -> Mask:
    """Requests of which both models' answers are compared, (requests,).

    Of those that the teacher failed nobody knows what it would have answered: they say nothing of
    the student. One that the student failed alone is answered otherwise.
    """
    return np.asarray(found.student.asked & found.teacher.asked & ~found.teacher.failed)


def expected_shares(guardrail: Guardrail, offline: LookOutcomes) -> ExpectedShares | None:
    """What stored answers to the scored rows say of a guardrail; None of latency and counters.

    Args:
        guardrail: one that single answers decide.
        offline: both models' stored answers to the same rows.
    """
    if guardrail.outcome in {BadOutcome.SLOW, BadOutcome.OWN}:
        return None
    bad = offline.student.bad(guardrail, offline.teacher, offline.labels)
    if guardrail.outcome is BadOutcome.DISAGREES:
        compared = _compared(offline)
        return ExpectedShares(float(bad[compared].mean())) if compared.any() else None
    theirs = offline.teacher.bad(guardrail, offline.student, offline.labels)
    return ExpectedShares(float(bad.mean()), float(theirs.mean()), float((bad & theirs).mean()))

"""How many requests a stage will need, from what the offline scores say: by simulating it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError
from harness.planning.rollout.guardrails import log_evidence
from harness.types.rollout import Comparison, Guardrail
from harness.words.numbers import asked, count, number

POWER = 0.8
_ROLLOUTS = 400
_LOOKS_PER_TENFOLD = 25
_MOST = 100_000_000

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ExpectedShares:
    """What the offline scores say of the requests to come."""

    student_bad: float
    """Share of the student's requests that will be bad."""
    teacher_bad: float = 0.0
    both_bad: float = 0.0
    """Share of requests that both models get wrong; of pairs alone."""

    @property
    def pairs(self) -> tuple[float, float, float, float]:
        """Neither bad, only the student's, only the teacher's, both."""
        student, teacher = self.student_bad - self.both_bad, self.teacher_bad - self.both_bad
        return 1 - student - teacher - self.both_bad, student, teacher, self.both_bad

    def check(self, guardrail: Guardrail) -> None:
        """Refuse shares that cannot be, or of a student that is beyond the limit.

        Raises:
            UsageError: in words.
        """
        paired = guardrail.comparison is Comparison.PAIRED
        shares = (self.student_bad, self.teacher_bad, *(self.pairs if paired else ()))
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError(f"{self} are no shares of requests")
        value = self.student_bad
        if guardrail.comparison is not Comparison.LIMIT:
            value -= guardrail.factor * self.teacher_bad
        if not value < guardrail.limit:
            raise UsageError(
                f"guardrail '{guardrail.name}': offline the student is at {number(value)}, which "
                f"is not within the limit of {asked(guardrail.limit)}: no number of requests shows "
                "that it is",
                next_step="widen the limit, or do not roll this student out",
            )


def planned_requests(
    guardrail: Guardrail,
    expected: ExpectedShares,
    *,
    share: float,
    error: float = 0.05,
    power: float = POWER,
    seed: int = 0,
) -> int:
    """Requests of the student after which a stage passes a guardrail with a given probability.

    The same evidence is simulated, looked at 25 times per tenfold of requests.

    Args:
        guardrail: what is to be shown.
        expected: the shares of bad requests.
        share: of the traffic that the student serves; the teacher serves the rest.
        error: of a promotion.
        power: the probability.
        seed: of the simulation.

    Returns:
        Requests of the student (of pairs: requests that go to both), to about 10%.

    Raises:
        UsageError: no number of requests will do, or more than 100 million.
    """
    expected.check(guardrail)
    draws = np.random.default_rng(seed)
    passed = np.zeros(_ROLLOUTS, dtype=bool)
    counts, before = np.zeros((_ROLLOUTS, 8), dtype=np.int64), 0
    for size in _looks():
        counts += _drawn(guardrail, expected, size - before, share, draws)
        before = size
        passed |= _passes(guardrail, counts, error)
        if passed.mean() >= power:
            return size
    raise UsageError(
        f"guardrail '{guardrail.name}': more than {count(_MOST)} requests of the student would be "
        "needed",
        next_step="widen the limit",
    )


def _looks() -> list[int]:
    tenfolds = round(np.log10(_MOST)) - 1
    return [int(one) for one in np.geomspace(10, _MOST, _LOOKS_PER_TENFOLD * tenfolds + 1)]


def _drawn(
    guardrail: Guardrail,
    expected: ExpectedShares,
    requests: int,
    share: float,
    draws: np.random.Generator,
) -> Integers:
    """Increases of the fields of `Tally`, (rollouts, 8)."""
    found = np.zeros((_ROLLOUTS, 8), dtype=np.int64)
    if guardrail.comparison is Comparison.PAIRED:
        found[:, 4:] = draws.multinomial(requests, expected.pairs, _ROLLOUTS)
        return found
    others = round(requests * (1 - share) / share)
    found[:, 0] = draws.binomial(requests, expected.student_bad, _ROLLOUTS)
    found[:, 1] = requests
    found[:, 2] = draws.binomial(others, expected.teacher_bad, _ROLLOUTS)
    found[:, 3] = others
    return found


def _passes(guardrail: Guardrail, counts: Integers, error: float) -> NDArray[np.bool_]:
    evidence = log_evidence(guardrail, counts, np.full(len(counts), guardrail.limit), above=True)
    return np.asarray(evidence >= -np.log(error))

"""What a student's roles showed: each role's figures, out of trials that were taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.family_results import FamilyResults
from harness.types import RESPONSE, STEADIER_REPEAT, TPOT, TrialResult
from harness.types.roles import StudentRoles


@dataclass(frozen=True)
class RoleFigures:
    """One role: its quality, its latency, what it takes; None where it is not known."""

    role: str
    who: str
    own_texts: float | None
    """Share of the prompts that get the teacher's own text."""
    rouge_kept: float | None
    """Mean ROUGE-L over the teacher's; None without references."""
    response_ms: float | None
    """Mean per answer, one stream at a time."""
    per_token_ms: float | None
    """Mean time per token behind the first, one stream at a time."""
    tokens_per_s: float | None
    """With the most streams at once."""
    machine_s: float | None
    """Of the server, for 1,000 answers, with the most streams at once."""
    is_estimate: bool = False


@dataclass(frozen=True)
class RoleTrials:
    """A family's closed loops of all roles: the last of each model, load and round."""

    results: tuple[TrialResult, ...]

    @property
    def most(self) -> int:
        """The most streams at once."""
        return max((one.trial.workload.concurrency for one in self.results), default=1)

    @property
    def invalid(self) -> tuple[TrialResult, ...]:
        """Those that decide nothing."""
        return tuple(one for one in self.results if not one.valid)

    def of(self, variant: str, in_flight: int) -> dict[int, TrialResult]:
        """A model's valid trials at a load, by round."""
        return {
            one.trial.repeat % STEADIER_REPEAT: one
            for one in self.results
            if one.valid
            and one.trial.variant == variant
            and one.trial.workload.concurrency == in_flight
        }

    def mean(
        self, variant: str, in_flight: int, read: Callable[[TrialResult], float | None]
    ) -> float | None:
        """A figure of a model at a load, mean of the rounds that have it."""
        rounds = self.of(variant, in_flight).values()
        found = [value for one in rounds if (value := read(one)) is not None]
        return sum(found) / len(found) if found else None

    def speedups(self, roles: StudentRoles, in_flight: int) -> list[float]:
        """Time per token of the teacher alone over that with its draft, a round each."""
        alone, drafted = (self.of(one, in_flight) for one in (roles.teacher, roles.speculative))
        pairs = [
            (per_token_ms(alone[number]), per_token_ms(drafted[number]))
            for number in sorted(alone.keys() & drafted.keys())
        ]
        return [own / theirs for own, theirs in pairs if own and theirs]


def role_trials(family: FamilyResults) -> RoleTrials:
    """A family's trials of all roles; of one that was measured again the last."""
    last: dict[tuple[str, int, int], TrialResult] = {}
    for one in family.role_trials:
        trial = one.trial
        # A second measurement, after a longer warm-up, stands for the same round.
        last[trial.variant, trial.workload.concurrency, trial.repeat % STEADIER_REPEAT] = one
    return RoleTrials(tuple(last.values()))


def per_token_ms(result: TrialResult) -> float | None:
    """Mean time per token behind the first."""
    found = result.latencies.get(TPOT)
    return found.mean_ms if found else None


def _response_ms(result: TrialResult) -> float | None:
    found = result.latencies.get(RESPONSE)
    return found.mean_ms if found else None


def _tokens_per_s(result: TrialResult) -> float | None:
    return result.streams.output_tokens_per_s if result.streams else None


def _machine_s(result: TrialResult) -> float | None:
    rate = result.throughput_requests_per_s
    return _ANSWERS / rate if rate else None


_ANSWERS = 1000


def role_figures(
    family: FamilyResults, roles: StudentRoles, trials: RoleTrials
) -> Sequence[RoleFigures]:
    """The teacher alone, then the student's three roles."""
    agreement = family.score(roles.student, "agreement")
    rouge = family.score(roles.student, "rouge_l")
    share = roles.same_texts / roles.texts if roles.texts else None
    has_rouge = rouge is not None and rouge.relative_to_teacher is not None
    teacher = _measured(
        trials, "Teacher alone", roles.teacher, roles.teacher, 1.0, 1.0 if has_rouge else None
    )
    student = _measured(
        trials,
        "Replacement",
        roles.student,
        roles.student,
        agreement.value if agreement else None,
        rouge.relative_to_teacher if rouge else None,
    )
    drafted = _measured(
        trials,
        "Draft",
        roles.speculative,
        f"{roles.teacher}, drafted by {roles.student}",
        share,
        1.0 if has_rouge and roles.same_texts == roles.texts else None,
    )
    return [teacher, student, drafted, _cascade(roles, teacher, student)]


def _measured(
    trials: RoleTrials, role: str, variant: str, who: str, own: float | None, rouge: float | None
) -> RoleFigures:
    return RoleFigures(
        role,
        who,
        own,
        rouge,
        trials.mean(variant, 1, _response_ms),
        trials.mean(variant, 1, per_token_ms),
        trials.mean(variant, trials.most, _tokens_per_s),
        trials.mean(variant, trials.most, _machine_s),
    )


def _cascade(roles: StudentRoles, teacher: RoleFigures, student: RoleFigures) -> RoleFigures:
    """The student first and the teacher behind it, of what each of them took alone."""
    found = roles.cascade
    routed = found.at.routed.value if found else None

    def both(own: float | None, theirs: float | None) -> float | None:
        if own is None or theirs is None or routed is None:
            return None
        return own + routed * theirs

    return RoleFigures(
        "First stage",
        f"{roles.student}, then {roles.teacher}",
        found.at.accuracy.value if found else None,
        found.rouge_kept if found else None,
        both(student.response_ms, teacher.response_ms),
        None,
        None,
        both(student.machine_s, teacher.machine_s),
        is_estimate=True,
    )

"""A rollout of a student: what it is held to, its stages, what was seen and decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from harness.errors import DataError
from harness.types.estimates import Interval
from harness.types.variants import Decision


class BadOutcome(StrEnum):
    """What makes a request a bad one."""

    FAILED = "failed"
    """No usable answer came."""
    SLOW = "slow"
    """The answer took longer than `Guardrail.bound_ms`."""
    DISAGREES = "disagrees"
    """The student's answer is another than the teacher's, to the same request."""
    WRONG = "wrong"
    """The answer is not the true one, which the traffic must tell."""
    OWN = "own"
    """The user's: counted by a Prometheus, say."""


class Comparison(StrEnum):
    """What the student's share of bad requests is held against."""

    LIMIT = "limit"
    """A share: student <= limit."""
    TEACHER = "teacher"
    """The teacher's share among its own, other requests: student <= factor x teacher + limit."""
    PAIRED = "paired"
    """The teacher's share of the same requests: student <= factor x teacher + limit."""


@dataclass(frozen=True)
class Guardrail:
    """A share of bad requests that the student must keep to."""

    name: str
    """Unique within a rollout."""
    outcome: BadOutcome
    comparison: Comparison
    limit: float
    """Largest share of bad requests; in a comparison with the teacher a difference of shares, which
    may be negative."""
    factor: float = 1.0
    """Factor of the teacher's share, where the student is compared with it."""
    roll_back_over: float | None = None
    """The student is taken back only where it is certainly beyond this; None: beyond `limit`."""
    bound_ms: float | None = None
    """Latency beyond which a request is slow."""

    @property
    def alarm(self) -> float:
        """The limit that a rollback is decided on."""
        return self.limit if self.roll_back_over is None else self.roll_back_over

    @property
    def needs_pairs(self) -> bool:
        """Whether it can be judged only where both models answer the same requests."""
        return self.comparison is Comparison.PAIRED or self.outcome is BadOutcome.DISAGREES

    @property
    def needs_teacher(self) -> bool:
        """Whether it can be judged only while the teacher serves requests of its own."""
        return self.comparison is Comparison.TEACHER

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value of what is held against the limit."""
        return (0.0, 1.0) if self.comparison is Comparison.LIMIT else (-self.factor, 1.0)


@dataclass(frozen=True)
class Tally:
    """Counts of requests for one guardrail; those not needed for its comparison are 0."""

    student_bad: int = 0
    student_total: int = 0
    teacher_bad: int = 0
    """Bad ones of the requests that the teacher alone served, which `teacher_total` counts."""
    teacher_total: int = 0
    pairs_neither_bad: int = 0
    """Requests that both models answered and neither badly; the three that follow count the other
    pairs."""
    pairs_student_bad: int = 0
    """The student's answer was bad and the teacher's was not."""
    pairs_teacher_bad: int = 0
    pairs_both_bad: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Tally)))

    def seen(self, guardrail: Guardrail) -> int:
        """Requests of the student that bear on a guardrail; 0 where a side it needs is missing."""
        if guardrail.comparison is Comparison.PAIRED:
            return sum(self.pairs)
        if guardrail.comparison is Comparison.TEACHER and not self.teacher_total:
            return 0
        return self.student_total

    @property
    def pairs(self) -> tuple[int, int, int, int]:
        """Neither bad, only the student's, only the teacher's, both."""
        return (
            self.pairs_neither_bad,
            self.pairs_student_bad,
            self.pairs_teacher_bad,
            self.pairs_both_bad,
        )

    def check(self, guardrail: str) -> None:
        """Refuse counts that cannot be.

        Raises:
            DataError: a negative count, or more bad requests than requests.
        """
        counts = [getattr(self, one.name) for one in fields(Tally)]
        if (
            min(counts) < 0
            or self.student_bad > self.student_total
            or self.teacher_bad > self.teacher_total
        ):
            raise DataError(
                f"guardrail '{guardrail}': {self} counts more bad requests than requests, or a "
                "negative number",
                next_step="a counter may have been reset between two looks: hand in increases",
            )


@dataclass(frozen=True)
class GuardrailFinding:
    """What the evidence says of one guardrail at one look."""

    guardrail: str
    requests: int
    """Requests of the student that bear on it, since the stage began."""
    value: Interval | None
    """The student's share of bad requests; in a comparison, less factor x the teacher's. Its upper
    bound holds with the confidence of a promotion, its lower one with that of a rollback, each at
    all looks together. None without requests."""
    passes: bool
    """Certainly within the limit."""
    breaches: bool
    """Certainly beyond the limit that a rollback is decided on."""
    within: float = 0.0
    """Evidence that it is within the limit, as a share of what a promotion takes: the logarithm of
    the e-process over that of its threshold; 1 suffices."""
    beyond: float = 0.0
    """Evidence that it is beyond, as a share of what a rollback takes."""


class RolloutStep(StrEnum):
    """What a look at the evidence decides."""

    PROMOTE = "promote"
    """Go on to the next stage; at the last one, the student has taken over."""
    HOLD = "hold"
    ROLL_BACK = "roll back"
    """All traffic to the teacher, from this look on."""


class RolloutMode(StrEnum):
    """Which requests go to which model."""

    CANARY = "canary"
    """Each to one: the student answers the keys in its share, the teacher the others."""
    MIRROR = "mirror"
    """Like a canary; the teacher is also asked what the student answers, and compared."""
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

    def judged(self, stage: int) -> tuple[Guardrail, ...]:
        """The guardrails of a stage: at 100% the teacher has no requests of its own."""
        alone = self.stages[stage].share >= 1
        return tuple(one for one in self.guardrails if not (alone and one.needs_teacher))

    @property
    def breach_error(self) -> float:
        """Error rate of each guardrail at each stage; together they come to `error`."""
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
    """Counts by guardrail, since the stage began."""
    looks: int = 0
    """Number of the last look."""
    last: RolloutLook | None = None
    changes: tuple[RolloutLook, ...] = ()
    """The looks that promoted or rolled back."""

    @property
    def share(self) -> float:
        """The share of the traffic that the student is to serve now."""
        if self.status is RolloutStatus.ROLLED_BACK:
            return 0.0
        return self.plan.stages[self.stage].share


@dataclass(frozen=True)
class RolloutTraffic:
    """What is sent, fixed before the rollout starts."""

    requests: int
    """Requests per look, to both models together."""
    in_flight: int
    users: int
    """Number of keys that requests are drawn for; 0: every request has a key of its own."""
    seed: int
    through_router: bool
    """Whether a Triton model splits the traffic; otherwise the client does, by the same rule."""
    pause_s: float = 0.0
    """Between the last request of a look and reading a Prometheus."""


@dataclass(frozen=True)
class PlannedSize:
    """How many requests of the student a stage is expected to take for one guardrail."""

    guardrail: str
    requests: int | None
    """Requests needed; None where it cannot be planned, and `reason` says why."""
    reason: str = ""


@dataclass(frozen=True)
class RollbackCheck:
    """What was answered after the traffic was taken from the student."""

    requests: int
    by_student: int
    """How many of those the student answered: 0 unless the rollback had no effect."""


@dataclass(frozen=True)
class RolloutRecord:
    """A rollout so far; whole after every look."""

    family: str
    student_sha256: str
    teacher_sha256: str
    traffic: RolloutTraffic
    planned: tuple[PlannedSize, ...]
    """Sample sizes planned at the first stage, from the offline scores."""
    notes: tuple[str, ...]
    """What the rollout is not held to, and why."""
    state: RolloutState
    looks: tuple[RolloutLook, ...] = ()
    """Every look, in order."""
    looked_utc: tuple[str, ...] = ()
    """When each look was taken."""
    rollback: RollbackCheck | None = None
    """Check of the rollback; None unless the student was rolled back."""

    @property
    def plan(self) -> RolloutPlan:
        """The plan, fixed before the rollout started."""
        return self.state.plan

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """The guardrails that the student is held to."""
        return self.plan.guardrails

    @property
    def decision(self) -> Decision:
        """Pass where the student has taken over, fail where it was rolled back."""
        return {
            RolloutStatus.TAKEN_OVER: Decision.PASS,
            RolloutStatus.ROLLED_BACK: Decision.FAIL,
        }.get(self.state.status, Decision.UNDECIDED)

    def share_at(self, place: int) -> float:
        """The student's share of the traffic during a look, by its place in `looks`."""
        return self.plan.stages[self.looks[place].stage].share

"""A job of many documents with a deadline: what is asked, and what a run's variants need for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.types.costs import MeasuredMachine
from harness.types.estimates import Interval, Pricing
from harness.types.variants import Decision, Role
from harness.types.workloads import ServingConfig, WireProtocol

DAY_S = 86400.0


@dataclass(frozen=True)
class OfflineTerms:
    """A job, and what its machines are counted by. Every machine gets an equal share of it."""

    documents: int
    """Documents of one job; at least 1."""
    deadline_s: float
    """Seconds from the order of the machines until the last document has to be done."""
    rows_per_document: float = 1.0
    """Inferences that a document takes: above 1 where long ones are cut into pieces."""
    jobs_per_day: float = 1.0
    chance: float = 0.95
    """Probability with which the deadline is to be kept, 0 to 1."""
    start_s: float | None = None
    """Seconds from the order of a machine until it works; None: each variant's cold start in the
    run."""
    spread: float | None = None
    """Coefficient of variation of the machines' times; None: as the run's trials vary."""
    least_growth: float = 0.1
    """What doubling the batch has to bring, as a share, for a larger one to be worth while."""

    @property
    def rows(self) -> float:
        """Number of inferences in one job."""
        return self.documents * self.rows_per_document


class CurveSource(StrEnum):
    """Where throughput over batch size comes from."""

    SEARCH = "the run's trials"
    """Through the server, at the batch sizes that the search visited."""
    WALK = "trials at growing batch sizes"
    """Through the server, each size beside its double."""
    CARD = "the report card"
    """Measured in process, at the card's batch sizes."""
    PROCESS = "batches doubled in process"
    """Measured in process, each size beside its double."""

    @property
    def in_process(self) -> bool:
        """Whether there was no server in between."""
        return self in {CurveSource.CARD, CurveSource.PROCESS}


@dataclass(frozen=True)
class BatchPoint:
    """Throughput at one batch size."""

    batch_size: int
    inferences_per_s: Interval
    growth: Interval | None = None
    """What a doubling brought since the point before, as a share; None for the first."""
    trials: int = 0
    """How many trials through the server it rests on; 0 in process."""


@dataclass(frozen=True)
class BatchCurve:
    """Throughput over batch size, until a larger batch brings too little."""

    source: CurveSource
    points: tuple[BatchPoint, ...]
    least: float
    """What a doubling has to bring, as a share."""
    knee: int | None
    """The batch from which doubling brings too little; None where none was found."""
    ended: str
    """Why it is the knee, or why there is none."""

    @property
    def is_sure(self) -> bool:
        """Whether the interval of what the knee's doubling brings excludes that it is enough."""
        after = next((p for p in self.points if self.knee and p.batch_size > self.knee), None)
        return after is not None and after.growth is not None and after.growth.high < self.least

    def at(self, batch_size: int) -> BatchPoint | None:
        """The point of a batch size; None where it was not measured."""
        return next((one for one in self.points if one.batch_size == batch_size), None)


@dataclass(frozen=True)
class OfflineSpread:
    """How machines that do the same work differ in time."""

    machines: Interval
    """Coefficient of variation from one machine to the next, over a whole job."""
    seconds: float
    """Spread of the throughput from second to second, which averages out over a job."""
    basis: str
    """What the spread rests on, in words."""


@dataclass(frozen=True)
class MachineNeed:
    """Machines of one instance type for a variant's job, and how it then ends."""

    pricing: Pricing | None
    """Price of a machine; None where nothing is priced: machines are like the one that was
    measured."""
    inferences_per_s: Interval
    """Throughput of one machine; estimated where the pricing says so."""
    even: Interval
    """Machines, if all were equally fast: at the rate measured, its upper and its lower bound."""
    with_stragglers: Interval
    """Machines whose slowest is in time with the chance that is asked for."""
    with_loss: Interval
    """Machines needed where one is lost just before it has finished, and the others do its work
    again."""
    finish_s: Interval
    """Seconds from the order of `recommended` machines to the last document: median, and the 2.5th
    and 97.5th percentile, the rate's own uncertainty included."""
    finish_with_loss_s: Interval
    in_time: Interval
    """Chance that `recommended` machines keep the deadline: at the rate measured and its bounds."""
    in_time_with_loss: Interval
    jobs_per_hour: Interval
    """Jobs per hour of one machine."""
    usd_per_job: Interval | None = None
    usd_per_month: Interval | None = None

    @property
    def recommended(self) -> int:
        """The number of machines that surely suffice with one of them lost."""
        return round(self.with_loss.high)

    @property
    def instance(self) -> str:
        """Instance type; empty where nothing is priced."""
        return self.pricing.instance if self.pricing else ""

    @property
    def is_estimate(self) -> bool:
        """Whether the throughput on that type was not measured."""
        return self.pricing is not None and self.pricing.is_estimate


@dataclass(frozen=True)
class OfflineVariant:
    """One variant at the batch size that is worth while, and the machines it needs."""

    family: str
    variant: str
    role: Role
    sha256: str
    quality: Decision
    """Decision on the objective's clauses on quality; those on latency do not count here."""
    quality_reason: str
    serving: ServingConfig
    protocol: WireProtocol
    batch_size: int
    in_flight: int
    trial_ids: tuple[str, ...]
    """What the rate rests on."""
    inferences_per_s: Interval
    """Throughput on the machine that was measured."""
    start_s: float
    spread: OfflineSpread
    served: BatchCurve
    in_process: BatchCurve | None
    """Throughput in process; None where the run has no such measurement."""
    needs: tuple[MachineNeed, ...]


@dataclass(frozen=True)
class OfflineLeftOut:
    """A variant, or a variant on one instance type, without machines, and what would give them."""

    family: str
    variant: str
    instance: str
    """Instance type that is left out; empty for all types."""
    reason: str
    next_step: str


@dataclass(frozen=True)
class OfflineChoice:
    """What to run the job of a family on."""

    family: str
    variant: str
    """Name of the recommended variant; empty where nothing is recommended."""
    instance: str
    reason: str


@dataclass(frozen=True)
class OfflinePlan:
    """The answer for one job. Money is US dollars."""

    terms: OfflineTerms
    measured_on: MeasuredMachine
    variants: tuple[OfflineVariant, ...]
    left_out: tuple[OfflineLeftOut, ...]
    choices: tuple[OfflineChoice, ...]
    """One choice per family."""
    draws: int
    """Simulated jobs behind each finishing time."""
    seed: int
    notes: tuple[str, ...]

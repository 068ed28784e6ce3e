"""What serving costs, as it is stored in a run folder. Money is US dollars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from harness.types.estimates import Demand, Interval, Pricing
from harness.types.variants import Role

HORIZON_MONTHS = 12.0
"""Months in which an investment in distillation is to have paid for itself, unless others are
asked."""


@dataclass(frozen=True)
class MeasuredMachine:
    """The machine that a run was measured on."""

    instance: str
    """Instance type; empty where it is not known."""
    vcpu: int
    """Virtual CPUs that the run could use; 0 where its manifest does not say."""
    accelerator: str
    """Kind of accelerator; the driver's own name where the kind is not known, empty for none."""
    accelerators: int

    @property
    def title(self) -> str:
        """The machine in a few words: `g5.xlarge`, or `a machine with 2 vCPUs`."""
        if self.instance:
            return self.instance
        cpus = "1 vCPU" if self.vcpu == 1 else f"{self.vcpu or 'an unknown number of'} vCPUs"
        with_what = f"{self.accelerators} {self.accelerator}" if self.accelerator else cpus
        return f"a machine with {with_what}"


@dataclass(frozen=True)
class MachineFleet:
    """The machines that a demand needs, and what they cost per month of 730 hours."""

    machines: Interval
    """Whole machines: at the rate measured, at its upper and at its lower bound."""
    usd_per_month: Interval
    utilisation: float
    """Share of the fleet's throughput that the mean demand takes, at the rate measured."""


@dataclass(frozen=True)
class BreakEven:
    """When a distillation has paid for itself."""

    invested_usd: float
    """Cost of training and engineering."""
    months: float | None
    """Months at the savings measured; None: never, for nothing is saved."""
    earliest_months: float | None
    """Months at the greatest savings that the intervals allow; None: never."""
    latest_months: float | None
    """Months at the least savings that the intervals allow; None: perhaps never."""
    horizon_months: float
    return_on_investment: Interval | None
    """Savings over the horizon less what was invested, over what was invested; None where nothing
    was."""


@dataclass(frozen=True)
class VariantCost:
    """What a variant costs on one instance type, at the highest load that meets the objective."""

    family: str
    variant: str
    role: Role
    trial_id: str
    """The trial that it rests on."""
    confirmed: bool
    rows_per_request: float
    cloud: str
    region: str
    pricing: Pricing
    price_date: date
    inferences_per_s: Interval
    """Throughput of one machine of that type; estimated where the pricing says so."""
    usd_per_million_inferences: Interval
    usd_per_million_tokens: Interval | None
    """Cost per million tokens; None where the tokens of a row are not known."""
    fleet: MachineFleet | None
    """The machines for the demand; None where no demand was given."""
    tokens_per_inference: float | None = None
    """Mean tokens of a row, padding not counted; None where they are not known."""
    usd_per_million_output_tokens: Interval | None = None
    """US dollars per million output tokens of streams: the whole machine's cost over the tokens it
    writes, reading the prompts included. Not to be added to the cost per input token."""
    usd_per_million_input_tokens: Interval | None = None
    """US dollars per million input tokens of streams: the whole machine's cost over the tokens of
    the prompts, writing the answers included."""

    @property
    def instance(self) -> str:
        """Name of the instance type."""
        return self.pricing.instance

    @property
    def is_estimate(self) -> bool:
        """Whether the throughput on that type was not measured."""
        return self.pricing.is_estimate


@dataclass(frozen=True)
class Unpriced:
    """A variant, or a variant on one instance type, that has no cost, and what would give it."""

    family: str
    variant: str
    instance: str
    """Instance type that it has no price on; empty where it has none on any."""
    reason: str
    next_step: str


@dataclass(frozen=True)
class Saving:
    """A student in the teacher's place on the same instance type; negative where it costs more."""

    family: str
    teacher: str
    student: str
    instance: str
    is_estimate: bool
    usd_per_million_inferences: Interval
    share: Interval
    """Share of the teacher's cost per million that is saved, by the throughputs measured: scaling
    to another type is taken to be the same for both."""
    usd_per_month: Interval | None
    """Savings per month; None where no demand was given, or a plan counts the machines of one of
    the two alone: its machines have spare ones, the other's have none."""
    break_even: BreakEven | None
    """When the investment pays off; None where there are no savings per month, or neither training
    nor engineering cost was given."""


@dataclass(frozen=True)
class CostReport:
    """Every cost of a run, and what had none. Money is US dollars."""

    measured_on: MeasuredMachine
    demand: Demand | None
    costs: tuple[VariantCost, ...]
    savings: tuple[Saving, ...]
    unpriced: tuple[Unpriced, ...]
    notes: tuple[str, ...]
    planned: bool = False
    """Whether machines are a capacity plan's, headroom included; else as many as the peak fills."""

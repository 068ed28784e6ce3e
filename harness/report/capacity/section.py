"""A capacity plan, ready for the report's page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.capacity.plots import rate_plots
from harness.report.capacity.tables import demand_words, replicas_table, trust_table
from harness.report.plots.base import Plot
from harness.report.tables.model import Table
from harness.types.capacity import CapacityPlan


@dataclass(frozen=True)
class CapacitySection:
    """What is shown of a plan, in order."""

    demand: str
    replicas: Table
    leading: tuple[Plot, ...]
    """Latency over rate of the first deployment of each family."""
    others: tuple[Plot, ...]
    """The same of the other deployments."""
    trust: Table
    left_out: tuple[str, ...]

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot, in order."""
        return self.leading + self.others

    @property
    def left_out_names(self) -> str:
        """The variants without a plan."""
        return ", ".join(line.partition(":")[0] for line in self.left_out)


def capacity_section(plan: CapacityPlan) -> CapacitySection:
    """Choose and word a plan."""
    plots = rate_plots(plan)
    families = [one.family for one in plan.deployments]
    first = {families.index(name) for name in families}
    return CapacitySection(
        demand=demand_words(plan),
        replicas=replicas_table(plan),
        leading=tuple(plot for place, plot in enumerate(plots) if place in first),
        others=tuple(plot for place, plot in enumerate(plots) if place not in first),
        trust=trust_table(plan),
        left_out=plan.left_out,
    )

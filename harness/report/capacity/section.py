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
    plots: tuple[Plot, ...]
    trust: Table
    left_out: tuple[str, ...]


def capacity_section(plan: CapacityPlan) -> CapacitySection:
    """Choose and word a plan."""
    return CapacitySection(
        demand=demand_words(plan),
        replicas=replicas_table(plan),
        plots=rate_plots(plan),
        trust=trust_table(plan),
        left_out=plan.left_out,
    )

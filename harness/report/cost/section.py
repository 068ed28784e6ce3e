"""The costs of a run, ready for the report's page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.cost.plots import cost_plots
from harness.report.cost.tables import costs_table, rules_of, savings_table
from harness.report.plots.base import Plot
from harness.report.tables.model import Table
from harness.types.costs import CostReport, Unpriced


@dataclass(frozen=True)
class CostSection:
    """What is shown of costs, in order."""

    costs: Table
    plots: tuple[Plot, ...]
    savings: Table | None
    """Table of savings; None where no student stands beside its teacher."""
    unpriced: tuple[str, ...]
    notes: tuple[str, ...]


def cost_section(report: CostReport) -> CostSection:
    """Choose and word a run's costs."""
    return CostSection(
        costs=costs_table(report),
        plots=cost_plots(report),
        savings=savings_table(report) if report.savings else None,
        unpriced=tuple(_words(one) for one in report.unpriced),
        notes=(*rules_of(report), *report.notes),
    )


def _words(one: Unpriced) -> str:
    on = f" on {one.instance}" if one.instance else ""
    return f"{one.variant}{on}: {one.reason}; {one.next_step}"

"""Autoscaling policies, ready for the report's page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.report.autoscaling.plots import autoscaling_plots
from harness.report.autoscaling.tables import (
    chosen_words,
    measured_table,
    policies_table,
    terms_words,
    trace_words,
)
from harness.report.plots.base import Plot
from harness.report.tables.model import Table
from harness.types.autoscaling import AutoscalePlan


@dataclass(frozen=True)
class AutoscalingSection:
    """What is shown of the policies, in order."""

    objective: str
    trace: str
    terms: str
    chosen: str
    policies: Table
    plots: tuple[Plot, ...]
    notes: tuple[str, ...]
    measured: Table | None
    """The policy on real replicas; None where it was only simulated."""
    manifests: Mapping[str, str]
    """Manifests by file name."""


def autoscaling_section(plan: AutoscalePlan) -> AutoscalingSection:
    """Choose and word what was simulated."""
    return AutoscalingSection(
        objective=plan.objective,
        trace=trace_words(plan.trace),
        terms=terms_words(plan),
        chosen=chosen_words(plan),
        policies=policies_table(plan),
        plots=autoscaling_plots(plan),
        notes=notes_of(plan),
        measured=measured_table(plan.live, plan.terms.machine) if plan.live else None,
        manifests=plan.manifests,
    )


def notes_of(plan: AutoscalePlan) -> tuple[str, ...]:
    """What to know: where a price is an estimate, and what the simulation assumes."""
    pricing = plan.pricing
    if pricing is None or not pricing.is_estimate:
        return plan.notes
    return (f"the cost on {pricing.instance} is an {pricing.rule}", *plan.notes)

"""A job with a deadline, ready for the report's page and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.offline.plots import offline_plots
from harness.report.offline.tables import (
    beside_teacher,
    choice_words,
    curves_table,
    needs_table,
    variant_words,
)
from harness.report.plots.base import Plot
from harness.report.tables.model import Table
from harness.types.offline import OfflinePlan


@dataclass(frozen=True)
class OfflineSection:
    """What is shown of the job, in order."""

    choices: tuple[str, ...]
    beside: tuple[str, ...]
    """The recommended students beside their teachers."""
    needs: Table
    curves: Table
    plots: tuple[Plot, ...]
    variants: tuple[str, ...]
    """What each variant's numbers rest on."""
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def offline_section(plan: OfflinePlan) -> OfflineSection:
    """Choose and word what was counted."""
    return OfflineSection(
        choices=tuple(choice_words(plan, one) for one in plan.choices),
        beside=beside_teacher(plan),
        needs=needs_table(plan),
        curves=curves_table(plan),
        plots=offline_plots(plan),
        variants=tuple(variant_words(one) for one in plan.variants),
        left_out=left_out_words(plan),
        notes=notes_of(plan),
    )


def left_out_words(plan: OfflinePlan) -> tuple[str, ...]:
    """Each variant without machines, why, and what would give them."""
    return tuple(
        f"{one.variant}{f' on {one.instance}' if one.instance else ''}: {one.reason}; "
        f"{one.next_step}"
        for one in plan.left_out
    )


def notes_of(plan: OfflinePlan) -> tuple[str, ...]:
    """What to know: how the rate on each type was estimated, and what was assumed."""
    rules = (
        f"{need.instance}: {need.pricing.rule}"
        for one in plan.variants
        for need in one.needs
        if need.pricing is not None and need.is_estimate
    )
    return (*dict.fromkeys(rules), *plan.notes)

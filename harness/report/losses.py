"""A family's part of the report on where quality was lost, in the order it is shown."""

from __future__ import annotations

from dataclasses import dataclass

from harness.losses import LossEntry
from harness.report.loss_tables import (
    augmentation_hint,
    chain_table,
    examples_table,
    pairs_by_chance,
    pairs_table,
    shifts_table,
    slices_table,
)
from harness.report.plot_losses import confusions_plot, slices_plot
from harness.report.plot_waterfall import waterfall_plots
from harness.report.plots import Plot
from harness.report.selection import FamilyResults
from harness.report.tables import Table
from harness.types import Role


@dataclass(frozen=True)
class VariantLosses:
    """Slices, confusions and examples of one variant."""

    variant: str
    hint: str
    slices: Plot | None
    slice_table: Table | None
    confusions: Plot | None
    shifts: Table | None
    examples: Table | None
    shown: bool
    """Whether it stands open: of the recommended variant, else of the first student."""

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Those there are."""
        return tuple(plot for plot in (self.slices, self.confusions) if plot)


@dataclass(frozen=True)
class LostQuality:
    """All of a family."""

    pairs: Table | None
    waterfalls: tuple[Plot, ...]
    chain: Table | None
    variants: tuple[VariantLosses, ...]

    @property
    def plots(self) -> tuple[Plot, ...]:
        """Every plot of the part."""
        return (*self.waterfalls, *(plot for one in self.variants for plot in one.plots))


def lost_quality(family: FamilyResults) -> LostQuality | None:
    """What a run knows of it; None of runs that did not ask."""
    pairs, chain = pairs_table(family), chain_table(family)
    detailed = [entry for entry in family.losses if entry.slices or entry.examples]
    if pairs is None and chain is None and not detailed:
        return None
    leading = _leading(family, detailed)
    detailed.sort(key=lambda entry: entry.variant != leading)
    return LostQuality(
        pairs=pairs_by_chance(family, pairs) if pairs else None,
        waterfalls=waterfall_plots(family),
        chain=chain,
        variants=tuple(
            VariantLosses(
                variant=entry.variant,
                hint=augmentation_hint(entry),
                slices=slices_plot(family, entry),
                slice_table=slices_table(family, entry),
                confusions=confusions_plot(family, entry),
                shifts=shifts_table(entry),
                examples=examples_table(entry),
                shown=entry.variant == leading,
            )
            for entry in detailed
        ),
    )


def _leading(family: FamilyResults, entries: list[LossEntry]) -> str:
    names = [entry.variant for entry in entries]
    recommended = family.recommended.trial.variant if family.recommended else ""
    students = [name for name in names if family.role(name) is Role.STUDENT]
    return recommended if recommended in names else next(iter([*students, *names]), "")

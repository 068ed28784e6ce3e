"""Tables of a family's lost quality: beside the teacher, along the chain, by slice, by example."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.family_results import FamilyResults, loss_metric
from harness.report.plots.base import Plot
from harness.report.plots.losses import confusions_plot, slices_plot, waterfall_plots
from harness.report.tables.model import Cell, Column, Table, lines, numeric, words
from harness.types import Role
from harness.types.losses import LossEntry, PairedMeasure, SliceLoss
from harness.words.labels import (
    MEASURES,
    UNITS,
    lost,
    lost_span,
    measure_span,
    measure_words,
    step_title,
    unit_of,
)
from harness.words.numbers import (
    MISSING,
    cosine,
    count,
    metric_value,
    number,
    p_value,
    percent,
    things,
)

_SIGNIFICANT = 0.05
_MOST_SLICES = 12
_WRONG_ANSWERS = frozenset(
    {"wrong_answer", "non_finite", "missing_output", "empty_output", "wrong_datatype"}
    | {"wrong_shape", "wrong_size"}
)
"""Kinds of failure that are answers, and wrong ones."""


def pairs_table(family: FamilyResults) -> Table | None:
    """A row per variant, a column per measure; None where nothing was compared."""
    shown = [name for name in MEASURES if any(one.measure == name for one in family.pairs)]
    if not shown:
        return None
    known = {(one.variant, one.measure): one for one in family.pairs}
    variants = [n for n in family.names if any((n, measure) in known for measure in shown)]
    return Table(
        caption=f"Compared with the teacher, sample by sample: {family.name}",
        columns=(
            Column("Variant", numeric=False),
            *(Column(MEASURES[name], UNITS.get(name, "")) for name in shown),
        ),
        rows=tuple(
            (words(name), *(_measure_cell(known.get((name, measure))) for measure in shown))
            for name in variants
        ),
        note=_pairs_note(shown),
    )


def _pairs_note(shown: list[str]) -> str:
    note = "In small type: 95% intervals, both models on the same samples."
    if "ece" in shown:
        note += (
            " Kappa is Cohen's; KL the divergence from the teacher's distribution. ECE: 15 bins of "
            "equally many samples; in small type, what a perfectly calibrated model would show at "
            "most, by chance. The temperature was fitted on half of the samples; ECE after "
            "scaling is the other half's."
        )
    return note


def _measure_cell(one: PairedMeasure | None) -> Cell:
    if one is None:
        return Cell(MISSING)
    detail = measure_span(one.measure, one.low, one.high)
    return numeric(measure_words(one.measure, one.value), one.value, detail)


def pairs_by_chance(family: FamilyResults, table: Table) -> Table:
    """The pairs, each with the ECE that chance alone would show."""
    place = next((i for i, c in enumerate(table.columns) if c.title == MEASURES["ece"]), None)
    chance = {o.variant: o.value for o in family.pairs if o.measure == "ece_by_chance"}
    if place is None or not chance:
        return table
    rows = []
    for row in table.rows:
        cell, value = row[place], chance.get(row[0].text)
        if value is not None:
            cell = Cell(cell.text, detail=f"chance {percent(value)}", sort=cell.sort)
        rows.append((*row[:place], cell, *row[place + 1 :]))
    return Table(table.caption, table.columns, tuple(rows), table.note, table.sortable)


def chain_table(family: FamilyResults) -> Table | None:
    """A row per variant, a column per step of its making; None where no chain was asked."""
    entries = [entry for entry in family.losses if entry.chain or entry.problem]
    chains = [entry.chain for entry in entries if entry.chain]
    if not chains:
        return None
    steps = _steps(entries)
    metric = chains[0].metric
    columns = [
        Column("Variant", numeric=False),
        Column("Teacher", "in PyTorch"),
        *(Column(step_title(step), unit_of(metric)) for step in steps),
        Column("In all", unit_of(metric)),
        Column("Served"),
        Column("Under load", "wrong answers"),
    ]
    samples = ", ".join(dict.fromkeys(count(chain.samples) for chain in chains))
    return Table(
        caption=f"Where the quality of {family.name} went",
        columns=tuple(columns),
        rows=tuple(_chain_row(family, entry, steps) for entry in entries),
        note=f"Each step on the same {samples} samples, against the step before; the steps add up "
        "to the whole. Export and quantisation are asked in this process, serving is the endpoint "
        "at batch 1, batching at batch 16. In small type: 95% intervals, and samples that changed. "
        "Under load every answer's form was checked, and those to the requests at the head of the "
        "pool were compared with what an independent client had been answered.",
    )


def _steps(entries: list[LossEntry]) -> list[str]:
    """Every step but the teacher's, in the order of the making."""
    order = ["distillation", "training", "export", "quantisation", "half precision"]
    order += ["export+quantisation", "export+half precision", "serving", "batching"]
    present = {link.step for entry in entries if entry.chain for link in entry.chain.links}
    return [step for step in order if step in present]


def _chain_row(family: FamilyResults, entry: LossEntry, steps: list[str]) -> tuple[Cell, ...]:
    chain = entry.chain
    if chain is None:
        return (words(entry.variant, entry.problem), *[Cell(MISSING)] * (len(steps) + 4))
    links = {link.step: link for link in chain.links}
    cells = [words(entry.variant), Cell(metric_value(chain.metric, chain.links[0].quality))]
    for step in steps:
        link = links.get(step)
        if link is None:
            cells.append(Cell(MISSING))
            continue
        detail = lines(
            lost_span(chain.metric, link.loss),
            f"{count(link.changed)} changed" if link.changed else "",
            "" if link.cosine is None else f"cosine {cosine(link.cosine)}",
        )
        cells.append(numeric(lost(chain.metric, link.loss.value), link.loss.value, detail))
    total = chain.total
    cells.append(
        numeric(lost(chain.metric, total.value), total.value, lost_span(chain.metric, total))
    )
    cells.append(Cell(metric_value(chain.metric, chain.links[-1].quality)))
    return (*cells, _load_cell(family, entry.variant))


def _load_cell(family: FamilyResults, name: str) -> Cell:
    """What the checks of every answer saw while the variant was under load."""
    trials = family.trials_of(name)
    wrong = sum(
        number_of
        for trial in trials
        for kind, number_of in trial.failures_by_kind.items()
        if kind in _WRONG_ANSWERS
    )
    answers = sum(trial.requests for trial in trials) + wrong
    if not answers:
        return Cell(MISSING)
    tone, symbol = ("undecided", "≠") if wrong else ("pass", "✓")
    return Cell(count(wrong), detail=f"of {count(answers)}", sort=wrong, tone=tone, symbol=symbol)


def slices_table(family: FamilyResults, entry: LossEntry) -> Table | None:
    """The slices on which a variant falls furthest; the rest is in slices.csv."""
    if not entry.slices:
        return None
    metric = loss_metric(family, entry)
    shown = entry.slices[:_MOST_SLICES]
    trained = any(one.training_samples is not None for one in entry.slices)
    columns = [
        Column("Slice", numeric=False),
        Column("Samples"),
        Column("Teacher"),
        Column("Variant"),
        Column("Change", unit_of(metric)),
        Column("Further than elsewhere", "Holm p"),
    ]
    columns += [Column("Training samples")] if trained else []
    return Table(
        caption=f"Where {entry.variant} falls furthest",
        columns=tuple(columns),
        rows=tuple(_slice_row(one, metric, trained=trained) for one in shown),
        note=_slices_note(entry, len(shown)),
    )


def _slices_note(entry: LossEntry, shown: int) -> str:
    note = (
        f"The {shown} of {things(len(entry.slices), 'slice')} with the greatest loss, those "
        "with too few samples for an interval last; all are in slices.csv."
    )
    if any(one.p_value is not None for one in entry.slices):
        note += (
            " The p-value asks whether the loss here exceeds that on all other samples (Welch, "
            "one-sided), corrected over all slices by Holm's method, which holds although slices "
            "overlap."
        )
    if few := sum(one.loss.low is None for one in entry.slices):
        note += f" With too few for an interval, and not tested: {things(few, 'slice')}."
    return note


def _slice_row(one: SliceLoss, metric: str, *, trained: bool) -> tuple[Cell, ...]:
    small = one.loss.low is None
    further = one.p_value is not None and one.p_value < _SIGNIFICANT
    cells = [
        words(one.name, one.slicing),
        numeric(count(one.samples), one.samples),
        Cell(metric_value(metric, one.teacher)),
        Cell(metric_value(metric, one.variant)),
        numeric(
            lost(metric, one.loss.value),
            one.loss.value,
            "too few for an interval" if small else lost_span(metric, one.loss),
        ),
        Cell(
            p_value(one.p_value),
            sort=one.p_value,
            tone="fail" if further else "",
            symbol="▼" if further else "",
        ),
    ]
    return (
        (*cells, numeric(count(one.training_samples), one.training_samples))
        if trained
        else (*cells,)
    )


def augmentation_hint(entry: LossEntry) -> str:
    """Which slices to collect or make more training data for, as far as the samples tell.

    Nothing where no slice was tested: entities and vectors are not, nor is what is too small.
    """
    tested = [(one, one.p_value) for one in entry.slices if one.p_value is not None]
    further = [one for one, p_value in tested if p_value < _SIGNIFICANT]
    if not tested:
        return ""
    if not further:
        return (
            f"No slice of {entry.variant} is shown to lose more than the others: more training "
            "data of one kind is not what the samples call for."
        )
    named = []
    for one in further[:3]:
        seen = one.training_samples
        known = "" if seen is None else f" ({count(seen)} training samples)"
        named.append(f"{one.slicing} {one.name}{known}")
    return (
        f"{entry.variant} loses more than elsewhere on {'; '.join(named)}: more training data "
        "there, labelled by the teacher, is the first thing to try."
    )


def shifts_table(entry: LossEntry) -> Table | None:
    """Which class is now taken for which."""
    if not entry.shifts:
        return None
    return Table(
        caption=f"Confusions that {entry.variant} makes more often",
        columns=(
            Column("Class", numeric=False),
            Column("Taken for", numeric=False),
            Column("Teacher", "samples"),
            Column("Variant", "samples"),
        ),
        rows=tuple(
            (
                words(one.label),
                words(one.taken_for),
                numeric(count(one.teacher), one.teacher),
                numeric(count(one.variant), one.variant),
            )
            for one in entry.shifts
        ),
    )


def examples_table(entry: LossEntry) -> Table | None:
    """The samples on which a variant falls furthest."""
    if not entry.examples:
        return None
    labelled = any(one.label for one in entry.examples)
    columns = [Column("Row", "from 0", numeric=False), Column("Text", numeric=False)]
    if labelled:
        columns += [Column(title, numeric=False) for title in ("Label", "Teacher", "Variant")]
    unit = entry.examples_in or ("nats" if labelled else "nats per token")
    columns.append(Column("Lost", unit.removeprefix("loss in ")))
    rows = []
    for one in entry.examples:
        cells = [words(count(one.row)), words(one.text)]
        if labelled:
            cells += [words(one.label), words(one.teacher_says), words(one.variant_says)]
        rows.append((*cells, numeric(number(one.loss), one.loss)))
    if entry.examples_in:
        note = f"Samples whose {entry.examples_in} grew most"
    else:
        what = "right with the teacher, wrong with the variant" if labelled else "windows"
        note = f"Samples ({what}) whose right answer became the least probable"
    return Table(
        caption=f"Worst examples of {entry.variant}",
        columns=tuple(columns),
        rows=tuple(rows),
        note=f"{note}; rows are counted from 0 among those scored, and texts are shortened.",
    )


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
        """The plots that there are."""
        return tuple(plot for plot in (self.slices, self.confusions) if plot)


@dataclass(frozen=True)
class LostQuality:
    """Where one family lost quality: all its tables."""

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

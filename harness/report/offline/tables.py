"""A job with a deadline as tables and in words."""

from __future__ import annotations

from harness.report.cost.words import basis, bounded, bounds
from harness.report.tables.model import (
    Cell,
    Column,
    Table,
    decision_cell,
    lines,
    numeric,
    trial_anchor,
)
from harness.types import Role
from harness.types.estimates import Interval
from harness.types.offline import (
    BatchCurve,
    MachineNeed,
    OfflineChoice,
    OfflinePlan,
    OfflineTerms,
    OfflineVariant,
)
from harness.words.labels import protocol_name, serving_words
from harness.words.numbers import (
    MISSING,
    asked,
    asked_percent,
    count,
    number,
    percent,
    seconds,
    span,
    things,
    whole,
)

RECOMMENDED = "recommended"
_HOUR_S, _MINUTE_S, _MILLION = 3600.0, 60.0, 1e6


def needs_table(plan: OfflinePlan, *, brief: bool = False) -> Table:
    """A row per variant and instance type: the teacher beside its students.

    Args:
        plan: the answer.
        brief: without what a terminal has no room for.
    """
    priced = any(need.usd_per_job for one in plan.variants for need in one.needs)
    rows = [(one, need) for one in plan.variants for need in one.needs]
    full = not brief
    return Table(
        caption=f"Machines for {job_words(plan.terms)}",
        columns=(
            Column("Variant", numeric=False),
            *((Column("Instance type", numeric=False),) if priced else ()),
            Column("Quality", numeric=False),
            Column("Take", "machines"),
            Column("Done after", "one lost"),
            *((Column("Cost of a job", "USD"),) if priced else ()),
            Column("Documents", "million per hour"),
            Column("Jobs", "per hour"),
            *((Column("Machines", "all equally fast"),) if full else ()),
            Column("Machines", "with stragglers"),
            *((Column("Machines", "one of them lost"),) if full else ()),
            *((Column("Per month", "USD"),) if priced and full else ()),
        ),
        rows=tuple(_row(plan, one, need, priced=priced, full=full) for one, need in rows),
        note=_note(plan),
        sortable=True,
    )


def _row(
    plan: OfflinePlan, one: OfflineVariant, need: MachineNeed, *, priced: bool, full: bool
) -> tuple[Cell, ...]:
    chosen = any(
        (choice.family, choice.variant, choice.instance) == (one.family, one.variant, need.instance)
        for choice in plan.choices
    )
    standing = f"\n{RECOMMENDED}" if chosen else ""
    link = f"#{trial_anchor(one.trial_ids[0])}" if one.trial_ids else ""
    after = need.finish_with_loss_s
    return (
        Cell(one.variant, detail=f"batch {count(one.batch_size)}{standing}", link=link),
        *([_instance(need)] if priced else []),
        decision_cell(one.quality),
        numeric(count(need.recommended), need.recommended),
        numeric(
            duration(after.value), after.value, span(duration(after.low), duration(after.high))
        ),
        *([_cell(need.usd_per_job)] if priced else []),
        _cell(_times(need.jobs_per_hour, plan.terms.documents / _MILLION)),
        _cell(need.jobs_per_hour),
        *([_machines(need.even)] if full else []),
        _machines(need.with_stragglers),
        *([_machines(need.with_loss)] if full else []),
        *([_cell(need.usd_per_month)] if priced and full else []),
    )


def _instance(need: MachineNeed) -> Cell:
    price = "" if need.pricing is None else f"; {asked(need.pricing.usd_per_hour)} USD/h"
    return Cell(need.instance, detail=f"{basis(is_estimate=need.is_estimate)}{price}")


def _times(value: Interval, factor: float) -> Interval:
    return Interval(value.value * factor, value.low * factor, value.high * factor)


def _cell(value: Interval | None) -> Cell:
    if value is None:
        return Cell(MISSING)
    return numeric(number(value.value), value.value, bounds(value))


def _machines(value: Interval) -> Cell:
    return numeric(whole(value.value), value.value, bounds(value, whole))


def _note(plan: OfflinePlan) -> str:
    return (
        "In small type: the interval; of machines, at the favourable and at the unfavourable "
        "bounds of the rate and of how machines differ. Documents and jobs per hour are those of "
        "one machine. With stragglers: the slowest is in time with "
        f"{asked_percent(plan.terms.chance)} chance. One of them lost: just before it has "
        "finished, and the others do its work again. Take: as many as are sure to do that at the "
        "unfavourable bounds. A job costs each machine until its own share is done."
    )


def curves_table(plan: OfflinePlan) -> Table:
    """A row per variant and batch size: through the server and in process."""
    rows = []
    for one in plan.variants:
        inside = one.in_process
        sizes = {point.batch_size for curve in (one.served, inside) if curve
                 for point in curve.points}  # fmt: skip
        for size in sorted(sizes):
            mark = RECOMMENDED if size == one.batch_size else ""
            rows.append(
                (
                    Cell(f"{one.variant}", detail=mark),
                    numeric(count(size), size),
                    *_point(one.served, size),
                    *_point(inside, size),
                )
            )
    return Table(
        caption="Throughput over batch size",
        columns=(
            Column("Variant", numeric=False),
            Column("Batch"),
            Column("Through the server", "inferences/s"),
            Column("A doubling brings"),
            Column("In process", "inferences/s"),
            Column("A doubling brings"),
        ),
        rows=tuple(rows),
        note="Recommended: the batch from which doubling brings less than "
        f"{asked_percent(plan.terms.least_growth)} through the server, or the fastest where no "
        "such batch was found. Intervals in small type; in process the range of the rounds.",
    )


def _point(curve: BatchCurve | None, size: int) -> tuple[Cell, Cell]:
    point = curve.at(size) if curve else None
    if curve is None or point is None:
        return Cell(MISSING), Cell(MISSING)
    growth = point.growth
    rate = point.inferences_per_s
    detail = lines(bounds(rate), "knee" if curve.knee == size else "")
    return (
        numeric(number(rate.value), rate.value, detail),
        Cell(MISSING)
        if growth is None
        else numeric(percent(growth.value), growth.value, bounds(growth, percent)),
    )


def job_words(terms: OfflineTerms) -> str:
    """`10,000,000 documents within 6 h`."""
    rows = ""
    if terms.rows_per_document != 1:
        rows = f", {asked(terms.rows_per_document)} rows each,"
    return f"{count(terms.documents)} documents{rows} within {duration(terms.deadline_s)}"


def duration(length_s: float) -> str:
    """A length of time in the unit that suits it: `6.00 h`, `12.5 min`, `0.45 s`."""
    for unit_s, unit in ((_HOUR_S, "h"), (_MINUTE_S, "min")):
        if length_s >= unit_s:
            return f"{number(length_s / unit_s)} {unit}"
    return f"{seconds(length_s)} s"


def choice_words(plan: OfflinePlan, choice: OfflineChoice) -> str:
    """What to run a family's job on, and how that ends."""
    if not choice.variant:
        return f"{choice.family}: nothing is recommended: {choice.reason}."
    one = next(v for v in plan.variants if v.variant == choice.variant)
    need = next(n for n in one.needs if n.instance == choice.instance)
    machines = things(need.recommended, f"{need.instance} machine".strip())
    chance = need.in_time_with_loss
    return (
        f"{choice.family}: {one.variant} at batch {count(one.batch_size)} on "
        f"{machines}; with one lost it is in time with a chance of "
        f"{bounded(chance, percent)}. It is {choice.reason}."
    )


def beside_teacher(plan: OfflinePlan) -> tuple[str, ...]:
    """What each family's recommended variant takes beside its teacher's cheapest, in words."""
    said = []
    for choice in plan.choices:
        own = [one for one in plan.variants if one.family == choice.family]
        student = next((one for one in own if one.variant == choice.variant), None)
        pairs = [
            (one, need)
            for one in own
            if one.role is Role.TEACHER
            for need in one.needs
            if need.instance == choice.instance
        ]
        if student is None or student.role is Role.TEACHER or not pairs:
            continue
        its = next(need for need in student.needs if need.instance == choice.instance)
        teacher, theirs = min(pairs, key=_least)
        needed = bounded(theirs.with_loss, whole)
        words = f"{teacher.variant} needs {needed} {'machine' if needed == '1' else 'machines'}"
        words += f" where {student.variant} needs {bounded(its.with_loss, whole)}"
        if theirs.usd_per_job and its.usd_per_job:
            words += (
                f", and {bounded(theirs.usd_per_job)} USD per job instead of "
                f"{bounded(its.usd_per_job)}"
            )
        said.append(words)
    return tuple(said)


def _least(pair: tuple[OfflineVariant, MachineNeed]) -> float:
    """The option with the lowest cost per job, or the fewest machines where none is priced."""
    return (pair[1].usd_per_job or pair[1].with_loss).value


def variant_words(one: OfflineVariant) -> str:
    """How a variant is run, and what its numbers rest on."""
    trials = things(len(one.trial_ids), "trial")
    return (
        f"{one.variant}: {bounded(one.inferences_per_s)} inferences/s at batch "
        f"{count(one.batch_size)}, {count(one.in_flight)} in flight over "
        f"{protocol_name(one.protocol)} ({serving_words(one.serving)}; {trials}); "
        f"{one.served.ended}. Machines differ by {one.spread.basis}. Quality: {one.quality_reason}."
    )

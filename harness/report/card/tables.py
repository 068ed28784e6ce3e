"""The report card's tables: teacher beside students, throughput by shape, served, exported."""

from __future__ import annotations

from collections.abc import Callable

from harness.metrics import METRICS, SHOWN_PERCENTILES
from harness.report.card.values import SERVED, CardRow, FamilyCard
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types.card import CardEntry, Runtime
from harness.types.latency import UNBOUNDED_MS
from harness.words.numbers import (
    MINUS,
    MISSING,
    count,
    factor,
    heading,
    megabytes,
    metric_value,
    millions,
    number,
    points,
    span,
    things,
)

RUNTIMES = {Runtime.PYTORCH: "PyTorch", Runtime.ONNX_RUNTIME: "ONNX Runtime"}
Shown = Callable[[float], str]


def entry_words(entry: CardEntry) -> str:
    """Runtime and precision of an entry."""
    return f"{RUNTIMES[entry.runtime]}, {entry.precision}"


def card_table(card: FamilyCard) -> Table:
    """A row per model and runtime; in small the spread, and the difference from the teacher."""
    metrics = card.family.metrics
    return Table(
        caption="Report card",
        columns=(
            Column("Model", numeric=False),
            Column("Parameters", "M"),
            Column("On disk", "MB"),
            Column("Memory", "MB resident"),
            *(Column(heading(metric)) for metric in metrics),
            *(Column(name, "ms, batch 1") for name in SHOWN_PERCENTILES),
            Column("Mean", "ms, batch 1"),
            Column("First call", "ms, cold"),
            Column("Load", "s, cold"),
        ),
        rows=tuple(_card_row(card, entry) for entry in card.entries),
        note=_card_note(card),
    )


def _card_row(card: FamilyCard, entry: CardEntry) -> tuple[Cell, ...]:
    def cell(metric: str, shown: Shown, batch: int | None = None) -> Cell:
        return row_cell(card.row(entry.name, entry.runtime, metric, batch), shown)

    return (
        words(entry.name, entry_words(entry)),
        cell("parameters", lambda value: millions(int(value))),
        cell("size_on_disk", _megabytes),
        cell("memory", _megabytes),
        *(
            cell(metric, lambda value, metric=metric: metric_value(metric, value))  # type: ignore[misc]  # bound by default
            for metric in card.family.metrics
        ),
        *(cell(f"latency_{name}", number, 1) for name in SHOWN_PERCENTILES),
        cell("latency_mean", number, 1),
        cell("first_call", number),
        cell("load", number),
    )


def _card_note(card: FamilyCard) -> str:
    entry = card.entries[0]
    plan = entry.plan
    threads = things(entry.threads, "thread")
    versions = {one.runtime: one.runtime_version for one in card.entries}
    runtimes = ", ".join(f"{RUNTIMES[runtime]} {text}" for runtime, text in versions.items())
    distinct = (
        "" if entry.distinct_samples >= plan.samples
        else f" ({count(entry.distinct_samples)} distinct ones)"
    )  # fmt: skip
    cold = "1 fresh process" if plan.fresh_processes == 1 else (
        f"{plan.fresh_processes} fresh processes"
    )  # fmt: skip
    return (
        f"In process by time.perf_counter, {threads}, {runtimes}: {count(plan.samples)} calls at "
        f"batch 1 on samples drawn at random{distinct} with seed {entry.seed}, in {plan.rounds} "
        f"rounds in which all models took turns. Cold: {cold} with the libraries imported and "
        "nothing of the model there; memory is what the loading and the first call added to the "
        "resident size, the runtime's own code that they touch among it. "
        "In small type: 95% intervals of latencies and scores, else the range of the "
        "repetitions; then the difference from the teacher in the same runtime, and the factor of "
        "its value. Quality is the endpoint's, of the artefact; a checkpoint was not scored."
    )


def throughput_table(card: FamilyCard) -> Table:
    """Samples per second by batch at the longest length, then at the shorter ones."""
    shapes = _shapes(card)
    return Table(
        caption="Throughput in process",
        columns=(
            Column("Model", numeric=False),
            *(Column(f"Batch {batch}", f"{length} tokens") for batch, length in shapes),
        ),
        rows=tuple(
            (
                words(entry.name, entry_words(entry)),
                *(
                    row_cell(card.row(entry.name, entry.runtime, "throughput", *shape), number)
                    for shape in shapes
                ),
            )
            for entry in card.entries
        ),
        note=(
            "Samples per second, calling repeatedly for "
            f"{number(card.entries[0].plan.window_s * 1e3)} ms or two calls at least: the median "
            f"of {card.entries[0].plan.rounds} rounds, in small type their range, then the factor "
            "of the teacher's. Rows shorter than the data's shortest bucket are cut from longer "
            "ones."
        ),
    )


def _shapes(card: FamilyCard) -> list[tuple[int, int]]:
    longest = card.longest
    found = {(p.batch_size, p.length) for entry in card.entries for p in entry.throughput}
    return sorted(found, key=lambda shape: (shape[1] != longest, -shape[1], shape[0]))


def served_table(card: FamilyCard) -> Table | None:
    """Each variant through the server; None where nothing was measured there."""
    served = [row for row in card.rows if row.runtime == SERVED]
    if not served:
        return None
    batches = sorted({row.batch_size for row in served if row.batch_size})
    names = list(dict.fromkeys(row.name for row in served))
    alone = any(row.metric == "latency_alone_mean" for row in served)
    columns = [Column("Variant", numeric=False)]
    columns += [Column("Alone", "ms mean, batch 1")] if alone else []
    for batch in batches:
        columns += [Column(f"Batch {batch}", "samples/s"), Column("p50", "ms"), Column("p95", "ms")]
    return Table(
        caption="Through the server",
        columns=tuple(columns),
        rows=tuple(_served_row(card, name, batches, alone=alone) for name in names),
        note=_served_note(card),
    )


def _served_row(
    card: FamilyCard, name: str, batches: list[int], *, alone: bool
) -> tuple[Cell, ...]:
    cells = [words(name)]
    if alone:
        cells.append(row_cell(card.row(name, SERVED, "latency_alone_mean", 1), number))
    for batch in batches:
        rate = card.row(name, SERVED, "throughput", batch)
        loaded = ""
        if card.served_from_trials and rate and rate.in_flight:
            loaded = f"{rate.in_flight} in flight"
        cells.append(row_cell(rate, number, loaded))
        cells += [
            row_cell(card.row(name, SERVED, f"latency_{p}", batch), number) for p in ("p50", "p95")
        ]
    return tuple(cells)


def _served_note(card: FamilyCard) -> str:
    if card.served_from_trials:
        return (
            "The run's own trials: each variant's best at each client batch, at the load the "
            "search found for it. Alone is one request at a time, the steady end of the cold "
            f"start. {MISSING} where the search had no use for a trial, or quality ruled it out."
        )
    return (
        "One request in flight, by the load engine, with the study's first serving configuration "
        "and protocol. The server has an ONNX Runtime release of its own; see the environment."
    )


def export_table(card: FamilyCard) -> Table | None:
    """Each artefact beside the checkpoint it was made of: what the export brought."""
    pairs = [
        (entry, checkpoint)
        for entry in card.entries
        if entry.runtime is Runtime.ONNX_RUNTIME and (checkpoint := card.checkpoint_of(entry))
    ]
    if not pairs:
        return None
    smallest, largest = card.batch_sizes[0], card.batch_sizes[-1]
    return Table(
        caption="What the export brought",
        columns=(
            Column("Artefact", numeric=False),
            Column("On disk"),
            Column("Memory"),
            Column("p50", "batch 1"),
            Column("p95", "batch 1"),
            Column("Throughput", f"batch {smallest}"),
            Column("Throughput", f"batch {largest}"),
            Column("First call", "cold"),
        ),
        rows=tuple(_export_row(entry, origin, (smallest, largest)) for entry, origin in pairs),
        note="Each as a factor of its own checkpoint's in PyTorch, on the same samples in the same "
        "rounds; in small type both values.",
    )


def _export_row(entry: CardEntry, origin: CardEntry, batches: tuple[int, int]) -> tuple[Cell, ...]:
    pairs: list[tuple[float, float, Shown]] = [
        (entry.size_bytes, origin.size_bytes, _megabytes),
        (entry.cold.memory_bytes.value, origin.cold.memory_bytes.value, _megabytes),
    ]
    for name in ("p50", "p95"):
        ours, theirs = (one.latency.percentiles[name].value_ms for one in (entry, origin))
        pairs.append((ours, theirs, number))
    for batch in batches:
        ours_at, theirs_at = entry.rate(batch), origin.rate(batch)
        if ours_at and theirs_at:
            pairs.append((ours_at.per_s.value, theirs_at.per_s.value, number))
    pairs.append((entry.cold.first_call_ms.value, origin.cold.first_call_ms.value, number))
    return (words(entry.name), *(_factor_cell(*pair) for pair in pairs))


def _factor_cell(ours: float, theirs: float, shown: Shown) -> Cell:
    times = ours / theirs if theirs else None
    return numeric(factor(times), times, f"{shown(ours)} of {shown(theirs)}")


def row_cell(row: CardRow | None, shown: Shown, *details: str) -> Cell:
    """A number with its spread, and what it is to the teacher's."""
    if row is None:
        return numeric(MISSING, None)
    lines = [*details, _spread_words(row, shown), _against_words(row, shown)]
    return numeric(shown(row.value), row.value, "\n".join(line for line in lines if line))


def _spread_words(row: CardRow, shown: Shown) -> str:
    if row.low is None or row.high is None or row.low == row.high:
        return ""
    if row.unit == "ms" and row.high >= UNBOUNDED_MS:
        return ""  # too few calls for bounds
    return span(shown(row.low), shown(row.high))


def _against_words(row: CardRow, shown: Shown) -> str:
    """Difference and factor, as `-1.2, 0.42x`; nothing for the teacher itself.

    The difference of two shares is one of points: `-2.40 points`.
    """
    if row.delta is None or row.ratio is None or row.ratio == 1:
        return ""
    known = METRICS.get(row.metric)
    if known is not None and known.unit.is_share:
        return f"{points(row.delta)}, {factor(row.ratio)}"
    sign = MINUS if row.delta < 0 else "+"
    return f"{sign}{shown(abs(row.delta))}, {factor(row.ratio)}"


def _megabytes(value: float) -> str:
    return megabytes(round(value))

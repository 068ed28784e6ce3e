"""Every number of a report card in one form, each beside the teacher's: tidy rows.

What is compared is alike: a checkpoint with the teacher's checkpoint, an artefact with the
teacher's first artefact, a served variant with that one served.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.metrics import SHOWN_PERCENTILES
from harness.report.family_results import FamilyResults, families_of
from harness.report.selection import best_by_batch
from harness.runs.folder import StoredRun
from harness.types import LatencySummary, Role, TrialResult
from harness.types.card import CardEntry, RepeatedMeasure, Runtime, ServedPoint

SERVED = "served"
"""What stands instead of a runtime for numbers taken through the server."""

Key = tuple[str, str, str, int | None, int | None]
"""(name, runtime, metric, batch size, length)."""


@dataclass(frozen=True)
class CardRow:
    """One number of one model."""

    family: str
    name: str
    role: str
    runtime: str
    """pytorch, onnxruntime, or served."""
    precision: str
    metric: str
    unit: str
    batch_size: int | None
    length: int | None
    """Tokens; None where samples of all lengths took part."""
    in_flight: int | None
    value: float
    low: float | None = None
    high: float | None = None
    teacher: float | None = None
    delta: float | None = None
    """Value - teacher's."""
    ratio: float | None = None
    """Value / teacher's."""

    @property
    def key(self) -> Key:
        """What tells it apart from every other number of its family."""
        return (self.name, self.runtime, self.metric, self.batch_size, self.length)


@dataclass(frozen=True)
class FamilyCard:
    """A family's part of the card."""

    family: FamilyResults
    entries: tuple[CardEntry, ...]
    """Model by model, the checkpoint first; the teacher's come first of all."""
    rows: tuple[CardRow, ...]
    served_from_trials: bool
    """The served numbers are the run's own trials."""

    def row(
        self,
        name: str,
        runtime: str,
        metric: str,
        batch_size: int | None = None,
        length: int | None = None,
    ) -> CardRow | None:
        """One number, if it was measured."""
        wanted = (name, runtime, metric, batch_size, length)
        return next((row for row in self.rows if row.key == wanted), None)

    @property
    def longest(self) -> int:
        """Tokens of the longest shape."""
        return max(point.length for entry in self.entries for point in entry.throughput)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes of the throughput at the longest length."""
        sizes = {p.batch_size for entry in self.entries for p in entry.throughput}
        return tuple(sorted(sizes))

    def checkpoint_of(self, entry: CardEntry) -> CardEntry | None:
        """The checkpoint that an artefact was exported from."""
        return next(
            (
                one
                for one in self.entries
                if one.runtime is Runtime.PYTORCH and one.source == entry.source
            ),
            None,
        )


def cards_of(run: StoredRun) -> tuple[FamilyCard, ...]:
    """The card of each family that has one."""
    return tuple(
        _family_card(run, family)
        for family in families_of(run)
        if any(entry.family == family.name for entry in run.card)
    )


def _family_card(run: StoredRun, family: FamilyResults) -> FamilyCard:
    order = {variant.source: place for place, variant in enumerate(family.variants)}
    own = [entry for entry in run.card if entry.family == family.name]
    entries = tuple(
        sorted(
            own,
            key=lambda entry: (order.get(entry.source, 0), entry.runtime is not Runtime.PYTORCH),
        )
    )
    names = {variant.name for variant in family.variants}
    measured = [one for one in run.served if one.variant in names]
    rows = [row for entry in entries for row in _in_process(family, entry)]
    if measured:
        rows += [
            row
            for one in measured
            for point in one.points
            if point.valid
            for row in _served_rows(family, one.variant, point)
        ]
    else:
        rows += [row for result in best_by_batch(family) for row in _trial_rows(family, result)]
        rows += _alone_rows(family)
    return FamilyCard(family, entries, tuple(_compared(rows, entries)), not measured)


def _in_process(family: FamilyResults, entry: CardEntry) -> Iterator[CardRow]:
    blank = CardRow(
        entry.family, entry.name, str(entry.role), str(entry.runtime), str(entry.precision),
        "", "", None, None, None, 0.0,
    )  # fmt: skip
    yield _with(blank, "parameters", "", float(entry.parameters))
    yield _with(blank, "size_on_disk", "bytes", float(entry.size_bytes))
    for metric, unit, measured in (
        ("load", "s", entry.cold.load_s),
        ("first_call", "ms", entry.cold.first_call_ms),
        ("first_ten_calls_mean", "ms", entry.cold.first_calls_ms),
        ("memory", "bytes", entry.cold.memory_bytes),
    ):
        yield _spread(blank, metric, unit, measured)
    yield _with(blank, "memory_in_use", "bytes", float(entry.memory_in_use_bytes))
    yield from _latency_rows(dataclasses.replace(blank, batch_size=1), "latency", entry.latency)
    for point in entry.throughput:
        shaped = dataclasses.replace(blank, batch_size=point.batch_size, length=point.length)
        yield _spread(shaped, "throughput", "samples/s", point.per_s)
    if entry.runtime is Runtime.ONNX_RUNTIME:
        for score in family.scores:
            if score.variant == entry.name:
                yield dataclasses.replace(
                    blank, metric=score.metric, value=score.value, low=score.low, high=score.high
                )


def _served_rows(family: FamilyResults, name: str, point: ServedPoint) -> Iterator[CardRow]:
    blank = _served_blank(family, name, point.batch_size, point.in_flight)
    if point.latency:
        yield from _latency_rows(blank, "latency", point.latency)
    low, high = None, None
    latency = point.latency
    if latency and point.in_flight == 1 and latency.mean_low_ms and latency.mean_high_ms:
        # One in flight: the rate is the reciprocal of the mean, and so are its bounds.
        low, high = (
            point.throughput_per_s * latency.mean_ms / bound
            for bound in (latency.mean_high_ms, latency.mean_low_ms)
        )
    yield _with(blank, "throughput", "samples/s", point.throughput_per_s, low, high)


def _trial_rows(family: FamilyResults, result: TrialResult) -> Iterator[CardRow]:
    workload = result.trial.workload
    blank = _served_blank(
        family, result.trial.variant, workload.client_batch_size, workload.concurrency
    )
    if result.latency:
        yield from _latency_rows(blank, "latency", result.latency)
    yield _with(blank, "throughput", "samples/s", result.throughput_inferences_per_s)


def _alone_rows(family: FamilyResults) -> Iterator[CardRow]:
    """One request in flight, out of the cold starts' steady ends."""
    for one in family.cold_starts:
        if one.steady_ms is not None:
            blank = _served_blank(family, one.variant, 1, 1)
            yield _with(blank, "latency_alone_mean", "ms", one.steady_ms)


def _served_blank(family: FamilyResults, name: str, batch: int, in_flight: int) -> CardRow:
    variant = family.variant(name)
    precision = str(variant.precision) if variant else ""
    role = str(family.role(name))
    return CardRow(
        family.name, name, role, SERVED, precision, "", "", batch, None, in_flight, 0.0
    )  # fmt: skip


def _latency_rows(blank: CardRow, metric: str, latency: LatencySummary) -> Iterator[CardRow]:
    for name in SHOWN_PERCENTILES:
        found = latency.percentiles[name]
        yield _with(blank, f"{metric}_{name}", "ms", found.value_ms, found.low_ms, found.high_ms)
    low, high = latency.mean_low_ms, latency.mean_high_ms
    yield _with(blank, f"{metric}_mean", "ms", latency.mean_ms, low, high)


def _with(
    blank: CardRow,
    metric: str,
    unit: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
) -> CardRow:
    return dataclasses.replace(blank, metric=metric, unit=unit, value=value, low=low, high=high)


def _spread(blank: CardRow, metric: str, unit: str, measured: RepeatedMeasure) -> CardRow:
    return _with(blank, metric, unit, measured.value, measured.low, measured.high)


def _compared(rows: Sequence[CardRow], entries: Sequence[CardEntry]) -> Iterator[CardRow]:
    """Each row beside the teacher's of the same runtime and shape."""
    teachers: dict[str, str] = {}
    for entry in entries:
        if entry.role is Role.TEACHER:
            teachers.setdefault(str(entry.runtime), entry.name)
    teachers[SERVED] = teachers.get(str(Runtime.ONNX_RUNTIME), "")
    values = {row.key: row.value for row in rows}
    for row in rows:
        teacher = values.get((teachers.get(row.runtime, ""), *row.key[1:]))
        if teacher is None:
            yield row
            continue
        yield dataclasses.replace(
            row,
            teacher=teacher,
            delta=row.value - teacher,
            ratio=row.value / teacher if teacher else None,
        )

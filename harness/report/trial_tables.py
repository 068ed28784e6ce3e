"""Every trial, and every rejected candidate with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.labels import CAUSES, PROTOCOLS, cause_title, trial_words
from harness.report.numbers import count, milliseconds, number, percent, span
from harness.report.selection import FamilyResults, latency_split, percentile_of
from harness.report.tables import Cell, Column, Table, decision_cell, numeric, words
from harness.types import Rejection, TrialResult

_LONG_GROUP = 6

_COLUMNS = (
    Column("Variant", numeric=False),
    Column("Decision", numeric=False),
    Column("Throughput", "inferences/s"),
    Column("p95", "ms"),
    Column("Protocol", numeric=False),
    Column("Client batch"),
    Column("In flight"),
    Column("Max batch"),
    Column("Queue delay", "µs"),
    Column("Instances"),
    Column("Threads"),
    Column("p50", "ms"),
    Column("p99", "ms"),
    Column("Mean", "ms"),
    Column("Client", "ms"),
    Column("Queue", "ms"),
    Column("Compute", "ms"),
    Column("Mean batch", "executed"),
    Column("Requests"),
    Column("Failures"),
    Column("Generator CPU", "of a core"),
    Column("Stage", numeric=False),
    Column("Reason", numeric=False),
)


def trials_table(trials: Sequence[TrialResult]) -> Table:
    """One row a trial, in the order they were measured."""
    return Table(
        caption="Every trial",
        columns=_COLUMNS,
        rows=tuple(_trial_row(result) for result in trials),
        note="Invalid trials decide nothing; they are shown with the reason.",
        sortable=True,
    )


def _trial_row(result: TrialResult) -> tuple[Cell, ...]:
    trial = result.trial
    serving, workload = trial.serving, trial.workload
    batch = result.server.batch_mean
    rate = result.throughput_inferences_per_s
    return (
        words(trial.variant),
        decision_cell(result.decision),
        numeric(number(rate), rate),
        _percentile_cell(result, "p95"),
        words(PROTOCOLS[workload.protocol]),
        _count_cell(workload.client_batch_size),
        _count_cell(workload.concurrency),
        _count_cell(serving.max_batch_size),
        _count_cell(serving.queue_delay_us),
        _count_cell(serving.instance_count),
        _count_cell(serving.intra_op_threads),
        _percentile_cell(result, "p50"),
        _percentile_cell(result, "p99"),
        *_split_cells(result),
        numeric(number(batch), batch),
        _count_cell(result.requests),
        _failures_cell(result),
        numeric(percent(result.generator_cpu), result.generator_cpu),
        words(trial.stage + (f" #{trial.repeat}" if trial.repeat else "")),
        words(result.reason if result.valid else result.invalid_reason or result.reason),
    )


def _count_cell(value: int) -> Cell:
    return numeric(count(value), value)


def _failures_cell(result: TrialResult) -> Cell:
    kinds = ", ".join(f"{kind} {count(n)}" for kind, n in result.failures_by_kind.items())
    return numeric(count(result.failures), result.failures, kinds)


def _percentile_cell(result: TrialResult, name: str) -> Cell:
    found = percentile_of(result, name)
    if found is None:
        return numeric(milliseconds(None), None)
    interval = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
    return numeric(milliseconds(found.value_ms), found.value_ms, interval)


def _split_cells(result: TrialResult) -> tuple[Cell, ...]:
    mean = result.latency.mean_ms if result.latency else None
    split = latency_split(result)
    values = (
        mean,
        split.client_ms if split else None,
        result.server.queue_ms,
        result.server.compute_ms,
    )
    return tuple(numeric(milliseconds(value), value) for value in values)


@dataclass(frozen=True)
class RejectedGroup:
    """Candidates rejected for one cause."""

    cause: str
    title: str
    table: Table

    @property
    def collapsed(self) -> bool:
        """Whether it is long enough to be folded away."""
        return len(self.table.rows) > _LONG_GROUP

    @property
    def size(self) -> int:
        """How many candidates."""
        return len(self.table.rows)


def rejected_groups(family: FamilyResults) -> tuple[RejectedGroup, ...]:
    """A family's rejected and left-out candidates by cause, in the order a reader asks for them."""
    by_cause: dict[str, list[Rejection]] = defaultdict(list)
    verdict = family.verdict
    for rejection in (*verdict.rejected, *verdict.pruned) if verdict else ():
        by_cause[rejection.cause].append(rejection)
    order = [*CAUSES, *(cause for cause in by_cause if cause not in CAUSES)]
    return tuple(
        _rejected_group(family, cause, by_cause[cause]) for cause in order if cause in by_cause
    )


def _rejected_group(
    family: FamilyResults, cause: str, rejections: Sequence[Rejection]
) -> RejectedGroup:
    trials = {result.trial.trial_id: result.trial for result in family.trials}
    rows = []
    for rejection in rejections:
        trial = trials.get(rejection.trial_id or "")
        candidate = trial_words(trial) if trial else rejection.trial_id or "every configuration"
        rows.append((words(rejection.variant), words(candidate), words(rejection.reason)))
    return RejectedGroup(
        cause=cause,
        title=cause_title(cause),
        table=Table(
            caption=f"{family.name}: {cause_title(cause)}",
            columns=(
                Column("Variant", numeric=False),
                Column("Candidate", numeric=False),
                Column("Reason", numeric=False),
            ),
            rows=tuple(rows),
        ),
    )

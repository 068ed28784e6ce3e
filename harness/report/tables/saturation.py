"""Measured latency over rate as a table: the winner's and the teacher's open loops."""

from __future__ import annotations

from harness.metrics import metric_named
from harness.report.family_results import FamilyResults
from harness.report.selection import percentile_of
from harness.report.tables.model import Cell, Column, Table, decision_cell, numeric, words
from harness.types import TrialResult
from harness.words.labels import batch_words, protocol_name, serving_words
from harness.words.numbers import milliseconds, number, percent, span


def saturation_table(family: FamilyResults) -> Table | None:
    """A row per rate; None where no open loop followed the verdict."""
    if not family.saturation:
        return None
    return Table(
        caption="Latency over rate",
        columns=(
            Column("Variant", numeric=False),
            Column("Offered", "requests/s"),
            Column("Answered", "requests/s"),
            *(Column(metric_named(name).title, "ms") for name in _latencies(family)),
            Column("Mean batch", "executed"),
            Column("Failed or dropped"),
            Column("Decision", numeric=False),
            Column("Reason", numeric=False),
        ),
        rows=tuple(_row(family, one) for one in family.saturation),
        note="Measured after the verdict with Poisson arrivals, at shares of the highest "
        "throughput that the search found for the same configuration. Decides nothing; harness "
        "plan is fitted to these rows too.",
    )


def _latencies(family: FamilyResults) -> tuple[str, ...]:
    """The median, and every latency that the objective bounds."""
    return tuple(dict.fromkeys(("p50", *family.judged_latencies)))


def _row(family: FamilyResults, one: TrialResult) -> tuple[Cell, ...]:
    workload, offered = one.trial.workload, one.offered_requests_per_s
    lost = one.failures + one.dropped
    total = one.requests + lost
    return (
        words(
            one.trial.variant,
            f"{serving_words(one.trial.serving)}, {protocol_name(workload.protocol)}, "
            f"batch {batch_words(workload)}",
        ),
        numeric(number(offered), offered, f"asked {number(workload.rate_per_s)}"),
        numeric(number(one.throughput_requests_per_s), one.throughput_requests_per_s),
        *(_latency(one, name) for name in _latencies(family)),
        numeric(number(one.server.batch_mean), one.server.batch_mean),
        numeric(percent(lost / total) if total else "", lost / total if total else None),
        decision_cell(one.decision),
        words(one.invalid_reason or one.reason),
    )


def _latency(one: TrialResult, name: str) -> Cell:
    found = percentile_of(one, name)
    if found is None:
        return numeric(milliseconds(None), None)
    bounds = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
    return numeric(milliseconds(found.value_ms), found.value_ms, bounds)

"""What a rollout waits for: loading, the first request, and the way to a steady latency."""

from __future__ import annotations

from harness.report.labels import serving_words
from harness.report.numbers import MISSING, count, factor, milliseconds, seconds
from harness.report.selection import FamilyResults
from harness.report.tables import Cell, Column, Table, numeric, words
from harness.types import ColdStart


def cold_start_table(family: FamilyResults) -> Table | None:
    """A row a variant; None where no cold start was measured."""
    if not family.cold_starts:
        return None
    return Table(
        caption="Cold start",
        columns=(
            Column("Variant", numeric=False),
            Column("Load", "s"),
            Column("First request", "ms"),
            Column("Steady after", "requests"),
            Column("Steady after", "s from ready"),
            Column("Steady latency", "ms"),
        ),
        rows=tuple(_row(one) for one in family.cold_starts),
        note=_note(family.cold_starts),
    )


def _row(one: ColdStart) -> tuple[Cell, ...]:
    after, times = one.steady_after_requests, None
    if one.steady_ms:
        times = one.first_request_ms / one.steady_ms
    return (
        words(one.variant),
        numeric(seconds(one.load_s), one.load_s),
        numeric(
            milliseconds(one.first_request_ms),
            one.first_request_ms,
            f"{factor(times)} steady" if times else "",
        ),
        numeric(
            count(after), after, "" if after is not None else f"not in {count(one.requests)} sent"
        ),
        numeric(seconds(one.steady_after_s), one.steady_after_s),
        numeric(milliseconds(one.steady_ms), one.steady_ms),
    )


def _note(cold_starts: tuple[ColdStart, ...]) -> str:
    servings = {serving_words(one.serving) for one in cold_starts}
    setting = f" ({servings.pop()})" if len(servings) == 1 else ""
    return (
        f"From the order to load until ready{setting}, then one request at a time on a new "
        f"connection. {MISSING} where no steady state was found. No trial holds any of this."
    )

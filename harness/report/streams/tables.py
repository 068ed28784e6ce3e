"""Streams as tables: what each load gave, and what single requests were made of."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics import GOODPUT, latency_of, metric_named
from harness.report.family_results import FamilyResults
from harness.report.tables.model import (
    Cell,
    Column,
    Table,
    decision_cell,
    numeric,
    trial_anchor,
    words,
)
from harness.runs.records import RecordedStream
from harness.types import ITL, TTFT, Constraint, TrialResult
from harness.types.estimates import Interval
from harness.words.labels import is_open, load_amount, load_words, serving_words
from harness.words.numbers import MISSING, count, milliseconds, number, span

_DEFAULTS = {TTFT: f"{TTFT}_p95", ITL: f"{ITL}_p99"}
"""What a span is shown by where the objective does not bound it."""


def shown_latency(family: FamilyResults, name: str) -> str:
    """The metric that a span is shown by: the objective's first on it, else the usual one."""
    bounded = (one for one in family.judged_latencies if metric_named(one).span == name)
    return next(bounded, _DEFAULTS[name])


def clause_on(family: FamilyResults, metric: str) -> Constraint | None:
    """The objective's clause on a metric; None where it has none."""
    return next((one for one in family.constraints if one.metric == metric), None)


def streamed_trials(family: FamilyResults) -> list[TrialResult]:
    """Trials of streams: by variant, closed loops before open ones, by rising load."""
    order = {name: place for place, name in enumerate(family.names)}
    own = [one for one in (*family.trials, *family.saturation) if one.streams]
    return sorted(
        own,
        key=lambda one: (
            order.get(one.trial.variant, len(order)),
            is_open(one.trial.workload),
            load_amount(one.trial.workload),
            one.trial.repeat,
        ),
    )


def streams_table(family: FamilyResults) -> Table | None:
    """A row per trial of streams; None where there was none."""
    trials = streamed_trials(family)
    if not trials:
        return None
    ttft, itl = shown_latency(family, TTFT), shown_latency(family, ITL)
    has_goodput = any(one.goodput for one in trials)
    return Table(
        caption="Streams over load",
        columns=(
            Column("Variant", numeric=False),
            Column("Load"),
            Column("Answered", "requests/s"),
            *((Column("Goodput", "requests/s"),) if has_goodput else ()),
            Column("Output tokens", "tokens/s"),
            Column("of each user", "tokens/s"),
            Column(metric_named(ttft).title, "ms"),
            Column(metric_named(itl).title, "ms"),
            Column("Tokens", "in, out"),
            Column("Decision", numeric=False),
        ),
        rows=tuple(_row(one, ttft, itl, has_goodput=has_goodput) for one in trials),
        note=_note(has_goodput=has_goodput),
        sortable=True,
    )


def _note(*, has_goodput: bool) -> str:
    good = (
        " Goodput counts the requests that meet every clause of the objective on a latency."
        if has_goodput
        else ""
    )
    return (
        "In small type: intervals. TTFT runs from the instant a request fell due to its first "
        "token, ITL from each token to the next; a user's tokens per second are one over the mean "
        f"time per token after the first.{good} An ITL of 0 ms means that tokens came, or were "
        "read, together."
    )


def _row(result: TrialResult, ttft: str, itl: str, *, has_goodput: bool) -> tuple[Cell, ...]:
    workload, found = result.trial.workload, result.streams
    tokens = found.output_tokens_per_s if found else None
    tpot_ms = result.latency_ms("tpot", "mean")
    each = 1000 / tpot_ms if tpot_ms else None
    return (
        Cell(
            result.trial.variant,
            serving_words(result.trial.serving),
            link=f"#{trial_anchor(result.trial.trial_id)}",
        ),
        numeric(load_words(workload), load_amount(workload)),
        numeric(number(result.throughput_requests_per_s), result.throughput_requests_per_s),
        *((_goodput(result),) if has_goodput else ()),
        _bounded(tokens, found.output_tokens_per_s_bounds if found else None),
        numeric(number(each), each),
        _latency(result, ttft),
        _latency(result, itl),
        _tokens(result),
        decision_cell(result.decision),
    )


def _goodput(result: TrialResult) -> Cell:
    good = result.goodput
    return _bounded(good.requests_per_s, good.bounds) if good else Cell(MISSING)


def _bounded(value: float | None, bounds: Interval | None) -> Cell:
    if value is None:
        return Cell(MISSING)
    return numeric(
        number(value), value, span(number(bounds.low), number(bounds.high)) if bounds else ""
    )


def _latency(result: TrialResult, name: str) -> Cell:
    found = latency_of(metric_named(name), result)
    if found is None:
        return Cell(MISSING)
    bounds = span(milliseconds(found.low_ms), milliseconds(found.high_ms))
    return numeric(milliseconds(found.value_ms), found.value_ms, bounds)


def _tokens(result: TrialResult) -> Cell:
    found = result.streams
    if found is None:
        return Cell(MISSING)
    counts = found.counts
    return numeric(
        f"{count(counts.input_tokens)}, {count(counts.output_tokens)}", counts.output_tokens
    )


def requests_table(sample: Sequence[RecordedStream]) -> Table:
    """A row per sampled request: what its time went to."""
    return Table(
        caption="Sampled requests",
        columns=(
            Column("Due", "ms"),
            Column("Waited to be sent", "ms"),
            Column("Sent to first token", "ms"),
            Column("Of it in the server's queue", "ms"),
            Column("Writing", "ms"),
            Column("Longest gap", "ms"),
            Column("Tokens", "in, out"),
            Column("Status", numeric=False),
        ),
        rows=tuple(map(_request, sample)),
        note="Requests that followed one another in the middle of the load, in the order in which "
        "they fell due; times are counted from the first of them.",
    )


def _request(one: RecordedStream) -> tuple[Cell, ...]:
    first, last = one.first_ms, one.token_ms[-1] if one.token_ms else None
    reading = None if first is None else first - one.sent_ms
    writing = None if first is None or last is None else last - first
    waiting = one.sent_ms - one.due_ms
    values = (one.due_ms, waiting, reading, one.queue_ms, writing, one.longest_gap_ms)
    tokens = ", ".join(map(count, (one.input_tokens, one.output_tokens)))
    return (
        *(numeric(milliseconds(value), value) for value in values),
        numeric(tokens, one.output_tokens),
        words("answered" if one.status == "ok" else one.status),
    )


def goodput_clause(family: FamilyResults) -> Constraint | None:
    """The objective's clause on goodput."""
    return clause_on(family, GOODPUT)

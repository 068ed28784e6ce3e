"""Whether a trial's numbers can be trusted: what was measured of the measurement itself."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.selection import bounds_ms, percentile_of, service_differs, spans_of
from harness.report.tables.model import Cell, Column, Table, numeric, words
from harness.types import ITL, SCHEDULE_DELAY, SERVICE, TrialResult
from harness.types.limits import (
    BROKEN_FAILURE_SHARE,
    CACHED_SHARE,
    COUNT_TOLERANCE,
    GENERATOR_CPU_LIMIT,
    IDLE_FLOOR_MS,
    IDLE_SHARE,
    LOST_SHARE,
    RATE_SHORTFALL,
    allowed_late_ms,
    allowed_together_ms,
)
from harness.types.metrics import PERCENTILES
from harness.words.labels import asked_rate, cached_words, is_open, lost_words, offered_words
from harness.words.numbers import (
    MISSING,
    asked,
    asked_percent,
    count,
    milliseconds,
    number,
    percent,
    seconds,
    span,
)
from harness.words.numbers import latency as latency_words

_Row = tuple[str, str, str, str]
"""What, measured, tolerated, and why it matters."""


def trust_table(result: TrialResult) -> Table:
    """One trial's evidence beside the limits that would have made it invalid."""
    rows = [
        *_generator_rows(result),
        *_traffic_rows(result),
        *_server_rows(result),
        *_window_rows(result),
    ]
    return Table(
        caption="Can these numbers be trusted?",
        columns=(
            Column("Evidence", numeric=False),
            Column("Measured"),
            Column("Tolerated", numeric=False),
            Column("If not kept", numeric=False),
        ),
        rows=tuple(
            (words(what), Cell(measured), words(tolerated), words(why))
            for what, measured, tolerated, why in rows
        ),
    )


def spans_table(result: TrialResult) -> Table:
    """A row for each latency span of one trial, with every interval in small."""
    statistics = ("mean", *PERCENTILES)
    return Table(
        caption="Latency by span",
        columns=(Column("Span", numeric=False), *(Column(name, "ms") for name in statistics)),
        rows=tuple(
            (
                words(one.title, one.meaning),
                *(_span_cell(result, one.name, name) for name in statistics),
            )
            for one in spans_of(result)
        ),
    )


def _span_cell(result: TrialResult, name: str, statistic: str) -> Cell:
    value_ms = result.latency_ms(name, statistic)
    bounds = bounds_ms(result.latencies.get(name), statistic)
    detail = span(*map(milliseconds, bounds)) if bounds else ""
    return numeric(milliseconds(value_ms), value_ms, detail)


def _generator_rows(result: TrialResult) -> Iterator[_Row]:
    p95 = percentile_of(result, "p95")
    late = f"at most {milliseconds(allowed_late_ms(p95.value_ms if p95 else 0.0))} ms"
    yield (
        "Load generator's CPU, busiest process",
        f"{percent(result.generator_cpu)} of a core",
        f"under {asked_percent(GENERATOR_CPU_LIMIT)}",
        "a saturated generator measures its own queue",
    )
    yield (
        "Lag of its event loop, p99",
        _ms(result.loop_lag_p99_ms),
        late,
        "latency is overstated, where the kernel does not say when answers came",
    )
    gap_ms = result.latency_ms(ITL, "mean")
    if gap_ms is not None:
        bounds = result.goodput.clauses if result.goodput else ()
        yield (
            "The same, beside the mean gap between tokens",
            f"{_ms(result.loop_lag_p99_ms)} and {_ms(gap_ms)}",
            f"at most {milliseconds(allowed_together_ms(gap_ms, bounds))} ms",
            "tokens are read together, and their gaps are wrong by as much",
        )
    yield (
        "Schedule delay (sent after due), p99",
        _ms(result.latency_ms(SCHEDULE_DELAY, "p99")),
        late,
        "the load is not the one that was asked for",
    )


def _traffic_rows(result: TrialResult) -> Iterator[_Row]:
    workload, left = result.trial.workload, result.streams.counts.left if result.streams else 0
    sent = result.requests + result.failures + left
    if not is_open(workload) and result.in_flight_mean is not None:
        yield (
            "In flight on average",
            f"{number(result.in_flight_mean)} of {count(workload.concurrency)}",
            (
                f"at least {asked_percent(1 - IDLE_SHARE)}, where an idle slot rests over "
                f"{asked(IDLE_FLOOR_MS)} ms"
            ),
            "the load is lighter than it claims to be",
        )
    if is_open(workload):
        wanted = f"at least {asked_percent(1 - RATE_SHORTFALL)}, chance apart"
        yield (
            "Offered load",
            offered_words(workload, result.offered_requests_per_s),
            MISSING if asked_rate(workload) is None else wanted,
            "the load is lighter than it claims to be",
        )
        yield (
            "Dropped, too many in flight",
            f"{count(result.dropped)} of {count(sent + result.dropped)}",
            "while the generator keeps up; they count as failed",
            "the slowest answers would be missing",
        )
    yield (
        "Failures of those sent",
        f"{count(result.failures)} of {count(sent)}",
        f"at most {asked_percent(BROKEN_FAILURE_SHARE)}; below it the error rate is judged",
        "a broken server answers fast",
    )
    if result.server.requests is not None:
        answered = round(result.throughput_requests_per_s * result.duration_s)
        yield (
            "Answered, by Triton's count and the client's",
            f"{count(result.server.requests)} and {count(answered)}",
            f"{asked_percent(COUNT_TOLERANCE)} apart, and what lies between their clocks",
            "other clients sent traffic",
        )


def _server_rows(result: TrialResult) -> Iterator[_Row]:
    if result.server.from_cache is not None:
        wanted = result.trial.workload.cached_answers
        yield (
            "Answered by the response cache",
            cached_words(result),
            "any: it is what was measured" if wanted else f"at most {asked_percent(CACHED_SHARE)}",
            "the cache would be measured, not the model",
        )
    if words := lost_words(result):
        yield (
            "Server short of a core because of others",
            words,
            f"at most {asked_percent(LOST_SHARE)}",
            "other work on its machine would be measured with it",
        )


def _window_rows(result: TrialResult) -> Iterator[_Row]:
    yield (
        "Warm-up cut",
        f"{seconds(result.warmup_s)} s",
        "until latency no longer falls",
        "the cold start would count",
    )
    latency, found = result.latency, percentile_of(result, "p95")
    if latency:
        yield (
            "Requests that count as independent",
            f"{count(round(latency.count / latency.design_effect))} of {count(latency.count)}",
            MISSING,
            "intervals would be too narrow; these allow for it",
        )
    if found and service_differs(result):
        yield (
            "p95 from due, and from sent",
            f"{latency_words(found.value_ms)} and {_ms(result.latency_ms(SERVICE, 'p95'))}",
            MISSING,
            "timed from the send, the wait of late requests would be missing",
        )


def _ms(value: float | None) -> str:
    return latency_words(value)

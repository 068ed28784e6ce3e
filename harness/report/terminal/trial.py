"""One trial by itself, on a terminal: what both sides saw, and what speaks for the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.metrics import GOODPUT
from harness.report.selection import latency_split, percentile_of, spans_of
from harness.study.clauses import load_clauses, quality_clauses
from harness.types import (
    RESPONSE,
    SCHEDULE_DELAY,
    SPANS,
    LatencySpan,
    ServiceLevelObjective,
    ServingConfig,
    TrialResult,
)
from harness.types.estimates import Interval
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import PERCENTILES
from harness.words.labels import (
    SIGNS,
    again_words,
    cached_words,
    is_open,
    lost_words,
    offered_words,
    serving_words,
    throughput_span,
    throughput_unit,
    workload_words,
)
from harness.words.numbers import (
    MISSING,
    asked,
    confidence,
    count,
    metric_span,
    metric_value,
    milliseconds,
    number,
    percent,
    seconds,
    span,
    things,
    with_unit,
)

_AS_IT_IS = "as the server has it"


def trial_table(result: TrialResult, slo: ServiceLevelObjective | None = None) -> RenderableType:
    """What was sent, latency by both clocks, and the evidence; the decision where one was asked.

    Response latency runs from when a request fell due, service latency from when it was sent: a
    load tester that shows the second alone leaves out what waited for a slow server.
    """
    rows = [*_load_rows(result), *_evidence_rows(result), ("validity", _validity(result))]
    if slo is not None:
        rows += _decision_rows(result, slo)
    return Group(_rows(_head_rows(result)), Text(), _latency_table(result), Text(), _rows(rows))


def _rows(rows: list[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=22)
    table.add_column()
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _head_rows(result: TrialResult) -> list[tuple[str, str]]:
    trial = result.trial
    return [
        ("variant", trial.variant),
        ("traffic", workload_words(trial.workload)),
        ("serving", _serving(trial.serving)),
        ("warm-up", f"{seconds(result.warmup_s)} s cut, {seconds(result.duration_s)} s measured"),
    ]


def _serving(serving: ServingConfig) -> str:
    """A server that is not ours leaves some of it open."""
    if serving.instance_count and serving.intra_op_threads:
        return serving_words(serving)
    batch = f"max batch {serving.max_batch_size}" if serving.max_batch_size else "no batching told"
    parts = [batch, f"queue delay {asked(serving.queue_delay_us / 1000)} ms"]
    if serving.instance_count:
        parts.append(f"instances {serving.instance_count}")
    return f"{_AS_IT_IS}: {', '.join(parts if serving.max_batch_size else parts[:1])}"


def _latency_table(result: TrialResult) -> Table:
    """A row for each percentile: the latency that counts with its interval, then other spans."""
    level = f"{confidence(result.latency.confidence)} interval" if result.latency else "interval"
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Latency, ms", style="dim", no_wrap=True, min_width=20)
    others = [one for one in spans_of(result) if one.name != RESPONSE]
    for title in (SPANS[RESPONSE].title, level, *(one.title for one in others)):
        table.add_column(title, justify="right", no_wrap=True)
    for name in PERCENTILES:
        found = percentile_of(result, name)
        value = milliseconds(found.value_ms) if found else MISSING
        interval = _interval(found.low_ms, found.high_ms) if found else ""
        table.add_row(name, value, interval, *_values(result, others, name))
    table.add_row("mean", *_mean(result), *_values(result, others, "mean"))
    return table


def _interval(low_ms: float, high_ms: float) -> str:
    """A queue that swings for as long as the window lasts leaves it without any bound."""
    if low_ms >= UNBOUNDED_MS:
        return "the queue never drained"
    if low_ms <= 0 and high_ms >= UNBOUNDED_MS:
        return "window too short"
    return span(milliseconds(low_ms), milliseconds(high_ms))


def _values(result: TrialResult, spans: Sequence[LatencySpan], statistic: str) -> list[str]:
    return [milliseconds(result.latency_ms(one.name, statistic)) for one in spans]


def _mean(result: TrialResult) -> tuple[str, str]:
    latency = result.latency
    if latency is None:
        return MISSING, ""
    if latency.mean_low_ms is None or latency.mean_high_ms is None:
        return milliseconds(latency.mean_ms), ""
    return milliseconds(latency.mean_ms), _interval(latency.mean_low_ms, latency.mean_high_ms)


def _load_rows(result: TrialResult) -> list[tuple[str, str]]:
    split = latency_split(result)
    parts = (
        " + ".join(map(number, (split.client_ms, split.queue_ms, split.compute_ms))) + " ms"
        if split
        else MISSING
    )
    return [
        ("requests", _requests(result)),
        *_rates(result),
        ("throughput", _throughput(result)),
        *_stream_rows(result),
        ("client, queue, compute", parts),
        *(
            (f"  of {part.model}", f"{number(part.queue_ms)} + {number(part.compute_ms)} ms")
            for part in result.server.parts
        ),
        ("mean executed batch", number(result.server.batch_mean)),
        *([("response cache", cached_words(result))] if result.server.from_cache else []),
    ]


def _throughput(result: TrialResult) -> str:
    bounds = throughput_span(result)
    unit = throughput_unit(result.trial.workload)
    return f"{number(result.throughput_inferences_per_s)} {unit}" + (
        f" ({bounds})" if bounds else ""
    )


def _stream_rows(result: TrialResult) -> list[tuple[str, str]]:
    """Rows for streamed answers, and for goodput where an objective defines it."""
    rows, found = [], result.streams
    if found is not None:
        rate = _rate(
            "output_tokens_per_s", found.output_tokens_per_s, found.output_tokens_per_s_bounds
        )
        tokens = f"{count(found.counts.input_tokens)} in, {count(found.counts.output_tokens)} out"
        rows += [("tokens", tokens), ("output tokens", rate)]
        if found.counts.left:
            rows.append(("left on purpose", f"{count(found.counts.left)} clients"))
        if irregular := found.counts.irregular:
            said = ", ".join(f"{kind} {count(n)}" for kind, n in sorted(irregular.items()))
            rows.append(("irregular answers", said))
        rows += _repeats(result)
    if result.goodput is not None:
        good = result.goodput
        rows.append(("goodput", _rate(GOODPUT, good.requests_per_s, good.bounds)))
    return rows


def _repeats(result: TrialResult) -> list[tuple[str, str]]:
    """A row where prompts were sent again: what a server's cache holds of them is not read anew."""
    generation = result.trial.workload.generation
    sent = result.requests + result.failures
    if generation is None or not 0 < generation.prompts < sent:
        return []
    said = f"{things(sent, 'request')} were sent of {count(generation.prompts)} different ones: of "
    said += "those that come again, the time to first token is a prefix cache's where there is one"
    return [("prompts sent again", said)]


def _rate(metric: str, value: float, bounds: Interval | None) -> str:
    interval = f" ({metric_span(metric, bounds.low, bounds.high)})" if bounds else ""
    return f"{with_unit(metric, metric_value(metric, value))}{interval}"


def _requests(result: TrialResult) -> str:
    kinds = ", ".join(f"{kind} {count(n)}" for kind, n in result.failures_by_kind.items())
    failed = f"{count(result.failures)} failed" + (f" ({kinds})" if kinds else "")
    return f"{count(result.requests)} answered, {failed}"


def _rates(result: TrialResult) -> list[tuple[str, str]]:
    """The rates asked for, offered and achieved; in an open loop all three may differ."""
    achieved = f"{number(result.throughput_requests_per_s)} requests/s answered"
    if not is_open(result.trial.workload):
        asked = count(result.trial.workload.concurrency)
        return [
            ("rate", achieved),
            ("in flight", f"{number(result.in_flight_mean)} of {asked} on average"),
        ]
    offered = offered_words(result.trial.workload, result.offered_requests_per_s)
    return [("rate", f"{offered} fell due, {achieved}"), ("dropped", count(result.dropped))]


def _evidence_rows(result: TrialResult) -> list[tuple[str, str]]:
    late, lag = result.latency_ms(SCHEDULE_DELAY, "p99"), result.loop_lag_p99_ms
    return [
        ("schedule delay p99", MISSING if late is None else f"{milliseconds(late)} ms"),
        ("event loop lag p99", MISSING if lag is None else f"{milliseconds(lag)} ms"),
        ("generator CPU", f"{percent(result.generator_cpu)} of a core (the busiest process)"),
        *([("server short of a core", lost_words(result))] if lost_words(result) else []),
        *([("model version", result.server.version)] if result.server.version else []),
        *([("records", result.records_problem)] if result.records_problem else []),
        *([("server's figures", result.server.problem)] if result.server.problem else []),
    ]


def _validity(result: TrialResult) -> str:
    said = "valid" if result.valid else f"invalid: {result.invalid_reason}"
    again = again_words(result.trial)
    return f"{said} ({again})" if again else said


def _decision_rows(result: TrialResult, slo: ServiceLevelObjective) -> list[tuple[str, str]]:
    """The decision on the clauses that a load can decide, and the names of those it cannot."""
    asked = ", ".join(one.text for one in load_clauses(slo))
    left_out = ", ".join(one.text for one in quality_clauses(slo))
    rows = []
    if asked:
        sign = SIGNS[result.decision]
        reason = f": {result.reason}" if result.reason and result.valid else ""
        rows.append(("decision", f"{sign.symbol} {sign.word}, {asked}{reason}"))
    if left_out:
        rows.append(("not judged here", f"{left_out}: a load test does not measure quality"))
    return rows

"""Demand over time as a Prometheus has it: one range query, as rates in equal steps."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from harness.errors import UsageError
from harness.telemetry.prometheus.client import Prometheus, QueryFailure
from harness.types.autoscaling import RateTrace
from harness.words.numbers import count, number, whole

MOST_POINTS = 11_000
"""Most points that Prometheus answers at once."""
FEWEST_POINTS = 2
DAY_S = 86400.0
_ROUNDING = 1e-6
_ANSWERS = ("nv_inference_", "vllm:")
"""Counters of a server's answers, by the start of their names."""


def demand_of_query(
    source: Prometheus, query: str, *, end_s: float, length_s: float, step_s: float
) -> RateTrace:
    """The rates that an expression gives, such as `sum(rate(http_requests_total[1m]))`.

    Args:
        source: whom to ask.
        query: PromQL; one series, in requests per second.
        end_s: Unix time of the last value.
        length_s: from the first value to the last.
        step_s: between two values.

    Raises:
        UsageError: no answer, no data in the range, several series, steps that are missing, or
            values below 0.
    """
    if length_s / step_s > MOST_POINTS:
        raise UsageError(
            f"{whole(length_s / step_s)} values are more than the {count(MOST_POINTS)} that "
            "Prometheus gives at once",
            next_step="ask for a longer --step, or a shorter --since",
        )
    start_s = end_s - length_s
    span = f"from {_when(start_s)} to {_when(end_s)}"
    try:
        found = source.values(query, start_s=start_s, end_s=end_s, step_s=step_s)
    except QueryFailure as failure:
        raise UsageError(
            f"--query: {failure}", next_step="try the expression on the Prometheus' own page"
        ) from failure
    if len(found) > 1:
        raise UsageError(
            f"--query gives {len(found)} series, where demand is one",
            next_step=f"add them up: sum({query})",
        )
    if not found or len(found[0].values) < FEWEST_POINTS:
        raise UsageError(
            f"{source.url} has no data for {query} {span}",
            next_step="name a range in which it scraped: --since 24h, --until 2026-07-01T00:00:00Z",
        )
    (series,) = found
    _check_whole(series.times_s, start_s, end_s, step_s)
    if min(series.values) < 0:
        raise UsageError(
            f"--query gives {number(min(series.values))} at times, and a rate is never below 0",
            next_step="take rate() of a counter, not deriv() or delta()",
        )
    notes = [f"asked of {source.url}, {span}"]
    if any(name in query for name in _ANSWERS):
        notes.append(
            "the query counts answers: while the servers were saturated, more was asked of them "
            "than it shows; counters of a gateway in front of them show it"
        )
    return RateTrace(query, step_s, series.values, tuple(notes), series.times_s[0] % DAY_S)


def _check_whole(times_s: tuple[float, ...], start_s: float, end_s: float, step_s: float) -> None:
    """Refuse what has a gap: a step that is missing is not known to be a step without traffic."""
    expected = start_s
    after_last_s = start_s + (math.floor((end_s - start_s) / step_s + _ROUNDING) + 1) * step_s
    for at_s in (*times_s, after_last_s):
        if at_s > expected + step_s / 2:
            raise UsageError(
                f"--query has no value from {_when(expected)} on, for {whole(at_s - expected)} s",
                next_step="choose a range without a gap, or write `(...) or vector(0)` where no "
                "value means no traffic",
            )
        expected = at_s + step_s


def _when(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

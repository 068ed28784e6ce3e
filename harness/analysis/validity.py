"""Whether a trial may decide anything: each rule with its threshold, its reason, and the remedy.

A trial is invalid where something other than the served model set its numbers: the generator was
the limit, the server broke down, somebody else sent traffic. A model that is merely slow, or fails
now and then, is measured well: that is the objective's business. Few requests do not make a trial
invalid either; they make its intervals wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.analysis.latency import summarise
from harness.types import LoadResult, ServerMetrics, Workload

GENERATOR_CPU_LIMIT = 0.90
"""Cores of one generator process; above it latency is the generator's own queue."""
LATE_FLOOR_MS = 5.0
LATE_SHARE_OF_P95 = 0.10
"""Sending late (p99 of the delay) is tolerated up to the greater of the two."""
BROKEN_FAILURE_SHARE = 0.50
"""Above it the server is broken rather than unreliable; below it error_rate judges."""
RATE_SHORTFALL = 0.05
"""How far an open loop may stay below the rate it was asked for."""
COUNT_TOLERANCE = 0.02
COUNT_SKEW_S = 0.10
"""Server and client cut the window at their own moments; so much traffic may lie between them."""


def judge_validity(
    load: LoadResult, server: ServerMetrics, workload: Workload, server_alive: bool
) -> tuple[bool, str]:
    """Say whether a trial may decide, and if not why, with what to do about it.

    Returns:
        (True, "") or (False, every reason that applies, the gravest first).
    """
    if not server_alive:
        return False, "the server died during the trial: its log says why"
    reasons = [reason for check in _CHECKS for reason in check(load, server, workload)]
    return not reasons, "; ".join(reasons)


def _server_broken(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    failed = sum(load.failures.values())
    total = failed + load.completed
    first = f" (the first: {load.first_failure})" if load.first_failure else ""
    if not total:
        yield "no request completed within the window: raise duration_s"
    elif failed > BROKEN_FAILURE_SHARE * total:
        yield f"{failed:,} of {total:,} requests failed{first}: see the server's log"


def _counters_reset(_: LoadResult, server: ServerMetrics, __: Workload) -> Iterator[str]:
    if server.counters_reset:
        yield (
            "the server's counters were reset inside the window: it or the model was restarted; "
            "keep others from reloading the model and measure again"
        )


def _generator_saturated(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    if load.generator_cpu >= GENERATOR_CPU_LIMIT:
        yield (
            f"the load generator was the limit (its busiest process used "
            f"{load.generator_cpu:.0%} of a core): raise generator_processes"
        )


def _generator_late(load: LoadResult, _: ServerMetrics, __: Workload) -> Iterator[str]:
    delay, latency = summarise([load.schedule_delay]), summarise(load.histograms)
    if delay is None or latency is None:
        return
    late_ms = delay.percentiles["p99"].value_ms
    allowed_ms = max(LATE_FLOOR_MS, LATE_SHARE_OF_P95 * latency.percentiles["p95"].value_ms)
    if late_ms > allowed_ms:
        yield (
            f"the load generator sent late (p99 {late_ms:.1f} ms after the scheduled time; "
            f"{allowed_ms:.1f} ms are tolerated): give it free cores or raise generator_processes"
        )


def _rate_missed(load: LoadResult, _: ServerMetrics, workload: Workload) -> Iterator[str]:
    if workload.rate_per_s is None or load.duration_s <= 0:
        return
    reached_per_s = (load.completed + sum(load.failures.values())) / load.duration_s
    if reached_per_s < (1 - RATE_SHORTFALL) * workload.rate_per_s:
        yield (
            f"the rate was not reached ({reached_per_s:,.0f} of {workload.rate_per_s:,.0f} "
            "requests/s): lower the rate, or raise generator_processes"
        )


def _counts_disagree(load: LoadResult, server: ServerMetrics, workload: Workload) -> Iterator[str]:
    """Compare Triton's successes with the client's.

    An answer that the client rejects (an empty tensor, a time-out) is a success to Triton, so the
    server may count as many more as the client saw fail.
    """
    if server.requests is None or not load.completed:
        return
    rate_per_s = load.completed / load.duration_s if load.duration_s > 0 else 0.0
    slack = COUNT_TOLERANCE * load.completed + COUNT_SKEW_S * rate_per_s + workload.concurrency
    numbers = f"Triton answered {server.requests:,} requests, the load generator saw"
    if server.requests > load.completed + sum(load.failures.values()) + slack:
        yield f"{numbers} {load.completed:,}: keep other clients away from this server"
    elif server.requests < load.completed - slack:
        yield f"{numbers} {load.completed:,}: another server answers too, or counts are missing"


_Check = Callable[[LoadResult, ServerMetrics, Workload], Iterator[str]]
_CHECKS: tuple[_Check, ...] = (
    _server_broken,
    _counters_reset,
    _generator_saturated,
    _generator_late,
    _rate_missed,
    _counts_disagree,
)

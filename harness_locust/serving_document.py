"""What the page's tab 'Serving' shows of one test, as a JSON document.

Numbers that are not there are null, and why is said in words: never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import hdr
from harness.load.records.series import HistoryPoint, percentiles_ms
from harness.metrics import SHOWN_PERCENTILES, metric_named
from harness.planning.assessment import Assessment
from harness.planning.clauses import DEFAULT_ERROR_RATE, Judgement
from harness.study.clauses import quality_clauses
from harness.telemetry.readings import Stretch
from harness.types import (
    ITL,
    SCHEDULE_DELAY,
    TTFT,
    Decision,
    LatencySummary,
    ServerMetrics,
)
from harness.types.metrics import MetricKind
from harness_locust.judgement import brief_remark, in_locust_words, is_told, warnings_of
from harness_locust.results import PhaseResult, Results
from harness_locust.serving_watch import Watched, confidence_of
from harness_locust.summary import QUANTILES

NOTHING_OF_STREAMS = "they say nothing of answers that come token by token"
"""Triton's durations end with the first response, and its batches are of one prompt."""
NO_OBJECTIVE = "No objective was given: enter one in the form, such as p95 < 50 ms."


def test_document(watched: Watched, now_s: float) -> dict[str, Any]:
    """Everything the tab shows of a test, running or over."""
    plan, results = watched.plan, watched.results
    whole = results.whole(now_s)
    delays = hdr.merge([one.of(SCHEDULE_DELAY) for one in (whole.total.ok, whole.total.failed)])
    points = results.history.points(now_s if watched.ended_s is not None else results.settled_s)
    verdict = _verdict(watched)
    return {
        **heading(watched),
        "host": plan.host,
        "elapsed_s": now_s,
        "bounds": [
            {
                "metric": one.metric,
                "span": metric_named(one.metric).span,
                "value_ms": one.value,
                "text": one.text,
            }
            for one in plan.slo.constraints
            if metric_named(one.metric).kind is MetricKind.LATENCY
        ],
        "verdict": verdict,
        "totals": {
            "window_s": whole.duration_s,
            "requests": hdr.total(whole.total.ok.response),
            "requests_per_s": whole.requests_per_s,
            "inferences_per_s": whole.inferences_per_s,
            "failed": sum(whole.total.failures.values()),
            "failures": dict(whole.total.failures),
            "dropped": whole.total.dropped,
            "mean_ms": hdr.mean_ms(whole.total.ok.response),
            **{
                f"{name}_ms": hdr.value_at(whole.total.ok.response, QUANTILES[name])
                for name in SHOWN_PERCENTILES
            },
            "schedule_delay_p99_ms": hdr.value_at(delays, 0.99),
        },
        "phases": [
            {"name": one.name, "start_s": one.start_s, "end_s": one.start_s + one.duration_s}
            for one in results.phases(now_s)
            if one.duration_s
        ],
        "series": _series(points),
        "streams": _streams(watched, whole, points),
        "server": _server(watched, points),
        "generators": [
            {
                "process": one.name,
                "cpu_cores": one.health.cpu_cores,
                "loop_lag_p99_ms": hdr.value_at(one.loop_lag, 0.99),
                "memory_bytes": one.memory_bytes,
                "lost": one.lost,
                "remark": brief_remark(one, results, now_s),
            }
            for one in results.workers
        ],
        "warnings": _warnings(results, now_s, "; ".join(verdict["reasons"])),
        "notices": [{"at_s": at_s, "text": text} for at_s, text in watched.poll.notices],
        "first_failure": results.attendance.first_failure,
    }


def heading(watched: Watched) -> dict[str, Any]:
    """The heading that says which test this is."""
    plan = watched.plan
    workload = plan.workload
    mode = "open loop" if plan.is_open_loop else f"closed loop of {watched.users}"
    if plan.sweep:
        mode = f"sweep over {', '.join(map(str, plan.sweep))} in flight"
    elif workload.rate_per_s is not None:
        mode = f"open loop, {workload.rate_per_s:g} requests/s"
    batch = "a mix of batches" if workload.batch_mix else f"batch {workload.client_batch_size}"
    if workload.generation is not None:
        batch = f"streams, {workload.generation.traffic}"
    lengths = ", ".join(f"{size}:{weight:g}" for size, weight in workload.length_mix)
    return {
        "number": watched.number,
        "test": watched.results.test,
        "started_utc": watched.started_utc,
        "variant": plan.model,
        "protocol": str(workload.protocol),
        "load": ", ".join(filter(None, [mode, batch, lengths and f"lengths {lengths}"])),
        "objective": plan.slo.text,
        "running": watched.ended_s is None,
    }


def summary_rows(watched: Watched) -> list[dict[str, Any]]:
    """A row a judged phase of a test, for the table of the session."""
    return [
        {
            **heading(watched),
            "phase": phase if len(watched.verdicts) > 1 else "",
            "decision": _decision(watched, one),
            "requests_per_s": one.result.throughput_requests_per_s,
            "failed": one.result.failures + one.result.dropped,
            **_interval(one.result.latency),
        }
        for phase, one in watched.verdicts.items()
    ]


def _warnings(results: Results, now_s: float, reason: str) -> list[str]:
    """Warnings that the verdict does not already contain: each is shown once on the page."""
    return [one for one in warnings_of(results, now_s) if not is_told(one, reason)]


def _interval(latency: LatencySummary | None) -> dict[str, float | None]:
    return {
        f"{name}_ms": latency.percentiles[name].value_ms if latency else None
        for name in SHOWN_PERCENTILES
    }


def _decision(watched: Watched, assessment: Assessment) -> str:
    if watched.plan.slo.constraints or assessment.decision is Decision.INVALID:
        return str(assessment.decision)
    return "none"


def _verdict(watched: Watched) -> dict[str, Any]:
    """What the latest look said, and when the next is due."""
    assessment = watched.verdicts.get(watched.phase)
    confidence = confidence_of(watched.plan)
    document: dict[str, Any] = {
        "final": watched.judged,
        "confidence": confidence,
        "next_look_s": watched.next_look_s if watched.ended_s is None else None,
        "window_s": None,
        "needed_s": None,
        "phase": watched.phase if watched.plan.sweep else "",
        "not_measured": [one.text for one in quality_clauses(watched.plan.slo)],
    }
    if assessment is None:
        over = watched.judged
        said = "No request was measured." if over else "The evidence has not been looked at yet."
        return document | {"decision": "invalid" if over else "undecided", "reasons": [said]}
    reasons = [one.reason for one in _told(assessment)] or [assessment.reason]
    if assessment.decision is Decision.INVALID:
        reasons = [in_locust_words(assessment.reason)]
    elif not watched.plan.slo.constraints:
        reasons = [NO_OBJECTIVE]
    return document | {
        "decision": _decision(watched, assessment),
        "reasons": reasons,
        "window_s": assessment.result.duration_s,
        "needed_s": watched.needed_s(),
    }


def _told(assessment: Assessment) -> Sequence[Judgement]:
    """The clauses that were written, and any other that does not hold."""
    written = [one for one in assessment.findings if one.decision is not Decision.PASS]
    return written or [one for one in assessment.findings if one.constraint != DEFAULT_ERROR_RATE]


def _series(points: Sequence[HistoryPoint]) -> dict[str, Any]:
    """A list a column: the page draws columns."""
    return {
        "at_s": [one.start_s + one.length_s / 2 for one in points],
        "p50_ms": [one.p50_ms for one in points],
        "p95_ms": [one.p95_ms for one in points],
        "p99_ms": [one.p99_ms for one in points],
        "requests_per_s": [one.requests_per_s for one in points],
        "inferences_per_s": [one.inferences_per_s for one in points],
        "bad_per_s": [(sum(one.failures.values()) + one.dropped) / one.length_s for one in points],
    }


def _streams(
    watched: Watched, whole: PhaseResult, points: Sequence[HistoryPoint]
) -> dict[str, Any] | None:
    """Of answers that come token by token; None where they do not."""
    if watched.plan.workload.generation is None:
        return None
    total, seconds = whole.total, whole.duration_s or 1.0
    engine, known = watched.poll.engine, [one.stream for one in points]
    judged = any(metric_named(c.metric).kind is MetricKind.LATENCY
                 for c in watched.plan.slo.constraints)  # fmt: skip
    return {
        "output_tokens_per_s": total.streams.output_tokens / seconds,
        "input_tokens": total.streams.input_tokens,
        "output_tokens": total.streams.output_tokens,
        "left": total.streams.left,
        "irregular": dict(total.streams.irregular),
        "good_per_s": total.good / seconds if judged else None,
        **{name: percentiles_ms([total], name) for name in (TTFT, ITL)},
        "running": engine[-1].running if engine else None,
        "waiting": engine[-1].waiting if engine else None,
        "series": {
            "output_tokens_per_s": [one and one.output_tokens_per_s for one in known],
            "good_per_s": [one.good_per_s if one and judged else None for one in known],
            **{
                f"{span}_{name}_ms": [one and one.spans_ms[span][name] for one in known]
                for span in (TTFT, ITL)
                for name in SHOWN_PERCENTILES
            },
        },
        "engine": {
            "at_s": [one.at_s for one in engine],
            "running": [one.running for one in engine],
            "waiting": [one.waiting for one in engine],
        },
    }


def _server(watched: Watched, points: Sequence[HistoryPoint]) -> dict[str, Any]:
    poll = watched.poll
    stretches, host, problem = poll.counters.stretches, poll.host, poll.problem
    if watched.plan.workload.generation is not None:
        stretches, problem = [], NOTHING_OF_STREAMS
    now_s = watched.ended_s if watched.ended_s is not None else float("inf")
    total = poll.counters.total(watched.counted_from_s, now_s)
    whole_ms = hdr.mean_ms(watched.results.everything().ok.response)
    metrics = [one.metrics for one in stretches]
    clients = [_mean_at(points, one) for one in stretches]
    return {
        "offered": bool(stretches),
        "problem": problem,
        "resets": poll.counters.resets,
        "requests": total.requests,
        "inferences": total.inferences,
        "executions": total.executions,
        "batch_mean": total.batch_mean,
        "cache_hits": total.cache_hits,
        "version": total.version,
        "batch_sizes": sorted(total.batch_sizes.items()),
        "where": _where(total, whole_ms),
        "gpu_problem": poll.gpu_problem,
        "gpu_utilization": host.gpu_utilization,
        "gpu_memory_bytes": host.gpu_memory_bytes,
        "series": {
            "at_s": [(one.start_s + one.end_s) / 2 for one in stretches],
            "gpu_utilization": [one.gpu_utilization for one in stretches],
            **_columns([_where(one, ms) for one, ms in zip(metrics, clients, strict=True)]),
        },
    }


def _where(server: ServerMetrics, client_mean_ms: float | None) -> dict[str, float | None]:
    """Where a mean request's time goes; the client's part is what the server does not account for.

    Computing is of all requests too, those that the response cache answered with none of it. Both
    sides cut time by their own clocks: where that makes the server's part the greater one, the
    rest is 0.
    """
    client_ms = None
    if client_mean_ms is not None and server.queue_ms is not None:
        client_ms = max(0.0, client_mean_ms - (server.accounted_ms or server.queue_ms))
    return {
        "client_ms": client_ms,
        "queue_ms": server.queue_ms,
        **{
            name: None if ms is None else ms * server.computed_share
            for name, ms in (
                ("compute_input_ms", server.compute_input_ms),
                ("compute_infer_ms", server.compute_infer_ms),
                ("compute_output_ms", server.compute_output_ms),
            )
        },
    }


def _columns(rows: Sequence[dict[str, float | None]]) -> dict[str, list[float | None]]:
    names = _where(ServerMetrics(), None)
    return {name: [row[name] for row in rows] for name in names}


def _mean_at(points: Sequence[HistoryPoint], stretch: Stretch) -> float | None:
    """The clients' mean latency about the time of a stretch between two readings."""
    if not points:
        return None
    at = int((stretch.start_s + stretch.end_s) / 2 / points[0].length_s)
    return points[at].mean_ms if at < len(points) else None

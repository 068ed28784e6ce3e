"""A load that the harness watches but did not start, as a trial: measured, checked and judged."""

from __future__ import annotations

import dataclasses

from harness.analysis.validity import judge_validity
from harness.pipeline.joining import with_clients, with_evidence
from harness.planning.assessment import Assessment, assess
from harness.storage import utc_now
from harness.types import (
    HostMetrics,
    LoadResult,
    ServerMetrics,
    ServiceLevelObjective,
    Trial,
    TrialResult,
)


def assess_load(
    trial: Trial,
    load: LoadResult,
    slo: ServiceLevelObjective,
    *,
    server: ServerMetrics,
    host: HostMetrics,
    confidence: float,
    spoilt: str = "",
) -> Assessment | None:
    """Join both sides of a load's window and judge it.

    Args:
        trial: what was asked for.
        load: what the clients saw.
        slo: the objective; without clauses only the measurement itself is judged.
        server: what the server counted in about the same time.
        host: of the machine that serves.
        confidence: of every interval.
        spoilt: what else the measurement suffered, such as a lost process; empty for nothing.

    Returns:
        The assessment, whose `result` carries the decision; None while the window is empty.
    """
    if not load.window:
        return None
    blank = TrialResult(
        trial=trial, sha256="", started_utc=utc_now(), duration_s=0.0, requests=0, failures=0,
        failures_by_kind={}, throughput_requests_per_s=0.0, throughput_inferences_per_s=0.0,
        latency=None, schedule_delay_p99_ms=None, generator_cpu=0.0, server=ServerMetrics(),
        host=HostMetrics(), valid=False,
    )  # fmt: skip
    result = with_clients(blank, load.window, load.slice_s, confidence)
    result = with_evidence(result, load, server, host)
    valid, reason = judge_validity(load, server, trial.workload, server_alive=True, host=host)
    reasons = "; ".join(filter(None, [spoilt, reason]))
    result = dataclasses.replace(result, valid=valid and not spoilt, invalid_reason=reasons)
    judged = assess(slo, result)
    result = dataclasses.replace(result, decision=judged.decision, reason=judged.reason)
    return dataclasses.replace(judged, result=result)

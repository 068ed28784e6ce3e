"""From slices of time, and the server's counters over the same window, to a trial's result."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from harness import hdr
from harness.analysis.failures import failure_design_effect
from harness.analysis.latency import summarise
from harness.analysis.throughput import throughput_bounds
from harness.analysis.validity import COUNT_SKEW_S, mean_in_flight
from harness.load.engine.recorder import merged_latencies
from harness.load.records.series import series_rows, slice_rows
from harness.runs.folder import RunFolder
from harness.system.storage import replace_text, storage_errors
from harness.types import (
    GeneratorEvidence,
    HostMetrics,
    Latencies,
    LoadMode,
    LoadResult,
    ModelVariant,
    ServerMetrics,
    ServiceLatency,
    TimeSlice,
    Trial,
    TrialResult,
)


def unmeasured(trial: Trial, variant: ModelVariant, started_utc: str) -> TrialResult:
    """A result that nothing was measured of yet."""
    return TrialResult(
        trial=trial,
        sha256=variant.sha256,
        started_utc=started_utc,
        duration_s=0.0,
        requests=0,
        failures=0,
        failures_by_kind={},
        throughput_requests_per_s=0.0,
        throughput_inferences_per_s=0.0,
        latency=None,
        schedule_delay_p99_ms=None,
        generator_cpu=0.0,
        server=ServerMetrics(),
        host=HostMetrics(),
        valid=False,
    )


def with_clients(
    result: TrialResult, window: Sequence[TimeSlice], slice_s: float, confidence: float
) -> TrialResult:
    """Add what the clients saw in a window's slices.

    Requests that the open loop dropped stand apart from those that failed; percentiles take them
    as slower than any, and an objective's error rate as failed.
    """
    duration_s = round(len(window) * slice_s, 6)
    latency = summarise(
        [one.ok.response for one in window],
        confidence=confidence,
        dropped=[one.dropped for one in window],
        closed_slice_s=slice_s if result.trial.workload.load_mode is LoadMode.CLOSED else None,
    )
    failures: Counter[str] = Counter()
    for one in window:
        failures.update(one.failures)
    dropped = sum(one.dropped for one in window)
    requests = sum(hdr.total(one.ok.response) for one in window)
    rates = throughput_bounds(
        window,
        slice_s,
        result.trial.workload,
        confidence=confidence,
        mean_ms=latency.mean_ms if latency else None,
    )
    return dataclasses.replace(
        result,
        duration_s=duration_s,
        requests=requests,
        failures=failures.total(),
        failures_by_kind=dict(failures),
        dropped=dropped,
        offered_requests_per_s=(requests + failures.total() + dropped) / duration_s,
        throughput_requests_per_s=sum(one.completed for one in window) / duration_s,
        throughput_inferences_per_s=sum(one.inferences for one in window) / duration_s,
        throughput_low_inferences_per_s=rates[0] if rates else None,
        throughput_high_inferences_per_s=rates[1] if rates else None,
        failure_design_effect=failure_design_effect(window, confidence),
        latency=latency,
        service=_service(window),
        schedule_delay_p99_ms=hdr.value_at(
            hdr.merge(one.ok.schedule_delay for one in window), 0.99
        ),
    )


def with_evidence(
    result: TrialResult, load: LoadResult, server: ServerMetrics, host: HostMetrics
) -> TrialResult:
    """Add what the generators say of themselves, and the server's and the machine's side."""
    return dataclasses.replace(
        result,
        generator_cpu=load.generator_cpu,
        loop_lag_p99_ms=_worst_lag(load.generators),
        in_flight_mean=mean_in_flight(load),
        warmup_s=load.warmup_s,
        server=server,
        host=host,
    )


def reading_lateness_s(load: LoadResult, edges_ns: tuple[int, int]) -> float:
    """How far the server's counters were read from the window's edges, both together.

    Args:
        load: has the window.
        edges_ns: CLOCK_MONOTONIC: when they were read.
    """
    opened_ns, closed_ns = edges_ns
    late_ns = abs(opened_ns - load.window_start_ns) + abs(closed_ns - load.window_end_ns)
    return late_ns / 1e9


def allowing_for_lateness(server: ServerMetrics, load: LoadResult, late_s: float) -> ServerMetrics:
    """Let `requests_uncertainty` hold the traffic between the edges and the readings.

    What every reading misses the edges by is tolerated anyway.
    """
    beyond_s = late_s - COUNT_SKEW_S
    if beyond_s <= 0 or server.requests is None or load.duration_s <= 0:
        return server
    unsure = math.ceil(beyond_s * load.completed / load.duration_s)
    return dataclasses.replace(server, requests_uncertainty=server.requests_uncertainty + unsure)


def _service(window: Sequence[TimeSlice]) -> ServiceLatency | None:
    merged = hdr.merge(one.ok.service for one in window)
    p50, p95, p99 = (hdr.value_at(merged, quantile) for quantile in (0.50, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return ServiceLatency(p50, p95, p99)


def _worst_lag(generators: Sequence[GeneratorEvidence]) -> float | None:
    lags = (hdr.value_at(one.loop_lag, 0.99) for one in generators)
    return max((lag for lag in lags if lag is not None), default=None)


def write_load(
    folder: RunFolder, trial: Trial, load: LoadResult, window: Sequence[TimeSlice] | None = None
) -> str:
    """Store what the clients saw; returns the main histogram's path relative to the folder.

    `window` holds the slices that the trial's own row is made of, where they are not all that were
    measured.

    Raises:
        StorageError: it cannot be written.
    """
    name = trial.trial_id
    for part in ("histograms", "series"):
        with storage_errors(folder.path):
            (folder.path / part).mkdir(exist_ok=True)
    window = load.window if window is None else window
    main = f"histograms/{name}.hdr"
    response = hdr.merge(one.ok.response for one in window)
    replace_text(folder.path / main, hdr.encode(response) + "\n")
    warmup = [one for one in load.slices if one.index < window[0].index] if window else []
    phases = {"warmup": _encoded(warmup), "measured": _encoded(window)}
    replace_text(folder.path / f"histograms/{name}.json", json.dumps(phases, indent=1) + "\n")
    for file, rows in (
        (f"series/{name}.csv", series_rows(load)),
        (f"series/{name}.slices.csv", slice_rows(load)),
    ):
        with storage_errors(folder.path):
            pd.DataFrame(rows).to_csv(folder.path / file, index=False)
    return main


def records_folder(folder: RunFolder, trial: Trial) -> Path:
    """Where the generators write every request of a trial."""
    return folder.path / "records" / trial.trial_id


@contextmanager
def completing_records(folder: Path | None) -> Iterator[None]:
    """Complete the records of generators that were killed, whatever ended the trial.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        yield
    finally:
        if folder is not None:
            from harness.load.records.requests import (
                recover_records,  # pyarrow takes 90 MB of memory
            )

            recover_records(folder)


def _encoded(slices: Sequence[TimeSlice]) -> dict[str, dict[str, str]]:
    return {
        "ok": _spans(merged_latencies(one.ok for one in slices)),
        "failed": _spans(merged_latencies(one.failed for one in slices)),
    }


def _spans(latencies: Latencies) -> dict[str, str]:
    spans = asdict(latencies)
    return {span: hdr.encode(getattr(latencies, span)) for span in spans}

"""How a trial's result is made of time slices and counters, and what it leaves in the folder."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import hdr
from harness.analysis.percentiles import summarise
from harness.analysis.throughput import (
    failure_design_effect,
    nominal_per_s,
    rate_bounds,
    throughput_bounds,
)
from harness.analysis.validity import COUNT_SKEW_S, mean_in_flight, steadier_warmup_s
from harness.load.engine.slices import merged_latencies, merged_streams
from harness.load.records.series import series_rows, slice_rows
from harness.planning.assessment import Assessment, assess
from harness.runs.folder import RunFolder
from harness.system.storage import replace_text, storage_errors
from harness.types import (
    RESPONSE,
    SPANS,
    GeneratorHealth,
    Goodput,
    HostMetrics,
    LatencySpan,
    LatencySummary,
    LoadMode,
    LoadResult,
    RequestBound,
    ServerMetrics,
    ServiceLevelObjective,
    StreamFigures,
    TimeSlice,
    Trial,
    TrialResult,
    Workload,
)
from harness.types.estimates import Interval
from harness.types.streams import NO_STREAMS


@dataclass(frozen=True)
class BegunTrial:
    """A trial of which nothing was measured yet."""

    trial: Trial
    sha256: str
    """SHA-256 of the artefact that the server has loaded; empty where it is not known."""
    started_utc: str


@dataclass(frozen=True)
class ClientSide:
    """What the clients saw in a window; the fields are those of `TrialResult`."""

    duration_s: float
    requests: int
    failures_by_kind: Mapping[str, int]
    dropped: int
    throughput_requests_per_s: float
    throughput_inferences_per_s: float
    throughput_low_inferences_per_s: float | None
    throughput_high_inferences_per_s: float | None
    latencies: Mapping[str, LatencySummary]
    failure_design_effect: float
    streams: StreamFigures | None = None
    goodput: Goodput | None = None


@dataclass(frozen=True)
class GeneratorSide:
    """What the load generators say of themselves; the fields are those of `TrialResult`."""

    generator_cpu: float = 0.0
    loop_lag_p99_ms: float | None = None
    in_flight_mean: float | None = None
    warmup_s: float = 0.0
    steadier_warmup_s: float | None = None
    records_problem: str = ""


@dataclass(frozen=True)
class ServerSide:
    """What the server and its machine say of a window; the fields are those of `TrialResult`."""

    server: ServerMetrics = field(default_factory=ServerMetrics)
    host: HostMetrics = field(default_factory=HostMetrics)


def client_side(
    window: Sequence[TimeSlice],
    slice_s: float,
    workload: Workload,
    confidence: float,
    *,
    only_judged: bool = False,
    bounds: Sequence[RequestBound] = (),
) -> ClientSide:
    """Sum up what the clients saw in a window's slices.

    Requests that the open loop dropped stand apart from those that failed; percentiles of a span
    that counts them take them as slower than any, and an objective's error rate as failed.

    Args:
        window: slices in order of time, at least one.
        slice_s: the length of each.
        workload: that the load is compared with.
        confidence: of every interval; 0 to 1.
        only_judged: leave out the spans that no objective speaks of.
        bounds: the clauses by which the generators counted what is `good`; empty: by none.
    """
    duration_s = round(len(window) * slice_s, 6)
    spans = [span for span in SPANS.values() if span.judged or not only_judged]
    latencies = _summaries(spans, window, slice_s, workload, confidence)
    failures: Counter[str] = Counter()
    for one in window:
        failures.update(one.failures)
    response = latencies.get(RESPONSE)
    low_per_s, high_per_s = throughput_bounds(
        window,
        slice_s,
        workload,
        confidence=confidence,
        mean_ms=response.mean_ms if response else None,
    ) or (None, None)
    return ClientSide(
        duration_s=duration_s,
        requests=sum(hdr.total(one.ok.response) for one in window),
        failures_by_kind=dict(failures),
        dropped=sum(one.dropped for one in window),
        throughput_requests_per_s=sum(one.completed for one in window) / duration_s,
        throughput_inferences_per_s=sum(one.inferences for one in window) / duration_s,
        throughput_low_inferences_per_s=low_per_s,
        throughput_high_inferences_per_s=high_per_s,
        latencies=latencies,
        failure_design_effect=failure_design_effect(window, confidence),
        streams=_stream_figures(window, slice_s, confidence),
        goodput=_goodput(window, slice_s, workload, confidence, bounds) if bounds else None,
    )


def _stream_figures(
    window: Sequence[TimeSlice], slice_s: float, confidence: float
) -> StreamFigures | None:
    counts = merged_streams(window)
    if counts == NO_STREAMS:
        return None
    tokens = [one.streams.output_tokens for one in window]
    value = sum(tokens) / (len(window) * slice_s)
    found = rate_bounds(tokens, slice_s, confidence=confidence)
    return StreamFigures(counts, value, found and Interval(value, *found))


def _goodput(
    window: Sequence[TimeSlice],
    slice_s: float,
    workload: Workload,
    confidence: float,
    bounds: Sequence[RequestBound],
) -> Goodput:
    good = [one.good for one in window]
    value = sum(good) / (len(window) * slice_s)
    found = rate_bounds(
        good,
        slice_s,
        confidence=confidence,
        due=[_due(one) for one in window],
        nominal_per_s=nominal_per_s(workload) if workload.load_mode is LoadMode.OPEN else None,
    )
    return Goodput(value, found and Interval(value, *found), tuple(bounds))


def _due(one: TimeSlice) -> int:
    """Requests that fell due in a slice, whatever became of them."""
    lost = sum(one.failures.values()) + one.dropped + one.streams.left
    return hdr.total(one.ok.response) + lost


def generator_side(load: LoadResult) -> GeneratorSide:
    """Sum up what the generators of a load say of themselves."""
    return GeneratorSide(
        generator_cpu=load.generator_cpu,
        loop_lag_p99_ms=_worst_lag(load.generators),
        in_flight_mean=mean_in_flight(load),
        warmup_s=load.warmup_s,
        steadier_warmup_s=steadier_warmup_s(load),
        records_problem=load.records_problem,
    )


def assess_trial(
    begun: BegunTrial,
    slo: ServiceLevelObjective,
    clients: ClientSide,
    *,
    generators: GeneratorSide | None = None,
    served: ServerSide | None = None,
    invalid_reason: str = "",
    histogram_file: str = "",
) -> Assessment:
    """Make a trial's result of its parts, and judge it: the one place where results are made.

    Args:
        begun: which trial it is.
        slo: the objective; without clauses only the measurement itself is judged.
        clients: what they saw.
        generators: what they say of themselves; None while the load runs, as the next.
        served: what the server counted, and what is known of its machine.
        invalid_reason: why the measurement decides nothing; empty where it does.
        histogram_file: of the latency that counts, in the run folder.

    Returns:
        The assessment; its `result` carries decision and reason.
    """
    failures = sum(clients.failures_by_kind.values())
    left = clients.streams.counts.left if clients.streams else 0
    offered = clients.requests + failures + clients.dropped + left
    result = TrialResult(
        **_fields(begun),
        **_fields(clients),
        **_fields(generators or GeneratorSide()),
        failures=failures,
        offered_requests_per_s=offered / clients.duration_s if clients.duration_s else 0.0,
        **_fields(served or ServerSide()),
        valid=not invalid_reason,
        invalid_reason=invalid_reason,
        histogram_file=histogram_file,
        pricing=slo.pricing,
    )
    judged = assess(slo, result)
    result = dataclasses.replace(result, decision=judged.decision, reason=judged.reason)
    return dataclasses.replace(judged, result=result)


def without_measurement(begun: BegunTrial, slo: ServiceLevelObjective, reason: str) -> TrialResult:
    """The result of a trial that could not be measured, and why."""
    nothing = ClientSide(0.0, 0, {}, 0, 0.0, 0.0, None, None, {}, 1.0)
    return assess_trial(begun, slo, nothing, invalid_reason=reason).result


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
    if beyond_s <= 0 or server.requests is None:
        return server
    unsure = math.ceil(beyond_s * load.busiest_per_s)
    return dataclasses.replace(server, requests_uncertainty=server.requests_uncertainty + unsure)


def without_durations(server: ServerMetrics) -> ServerMetrics:
    """What Triton counts of a model that streams: its durations and executions mean nothing there.

    They end with the first response, and a request counts when its last has gone.
    """
    kept = ServerMetrics(failures=server.failures, version=server.version)
    return dataclasses.replace(
        kept,
        counters_reset=server.counters_reset,
        exchanged=server.exchanged,
        problem=server.problem,
    )


def _summaries(
    spans: Iterable[LatencySpan],
    window: Sequence[TimeSlice],
    slice_s: float,
    workload: Workload,
    confidence: float,
) -> dict[str, LatencySummary]:
    """Latency summaries of the successes, by span; a span without values is absent."""
    dropped = [one.dropped for one in window]
    bounded = workload.keeps_in_flight
    found = {
        span.name: summarise(
            [one.ok.of(span.name) for one in window],
            confidence=confidence,
            dropped=dropped if span.counts_dropped else (),
            # Only the response time is as long as a closed loop remembers (Little).
            closed_slice_s=slice_s if bounded and span.name == RESPONSE else None,
        )
        for span in spans
    }
    return {name: summary for name, summary in found.items() if summary is not None}


def _fields(part: Any) -> dict[str, Any]:
    """A dataclass's fields by name, as they are."""
    return {one.name: getattr(part, one.name) for one in dataclasses.fields(part)}


def _worst_lag(generators: Sequence[GeneratorHealth]) -> float | None:
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
    import pandas as pd  # half a second of every start, for its end

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
    """Begin with an empty folder, and complete the records of generators that were killed.

    What is in the folder is of an earlier attempt at the trial, which may have had more workers:
    readers of the folder would count its requests too.

    Raises:
        StorageError: they cannot be written, or the earlier ones not be removed.
    """
    if folder is not None and folder.exists():
        with storage_errors(folder):
            shutil.rmtree(folder)
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
        outcome: {name: hdr.encode(latencies.of(name)) for name in latencies.names()}
        for outcome, latencies in (
            ("ok", merged_latencies(one.ok for one in slices)),
            ("failed", merged_latencies(one.failed for one in slices)),
        )
    }

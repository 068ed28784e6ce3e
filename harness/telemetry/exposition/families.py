"""The metric families of the harness's own page, from a session's sums.

`docs/telemetry.md` lists every metric. Units are Prometheus' base units; labels have few values
each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from operator import attrgetter

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from harness.telemetry.exposition.buckets import FoldedHistogram
from harness.telemetry.exposition.monitor import LoadMonitor, LoadTotals, Rates
from harness.types import SPANS, Decision, TrialResult
from harness.types.latency import UNBOUNDED_MS
from harness.types.metrics import PERCENTILES, MetricKind
from harness.types.streams import NO_STREAMS

LOAD = ["variant", "protocol", "load_mode", "client_batch_size"]
BOUNDS: Mapping[MetricKind, tuple[str, str]] = {
    MetricKind.LATENCY: ("seconds", "Latency bound of the objective."),
    MetricKind.SHARE: ("ratio", "Error rate bound of the objective."),
    MetricKind.RATE: ("per_second", "Throughput bound of the objective, inferences per second."),
    MetricKind.QUALITY: (
        "score", "Quality bound of the objective; of the teacher's value where relative.",
    ),
    MetricKind.COST: ("cost", "Cost bound of the objective."),
}  # fmt: skip
"""By kind of metric, the unit that ends the name of the gauge of its bounds, and its help."""


@dataclass(frozen=True)
class StreamCounter:
    """What is counted of streams since the session began."""

    name: str
    text: str
    value: Callable[[LoadTotals], float]


STREAM_COUNTERS = (
    StreamCounter(
        "harness_output_tokens",
        "Tokens of successful answers that came token by token.",
        attrgetter("streams.output_tokens"),
    ),
    StreamCounter(
        "harness_input_tokens",
        "Tokens of the prompts of those answers, where somebody counts them.",
        attrgetter("streams.input_tokens"),
    ),
    StreamCounter(
        "harness_good_requests",
        "Streams that met every clause of the objective on a latency.",
        attrgetter("good"),
    ),
    StreamCounter(
        "harness_left_requests",
        "Streams that their client left on purpose.",
        attrgetter("streams.left"),
    ),
)


def families(monitor: LoadMonitor, rates: Rates | None) -> Iterator[Metric]:
    """Every metric family.

    Args:
        monitor: nothing may change it meanwhile.
        rates: of the running load; None without one, and then its gauges are absent.
    """
    yield from _info()
    yield from _requests(monitor)
    yield from _latencies(monitor)
    yield from _streams(monitor)
    yield from _running(monitor, rates)
    yield from _generators(monitor)
    yield from _objective(monitor)
    yield from _trials(monitor)
    yield from _verdict(monitor)


def _info() -> Iterator[Metric]:
    family = GaugeMetricFamily("harness_info", "Version of the harness.", labels=["version"])
    family.add_metric([_version()], 1)
    yield family


def _requests(monitor: LoadMonitor) -> Iterator[Metric]:
    yield _counter(
        monitor, "harness_requests", "Requests that were answered correctly.",
        lambda totals: totals.requests,
    )  # fmt: skip
    yield _counter(
        monitor, "harness_inferences", "Samples of the requests that were answered.",
        lambda totals: totals.inferences,
    )  # fmt: skip
    yield _counter(
        monitor, "harness_dropped_requests",
        "Requests of an open loop that fell due when the limit of requests in flight was reached.",
        lambda totals: totals.dropped,
    )  # fmt: skip
    failures = CounterMetricFamily(
        "harness_failed_requests", "Requests that failed, by kind.", labels=[*LOAD, "kind"]
    )
    for labels, totals in monitor.loads.items():
        for kind, count in sorted(totals.failures.items()):
            failures.add_metric([*labels, kind], count)
    yield failures


def _latencies(monitor: LoadMonitor) -> Iterator[Metric]:
    """A histogram for each span that is exposed and that a load has had."""
    for span in SPANS.values():
        if not span.exposed_as:
            continue
        family = HistogramMetricFamily(span.exposed_as, span.meaning, labels=LOAD)
        for labels, totals in monitor.loads.items():
            if (found := totals.spans.get(span.name)) is not None:
                _add_histogram(family, [*labels], found)
        if span.is_between_moments or family.samples:
            yield family


def _streams(monitor: LoadMonitor) -> Iterator[Metric]:
    """Tokens and good requests, of loads whose answers come token by token; absent without any."""
    streaming = {
        labels: totals for labels, totals in monitor.loads.items() if totals.streams != NO_STREAMS
    }
    if not streaming:
        return
    for counter in STREAM_COUNTERS:
        family = CounterMetricFamily(counter.name, counter.text, labels=LOAD)
        for labels, totals in streaming.items():
            family.add_metric(labels, counter.value(totals))
        yield family


def _running(monitor: LoadMonitor, rates: Rates | None) -> Iterator[Metric]:
    """Gauges of the load that runs; absent while none does."""
    running = monitor.running
    yield GaugeMetricFamily(
        "harness_load_running", "1 while a load runs.", value=float(running is not None)
    )
    if running is None or rates is None:
        return
    values = {
        "harness_asked_requests_per_second": (
            "Nominal rate of the open loop that runs.", running.rate_per_s,
        ),
        "harness_asked_in_flight_requests": (
            "Requests in flight that the closed loop that runs asks for.", running.concurrency,
        ),
        "harness_offered_requests_per_second": (
            "Requests that ended or were dropped, over the last ten seconds.", rates.offered_per_s,
        ),
        "harness_achieved_requests_per_second": (
            "Requests that ended, over the last ten seconds.", rates.ended_per_s,
        ),
        "harness_in_flight_requests": (
            "Mean requests in flight over the last ten seconds, by Little's law.", rates.in_flight,
        ),
    }  # fmt: skip
    for name, (text, value) in values.items():
        if value is not None:
            family = GaugeMetricFamily(name, text, labels=LOAD)
            family.add_metric(running.labels, value)
            yield family


def _generators(monitor: LoadMonitor) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "harness_generator_cpu_seconds",
        "CPU time of a load-generating process while it drove load; one core is its limit.",
        labels=["worker"],
    )
    memory = GaugeMetricFamily(
        "harness_generator_memory_bytes",
        "Resident memory of a load-generating process.",
        labels=["worker"],
    )
    lag = HistogramMetricFamily(
        "harness_generator_loop_lag_seconds",
        "How much later than requested a load-generating process woke.",
        labels=["worker"],
    )
    for name, totals in monitor.generators.items():
        cpu.add_metric([name], totals.cpu_s)
        memory.add_metric([name], totals.memory_bytes)
        _add_histogram(lag, [name], totals.loop_lag)
    yield from (cpu, memory, lag)


def _objective(monitor: LoadMonitor) -> Iterator[Metric]:
    clause_labels = ["family", "constraint"]
    bounds = {
        kind: GaugeMetricFamily(
            f"harness_objective_bound_{unit}",
            text,
            labels=[*clause_labels, "metric", "operator", "relative"],
        )
        for kind, (unit, text) in BOUNDS.items()
    }
    budget = GaugeMetricFamily(
        "harness_objective_budget_ratio",
        "Share of a clause's events that may be bad.",
        labels=clause_labels,
    )
    for one in monitor.clauses:
        relative = "teacher" if one.relative_to_teacher else ""
        bounds[one.kind].add_metric(
            [one.family, one.text, one.metric, one.operator, relative], one.bound
        )
        if one.budget is not None:
            budget.add_metric([one.family, one.text], one.budget)
    yield from (*bounds.values(), budget)
    events = CounterMetricFamily(
        "harness_objective_events",
        "Requests that a clause of the objective counts.",
        labels=[*LOAD, *clause_labels],
    )
    bad = CounterMetricFamily(
        "harness_objective_bad_events",
        "Those of them that were slower than its bound, failed, or were dropped.",
        labels=[*LOAD, *clause_labels],
    )
    for labels, totals in monitor.loads.items():
        for clause, count in totals.events.items():
            events.add_metric([*labels, clause.family, clause.text], count)
            bad.add_metric([*labels, clause.family, clause.text], totals.bad_events[clause])
    yield from (events, bad)


@dataclass(frozen=True)
class TrialGauge:
    """A number of one finished trial of each load: of the last, or of the best."""

    name: str
    text: str
    which: Callable[[LoadTotals], TrialResult | None]
    value: Callable[[TrialResult], float | None]


_LATEST, _BEST = attrgetter("latest"), attrgetter("best")
TRIAL_GAUGES = (
    TrialGauge(
        "harness_trial_inferences_per_second",
        "Throughput of the last valid finished trial.",
        _LATEST,
        attrgetter("throughput_inferences_per_s"),
    ),
    TrialGauge(
        "harness_trial_offered_requests_per_second",
        "Load of the last valid finished trial.",
        _LATEST,
        attrgetter("offered_requests_per_s"),
    ),
    TrialGauge(
        "harness_capacity_inferences_per_second",
        "Most inferences per second of a finished trial that met the objective.",
        _BEST,
        attrgetter("throughput_inferences_per_s"),
    ),
    TrialGauge(
        "harness_capacity_requests_per_second",
        "Requests per second of that trial.",
        _BEST,
        attrgetter("throughput_requests_per_s"),
    ),
    TrialGauge(
        "harness_capacity_in_flight_requests",
        "Mean requests in flight of that trial.",
        _BEST,
        attrgetter("in_flight_mean"),
    ),
)


def _trials(monitor: LoadMonitor) -> Iterator[Metric]:
    finished = CounterMetricFamily(
        "harness_trials", "Finished trials, by their decision.", labels=[*LOAD, "decision"]
    )
    latency = GaugeMetricFamily(
        "harness_trial_latency_seconds",
        "Response latency of the last valid finished trial.",
        labels=[*LOAD, "quantile"],
    )
    for labels, totals in monitor.loads.items():
        for decision, count in totals.trials.items():
            finished.add_metric([*labels, str(decision)], count)
        if totals.latest is not None and totals.latest.latency is not None:
            for name, quantile in PERCENTILES.items():
                value_ms = totals.latest.latency.percentiles[name].value_ms
                seconds = value_ms / 1e3 if value_ms < UNBOUNDED_MS else inf
                latency.add_metric([*labels, f"{quantile:g}"], seconds)
    yield from (finished, latency)
    yield _counter(
        monitor, "harness_cached_answers",
        "Requests of finished trials' windows that the server's response cache answered.",
        lambda totals: totals.cached,
    )  # fmt: skip
    for gauge in TRIAL_GAUGES:
        yield _of_trial(monitor, gauge)


def _verdict(monitor: LoadMonitor) -> Iterator[Metric]:
    verdict = GaugeMetricFamily(
        "harness_verdict",
        "1 for the verdict on a family as it stands now, 0 for the others.",
        labels=["family", "decision"],
    )
    for family, decided in monitor.verdicts.items():
        for decision in Decision:
            verdict.add_metric([family, str(decision)], float(decision is decided))
    quality = GaugeMetricFamily(
        "harness_quality_score",
        "A variant's quality, taken through the endpoint.",
        labels=["family", "variant", "metric"],
    )
    for score in monitor.quality.values():
        quality.add_metric([score.family, score.variant, score.metric], score.value)
    yield from (verdict, quality)


def _counter(
    monitor: LoadMonitor, name: str, text: str, value: Callable[[LoadTotals], float]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=LOAD)
    for labels, totals in monitor.loads.items():
        family.add_metric(labels, value(totals))
    return family


def _add_histogram(
    family: HistogramMetricFamily, labels: list[str], histogram: FoldedHistogram
) -> None:
    family.add_metric(labels, buckets=histogram.cumulative(), sum_value=histogram.sum_s)


def _of_trial(monitor: LoadMonitor, gauge: TrialGauge) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.text, labels=LOAD)
    for labels, totals in monitor.loads.items():
        result = gauge.which(totals)
        number = gauge.value(result) if result is not None else None
        if number is not None:
            family.add_metric(labels, number)
    return family


def _version() -> str:
    try:
        return version("triton-distillation-harness")
    except PackageNotFoundError:
        return "unknown"

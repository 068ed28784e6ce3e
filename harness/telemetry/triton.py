"""What Triton tells of a model: its statistics, and one scrape of its metrics page.

Cumulative counters in, their difference between two readings out. The counters are those of the
statistics extension of KServe v2 (`GET /v2/models/M/stats`, gRPC `ModelStatistics`;
docs/protocol/extension_statistics.md of triton-inference-server/server):

- `success`, `queue` and `compute_*` count every successful request once, with the time *that
  request* spent there. A request that ran in a batch of eight is booked the whole batch's compute
  time, so a difference of ns over a difference of requests is what a request lived through, not
  its share of the processor.
- `batch_stats[]` books each *execution* once, under the batch size that really ran.
- `inference_count` and `execution_count` leave out answers of the response cache, and so do the
  compute counters; `success` and `queue` include them. Failed requests are in `fail` alone.
  `cache_hit` and `cache_miss` count the lookups, with the time that they (and storing) took.
- A model has an entry a version that is loaded, each with counters of its own. A request that names
  no version is answered by the highest, compared as numbers.
- Failures are a lower bound. Triton (2.51) counts neither what it refuses before the queue (a wrong
  input, a full queue) nor an error that a python model *returns* for a request: that one it books
  as a success. How many requests failed is the client's to say; the server adds why.
- Under load a reading may be torn: Triton copies its counters one after the other while requests
  are being booked. So `inference_count` may be there and its `batch_stats` not yet, or the reverse,
  and a request in `success` and not yet in `cache_hit`.
- A request is booked just after its answer has been sent, so whoever reads at once may miss it.
"""

from __future__ import annotations

import math
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from harness.system.connections import url_opener
from harness.types import PartMetrics, ServerMetrics

_COMPUTED = ("compute_input", "compute_infer", "compute_output")
"""Counted of what the model computed; the other phases of every successful request."""
_CACHE = ("cache_hit", "cache_miss")
_DURATIONS = ("queue", *_COMPUTED, *_CACHE)
SCRAPE_TIMEOUT_S = 1.0
"""A scrape stands at the edge of what is measured: better none than a late one."""
_NS_PER_MS = 1e6
_READINGS = 3
"""Most readings until one is not torn: one in 400 to 800 is, under load, and the next was whole
each time."""
_REST_S = 0.25
_MOST_AT_REST = 20
NO_REASON = "UNSPECIFIED"
"""The reason of failures of which only the number is told."""


@dataclass(frozen=True)
class ModelCounters:
    """One reading of a model's cumulative counters; None = not offered by this server."""

    requests: int | None = None
    """Number of successful requests."""
    failed: int | None = None
    inferences: int | None = None
    executions: int | None = None
    duration_ns: Mapping[str, int] = field(default_factory=dict)
    """Summed over successful requests, by phase: queue, compute_input, ..."""
    executions_by_batch: Mapping[int, int] = field(default_factory=dict)
    compute_ns_by_batch: Mapping[int, int] = field(default_factory=dict)
    """Input copy, execution and output copy of all executions of a batch size together."""
    failed_by_reason: Mapping[str, int] | None = None
    """Failures by reason, from the metrics page: the statistics know no reasons."""
    cache_hits: int | None = None
    """How many of the successful ones the response cache answered."""
    cache_misses: int | None = None
    version: str = ""
    """Version whose counters they are; empty where the server does not tell."""


def read_counters(
    statistics: Mapping[str, Any] | None, failed_by_reason: Mapping[str, int] | None = None
) -> ModelCounters:
    """Read the counters of one entry of `model_stats`.

    Numbers may be int or, as protobuf's JSON writes 64-bit ones, str. Protobuf's JSON also leaves
    out every number that is zero: inside a block that is there, an absent number is 0; an absent
    block is not offered.

    Args:
        statistics: the entry, or None when the server did not answer.
        failed_by_reason: `nv_inference_request_failure` of the model, where metrics are on.
    """
    stats = (statistics or {}).get("inference_stats")
    if statistics is None or stats is None:
        return ModelCounters(failed_by_reason=failed_by_reason)
    return ModelCounters(
        requests=_number(stats, "success", "count"),
        failed=_number(stats, "fail", "count"),
        inferences=int(statistics.get("inference_count", 0)),
        executions=int(statistics.get("execution_count", 0)),
        duration_ns={
            phase: ns for phase in _DURATIONS if (ns := _number(stats, phase, "ns")) is not None
        },
        executions_by_batch={
            int(entry["batch_size"]): _number(entry, "compute_infer", "count") or 0
            for entry in statistics.get("batch_stats", ())
        },
        compute_ns_by_batch={
            int(entry["batch_size"]): sum(_number(entry, phase, "ns") or 0 for phase in _COMPUTED)
            for entry in statistics.get("batch_stats", ())
        },
        failed_by_reason=failed_by_reason,
        cache_hits=_number(stats, "cache_hit", "count"),
        cache_misses=_number(stats, "cache_miss", "count"),
        version=str(statistics.get("version", "")),
    )


def read_whole(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` gives of a model's statistics, asked again while it is torn.

    After three readings the last is taken as it is: such a server books in its own way.
    """
    for _ in range(_READINGS):
        statistics = read()
        if not is_torn(statistics):
            break
    return statistics


def read_at_rest(
    read: Callable[[], dict[str, Any]], *, sleep: Callable[[float], object] = time.sleep
) -> dict[str, Any]:
    """What `read` gives once nothing of it changes for 0.25 s: all that was answered is booked.

    For a model without traffic. After 5 s the last is taken as it is: somebody else sends some.
    """
    statistics = read()
    for _ in range(_MOST_AT_REST):
        sleep(_REST_S)
        before, statistics = statistics, read()
        if statistics == before:
            break
    return statistics


def is_torn(statistics: Mapping[str, Any]) -> bool:
    """Whether counts disagree that are the same of a server that stands still.

    They are executions and rows against `batch_stats`, and successful requests against those in the
    queue's figures and against those that were computed or found in the response cache. A server
    that offers only one side never disagrees.
    """
    counters = read_counters(statistics)
    stats = statistics.get("inference_stats", {})
    queued = _number(stats, "queue", "count")
    computed = _number(stats, "compute_infer", "count")
    booked = None if computed is None else computed + (counters.cache_hits or 0)
    if any(one not in {None, counters.requests} for one in (queued, booked)):
        return True
    by_batch = counters.executions_by_batch
    if not by_batch or not counters.executions:
        return False
    inferences = sum(size * count for size, count in by_batch.items())
    return (counters.inferences, counters.executions) != (inferences, sum(by_batch.values()))


def difference(before: ModelCounters, after: ModelCounters) -> ServerMetrics:
    """What happened between two readings.

    Means are per successful request, those of computing per request that was computed, so that
    queue and compute add up to no more than such a request's mean latency. A counter that fell
    means that the server or the model was restarted in between: then nothing of the difference can
    be trusted, and only `counters_reset` is set. Where another version answers than before there
    is no difference to take, and only `exchanged` says so.
    """
    if before.requests is None or after.requests is None:
        return ServerMetrics()
    if words := exchange_words(before, after):
        return ServerMetrics(version=after.version, exchanged=words)
    if was_reset(before, after):
        return ServerMetrics(counters_reset=True)
    requests = after.requests - before.requests
    hits = _minus(after.cache_hits, before.cache_hits)
    means = {
        phase: _mean_ms(
            before.duration_ns.get(phase),
            after.duration_ns.get(phase),
            requests - (hits or 0) if phase in _COMPUTED else requests,
        )
        for phase in _DURATIONS
    }
    in_cache = [ms for phase in _CACHE if (ms := means[phase]) is not None]
    return ServerMetrics(
        requests=requests,
        failures=_failures(before, after),
        inferences=_minus(after.inferences, before.inferences),
        executions=_minus(after.executions, before.executions),
        queue_ms=means["queue"],
        compute_input_ms=means["compute_input"],
        compute_infer_ms=means["compute_infer"],
        compute_output_ms=means["compute_output"],
        batch_sizes=(executed := _grown(before.executions_by_batch, after.executions_by_batch)),
        batch_compute_ms={
            size: (after.compute_ns_by_batch[size] - before.compute_ns_by_batch.get(size, 0))
            / count
            / _NS_PER_MS
            for size, count in executed.items()
            if size in after.compute_ns_by_batch
        },
        cache_hits=hits,
        cache_misses=_minus(after.cache_misses, before.cache_misses),
        cache_ms=sum(in_cache) if in_cache else None,
        version=after.version,
    )


def exchange_words(before: ModelCounters, after: ModelCounters) -> str:
    """Which version answered first and which last; empty where it is the same, or is not told."""
    if not before.version or not after.version or before.version == after.version:
        return ""
    return f"version {before.version} answered first, and version {after.version} last"


def with_parts(ensemble: ServerMetrics, parts: Mapping[str, ServerMetrics]) -> ServerMetrics:
    """An ensemble's difference, with those of its composing models.

    Queue and computation of the whole become the sums over the parts, so that what is shown adds
    up; Triton's counters of the ensemble itself do not tell the parts' queues apart. A part that
    was restarted, or that does not tell, leaves all of them out; one of which another version was
    loaded is reported as if it were the ensemble's.
    """
    for name, part in parts.items():
        if part.exchanged:
            return replace(ensemble, exchanged=f"of '{name}', {part.exchanged}")
    counted = [
        PartMetrics(
            name, part.requests, part.queue_ms, part.compute_ms, part.cache_hits or 0,
            part.cache_ms or 0.0,
        )
        for name, part in parts.items()
        if part.requests and part.queue_ms is not None and part.accounted_ms is not None
    ]  # fmt: skip
    if not parts or len(counted) < len(parts):
        return ensemble
    return replace(
        ensemble,
        parts=tuple(counted),
        queue_ms=sum(part.queue_ms for part in counted),
        compute_input_ms=sum(part.compute_input_ms or 0.0 for part in parts.values()),
        compute_infer_ms=sum(part.compute_infer_ms or 0.0 for part in parts.values()),
        compute_output_ms=sum(part.compute_output_ms or 0.0 for part in parts.values()),
    )


def _number(block: Mapping[str, Any], name: str, part: str) -> int | None:
    return int(block[name].get(part, 0)) if name in block else None


def _minus(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _mean_ms(before_ns: int | None, after_ns: int | None, requests: int) -> float | None:
    total_ns = _minus(after_ns, before_ns)
    return None if total_ns is None or requests <= 0 else total_ns / requests / _NS_PER_MS


def _grown(before: Mapping[Any, int], after: Mapping[Any, int]) -> dict[Any, int]:
    """The counts that grew; a key that is new began at zero."""
    grown = {key: count - before.get(key, 0) for key, count in sorted(after.items())}
    return {key: count for key, count in grown.items() if count > 0}


def _failures(before: ModelCounters, after: ModelCounters) -> dict[str, int]:
    if before.failed_by_reason is not None and after.failed_by_reason is not None:
        return _grown(before.failed_by_reason, after.failed_by_reason)
    failed = _minus(after.failed, before.failed)
    return {NO_REASON: failed} if failed else {}


def was_reset(before: ModelCounters, after: ModelCounters) -> bool:
    """Whether a counter fell: the server or the model was restarted between two readings."""
    return (
        _fell(_scalars(before), _scalars(after))
        or _fell(before.duration_ns, after.duration_ns)
        or _fell(before.executions_by_batch, after.executions_by_batch)
        or _fell(before.compute_ns_by_batch, after.compute_ns_by_batch)
        or (
            after.failed_by_reason is not None
            and _fell(before.failed_by_reason or {}, after.failed_by_reason)
        )
    )


def _fell(before: Mapping[Any, int], after: Mapping[Any, int]) -> bool:
    return any(after.get(key, 0) < count for key, count in before.items())


def _scalars(counters: ModelCounters) -> dict[str, int]:
    names = ("requests", "failed", "inferences", "executions", "cache_hits", "cache_misses")
    values = {name: getattr(counters, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def scrape(
    url: str,
    *,
    timeout_s: float = SCRAPE_TIMEOUT_S,
    headers: Sequence[tuple[str, str]] = (),
    tls: ssl.SSLContext | None = None,
) -> str | None:
    """The text of a metrics page, or None where nothing answers.

    Args:
        url: http or https.
        timeout_s: for the connection, and then for each piece of the answer.
        headers: sent along, for a page that wants to know who asks.
        tls: which certificates to trust; the system's by default.
    """
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  (checked where it is read)
    try:
        with url_opener(tls).open(request, timeout=timeout_s) as response:
            body: bytes = response.read()
    except (urllib.error.URLError, OSError, HTTPException):
        return None
    return body.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class MetricsPage:
    """The samples of one scrape; every reading is None (or empty) where there is no series."""

    samples: tuple[Sample, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse the text format; a page in no such format holds no samples, and NaN is none."""
        try:
            families = list(text_string_to_metric_families(text or ""))
        except (ValueError, KeyError, IndexError):
            return cls()
        samples = (sample for family in families for sample in family.samples)
        return cls(tuple(sample for sample in samples if math.isfinite(sample.value)))

    def values(self, name: str, **labels: str) -> list[float]:
        """Values of all series of a metric that carry these labels, in the page's order."""
        return [sample.value for sample in self._select(name, labels.items())]

    def by_label(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Values of a metric summed by one label."""
        sums: dict[str, float] = {}
        for sample in self._select(name, labels.items()):
            key = sample.labels.get(label, "")
            sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def failed_by_reason(self, model: str, version: str = "") -> dict[str, int] | None:
        """Cumulative failed requests of a model by Triton's reason; None where not offered.

        Of one version, where that is known: a model has a series for each that is loaded.

        REJECTED, CANCELED, BACKEND or OTHER; zero counts are kept, as they mark where to count
        from.
        """
        labels = {"model": model, "version": version} if version else {"model": model}
        counts = self.by_label("nv_inference_request_failure", "reason", **labels)
        return {reason: int(count) for reason, count in counts.items()} if counts else None

    def _select(self, name: str, labels: Iterable[tuple[str, str]]) -> list[Sample]:
        # The parser gives every counter the suffix that OpenMetrics asks for and Triton omits.
        names = {name, f"{name}_total"}
        wanted = set(labels)
        return [
            sample
            for sample in self.samples
            if sample.name in names and wanted <= sample.labels.items()
        ]

"""Readings of a Prometheus, which scraped the server at its own instants.

The figures are those of `DirectReadings`, as far as Triton's metrics page has them: it has no
histogram of executed batches, so `batch_sizes` stays empty. Of a model with several versions loaded
they are of the highest, which answers. `harness.telemetry.prometheus.client` has the
method and its error.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.telemetry import host
from harness.telemetry.host import HostReading
from harness.telemetry.prometheus import host as scraped_host
from harness.telemetry.prometheus.client import (
    FEWEST_SCRAPES,
    LATE_SCRAPES,
    Increase,
    Prometheus,
    QueryFailure,
    Series,
    increase,
    last_inside,
    problem_of,
)
from harness.telemetry.triton import MetricsPage
from harness.types import HostMetrics, ServerMetrics, answering_version

REQUESTS = "nv_inference_request_success"
FAILURES = "nv_inference_request_failure"
INFERENCES = "nv_inference_count"
EXECUTIONS = "nv_inference_exec_count"
DURATIONS = {
    phase: f"nv_inference_{phase}_duration_us"
    for phase in ("queue", "compute_input", "compute_infer", "compute_output")
}
CACHE_HITS = "nv_cache_num_hits_per_model"
CACHE_MISSES = "nv_cache_num_misses_per_model"
CACHE_DURATIONS = ("nv_cache_hit_duration_per_model", "nv_cache_miss_duration_per_model")
COUNTERS = (
    *(REQUESTS, FAILURES, INFERENCES, EXECUTIONS, *DURATIONS.values()),
    *(CACHE_HITS, CACHE_MISSES, *CACHE_DURATIONS),
)
LOOKBACK_S = 300.0
"""Seconds before the window: far enough for the scrape before it, and to tell the scrape
interval."""
LONGEST_WAIT_S = 30.0
"""Longest wait for the scrape behind the window; without it the figures are a little less sure."""
GRACE_S = 0.5
"""Seconds for a scrape to be taken and stored."""
_US_PER_MS = 1e3
_ONE = 0.5
"""Request: what is less is none, off by the scrapes' own error."""


@dataclass(frozen=True)
class _Edge:
    time_s: float
    taken_ns: int
    host: HostReading


class ScrapedReadings:
    """The figures of `DirectReadings` between the same instants, out of a Prometheus.

    `open` and `close` note the time and look at the process table: they ask nobody. `figures`
    waits for the scrape behind the window, at most one scrape interval.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        *,
        metrics_url: str | None,
        server_pid: int | None,
        model: str,
        clients: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        """`metrics_url` tells the server's series from others' where nothing else does.

        `clients` tells the load generators' pids, whose use of cores is not foreign.
        """
        self._prometheus = prometheus
        self._target = urlsplit(metrics_url).netloc if metrics_url else ""
        self._server_pid = server_pid
        self._clients = clients
        self._model = model
        self._opened: _Edge | None = None
        self._closed: _Edge | None = None

    def open(self) -> None:
        """Note where the window starts."""
        self._opened = self._edge()

    def close(self) -> None:
        """Note where the window ends."""
        self._closed = self._edge()

    def figures(self) -> tuple[ServerMetrics, HostMetrics]:
        """What happened between them; what cannot be told is None, and `problem` says why.

        Raises:
            RuntimeError: the window was not opened and closed.
        """
        opened, closed = self._edges()
        here = host.difference(opened.host, closed.host, MetricsPage(), MetricsPage())
        try:
            ahead_s = self._prometheus.clock_offset_s()
            start_s, end_s = opened.time_s + ahead_s, closed.time_s + ahead_s
            found = self._counters(start_s, end_s, ahead_s)
            server = server_metrics(found, start_s, end_s)
            return server, scraped_host.host_metrics(
                self._prometheus, self._instances(found), here, (start_s, end_s)
            )
        except QueryFailure as failure:
            return ServerMetrics(problem=str(failure)), here

    @property
    def edges_ns(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC: when it was opened and closed; RuntimeError before."""
        opened, closed = self._edges()
        return opened.taken_ns, closed.taken_ns

    def _edges(self) -> tuple[_Edge, _Edge]:
        if self._opened is None or self._closed is None:
            raise RuntimeError("figures asked for before both readings were taken")
        return self._opened, self._closed

    def _edge(self) -> _Edge:
        return _Edge(
            time.time(), time.monotonic_ns(), host.read_host(self._server_pid, self._clients())
        )

    def _counters(self, start_s: float, end_s: float, ahead_s: float) -> list[Series]:
        """The model's counters of the server that is meant, with the scrape behind the window.

        Raises:
            QueryFailure: no answer, or it is not clear which server is meant.
        """

        def ask() -> list[Series]:
            now_s = time.time() + ahead_s
            length_s = now_s - start_s + LOOKBACK_S
            found = self._prometheus.samples(self._selector(), end_s=now_s, length_s=length_s)
            return self._meant(without_vanished(found, start_s, end_s))

        return await_scrape(ask, start_s, end_s, now_s=lambda: time.time() + ahead_s)

    def _selector(self) -> str:
        model = self._model.replace("\\", r"\\").replace('"', r"\"")
        matchers = [f'__name__=~"{"|".join(COUNTERS)}"', f'model="{model}"']
        return f"{{{','.join(filter(None, [*matchers, self._prometheus.match]))}}}"

    def _meant(self, found: Sequence[Series]) -> list[Series]:
        """The series of one server, or of all that the matchers name."""
        if self._prometheus.match:
            return list(found)
        of_target = [one for one in found if one.labels.get("instance") == self._target]
        if of_target:
            return of_target
        instances = self._instances(found)
        if len(instances) > 1:
            raise QueryFailure(
                f"several servers serve '{self._model}': {', '.join(instances)}; say which: "
                f"--prometheus-match 'instance=\"{instances[0]}\"'"
            )
        return list(found)

    @staticmethod
    def _instances(found: Sequence[Series]) -> tuple[str, ...]:
        return tuple(sorted({one.labels.get("instance", "") for one in found}))


def without_vanished(found: Sequence[Series], start_s: float, end_s: float) -> list[Series]:
    """The series without those of targets that were gone before the window began.

    A server that was replaced minutes ago is within `LOOKBACK_S` still. Where none was scraped
    inside the window all stay, so that what is said of them is said of what there is.
    """
    there = [
        one
        for one in found
        if one.labels.get("__name__") == REQUESTS and _inside(one, start_s, end_s)
    ]
    if not there:
        return list(found)
    usual_s = max((one.interval_s or 0.0 for one in there), default=0.0)

    def stands(one: Series) -> bool:
        late_s = LATE_SCRAPES * (one.interval_s or usual_s)
        return bool(one.times_s) and one.times_s[-1] >= start_s - late_s

    return list(filter(stands, found))


def await_scrape(
    ask: Callable[[], list[Series]],
    start_s: float,
    end_s: float,
    *,
    now_s: Callable[[], float],
    sleep: Callable[[float], None] = time.sleep,
) -> list[Series]:
    """Ask until the scrape behind the window is there, or overdue, or of no use."""
    while True:
        found = ask()
        counters = [one for one in found if one.labels.get("__name__") == REQUESTS]
        intervals_s = [one.interval_s for one in counters if one.interval_s is not None]
        if not intervals_s or any(
            _inside(one, start_s, end_s) < FEWEST_SCRAPES for one in counters
        ):
            return found
        deadline_s = end_s + min(max(intervals_s), LONGEST_WAIT_S) + GRACE_S
        if all(one.times_s[-1] >= end_s for one in counters) or now_s() >= deadline_s:
            return found
        sleep(min(0.25 * max(intervals_s), max(0.0, deadline_s - now_s())) + 0.01)


def server_metrics(found: Sequence[Series], start_s: float, end_s: float) -> ServerMetrics:
    """A model's figures over a window, out of its counters' raw samples."""
    versions = _versions(found, start_s, end_s).values()
    version = answering_version(last for _, last in versions)
    if exchanged := _exchange_words(versions):
        return ServerMetrics(version=version, exchanged=exchanged)
    by_name: defaultdict[str, list[Series]] = defaultdict(list)
    for one in _answering(found, start_s, end_s):
        by_name[one.labels.get("__name__", "")].append(one)
    if not by_name[REQUESTS]:
        return ServerMetrics(problem=f"Prometheus has no {REQUESTS} of this model at that time")
    for series in by_name[REQUESTS]:
        if problem := problem_of(series, start_s, end_s):
            return ServerMetrics(problem=problem)
    grown = {name: _sum(by_name[name], start_s, end_s) for name in COUNTERS if name in by_name}
    if any(each is not None and each.reset for each in grown.values()):
        return ServerMetrics(counters_reset=True)
    requests = grown[REQUESTS]
    assert requests is not None  # noqa: S101  (there are series of it)
    hits = grown.get(CACHE_HITS)
    computed = requests.value - (hits.value if hits else 0.0)
    means = {
        phase: total.value / of / _US_PER_MS
        for phase, name in DURATIONS.items()
        if (of := requests.value if phase == "queue" else computed) >= _ONE
        and (total := grown.get(name)) is not None
    }
    in_cache = [each.value for name in CACHE_DURATIONS if (each := grown.get(name)) is not None]
    return ServerMetrics(
        requests=round(requests.value),
        requests_uncertainty=round(requests.uncertainty),
        failures=_failures(by_name[FAILURES], start_s, end_s),
        inferences=_count(grown.get(INFERENCES)),
        executions=_count(grown.get(EXECUTIONS)),
        queue_ms=means.get("queue"),
        compute_input_ms=means.get("compute_input"),
        compute_infer_ms=means.get("compute_infer"),
        compute_output_ms=means.get("compute_output"),
        cache_hits=_count(hits),
        cache_misses=_count(grown.get(CACHE_MISSES)),
        cache_ms=(
            sum(in_cache) / requests.value / _US_PER_MS
            if in_cache and requests.value >= _ONE
            else None
        ),
        version=version,
    )


def _answering(found: Sequence[Series], start_s: float, end_s: float) -> list[Series]:
    """The series of the version that answers at each server."""
    last = {server: ends[1] for server, ends in _versions(found, start_s, end_s).items()}
    return [
        one
        for one in found
        if _server(one) not in last or one.labels.get("version", "") == last[_server(one)]
    ]


def _exchange_words(versions: Iterable[tuple[str, str]]) -> str:
    """What answered instead of one version; empty where it was one and the same."""
    pairs = sorted(versions)
    for first, last in pairs:
        if first != last:
            return f"version {first} answered first, and version {last} last"
    different = sorted({last for _, last in pairs})
    if len(different) > 1:
        return f"versions {' and '.join(different)} answered, each at another server"
    return ""


def _versions(
    found: Sequence[Series], start_s: float, end_s: float
) -> dict[tuple[str, ...], tuple[str, str]]:
    """The version that answered at the first and at the last scrape of a window, by server."""
    scraped: dict[tuple[str, ...], dict[float, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        if one.labels.get("__name__") == REQUESTS:
            for at_s in filter(lambda at_s: start_s <= at_s <= end_s, one.times_s):
                scraped[_server(one)][at_s].append(one.labels.get("version", ""))
    return {
        server: (answering_version(at[min(at)]), answering_version(at[max(at)]))
        for server, at in scraped.items()
    }


def _server(series: Series) -> tuple[str, ...]:
    """Whose series it is: its labels but for those that Triton itself gives."""
    apart = {"__name__", "model", "version", "reason", "gpu_uuid"}
    return tuple(
        f"{key}={value}" for key, value in sorted(series.labels.items()) if key not in apart
    )


def _inside(series: Series, start_s: float, end_s: float) -> int:
    return sum(start_s <= at_s <= end_s for at_s in series.times_s)


def _sum(found: Sequence[Series], start_s: float, end_s: float) -> Increase | None:
    """What a counter grew by at all servers together; None without any series."""
    parts = [_grown(one, start_s, end_s) for one in found]
    if not parts:
        return None
    return Increase(
        sum(one.value for one in parts),
        sum(one.uncertainty for one in parts),
        any(one.reset for one in parts),
    )


def _grown(series: Series, start_s: float, end_s: float) -> Increase:
    """A counter's increase; one that Triton first showed inside the window began at 0."""
    if not problem_of(series, start_s, end_s):
        return increase(series, start_s, end_s)
    appeared = bool(series.times_s) and series.times_s[0] >= start_s
    latest = last_inside(series, start_s, end_s) if appeared else None
    return Increase(latest or 0.0)


def _failures(found: Sequence[Series], start_s: float, end_s: float) -> dict[str, int]:
    by_reason: defaultdict[str, float] = defaultdict(float)
    for one in found:
        by_reason[one.labels.get("reason", "UNSPECIFIED")] += _grown(one, start_s, end_s).value
    return {reason: round(count) for reason, count in sorted(by_reason.items()) if round(count)}


def _count(grown: Increase | None) -> int | None:
    return None if grown is None else round(grown.value)

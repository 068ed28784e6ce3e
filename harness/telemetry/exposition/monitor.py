"""What a session's loads come to, kept up to date while they run, for whoever scrapes it.

Reports are folded in as they arrive; nothing here is on a request's path. Counters are kept for
the whole session: they go on over the end of a test, its start again, and Locust's reset.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from harness import hdr
from harness.telemetry.exposition.buckets import (
    COARSE_S,
    FINE_S,
    Clause,
    FoldedHistogram,
    above,
    clauses_of,
    sum_s,
)
from harness.types import (
    SPANS,
    Decision,
    LoadMode,
    QualityScore,
    ServiceLevelObjective,
    SparseHistogram,
    StreamCounts,
    TimeSlice,
    Trial,
    TrialResult,
    Workload,
)
from harness.types.streams import NO_STREAMS

RECENT_S = 10.0
"""What gauges of the running load speak of; Locust's workers report every three seconds."""
MOST_LOADS = 100
"""Label sets of a session; what comes beyond is summed under `OTHER`."""
MOST_WORKERS = 100
OTHER = "other"


class LoadLabels(NamedTuple):
    """What tells loads apart: few values each, never an identifier of a trial."""

    variant: str
    protocol: str
    load_mode: str
    client_batch_size: str


def labels_of(variant: str, workload: Workload) -> LoadLabels:
    """The labels of a load; a mix of client batch sizes is `mix`."""
    batch = "mix" if workload.batch_mix else str(workload.client_batch_size)
    return LoadLabels(variant, str(workload.protocol), str(workload.load_mode), batch)


@dataclass
class LoadTotals:
    """Everything that was seen of loads with the same labels."""

    spans: dict[str, FoldedHistogram] = field(default_factory=dict)
    """Latencies of successes, by span; one without values is absent."""
    requests: int = 0
    """Number of successes."""
    inferences: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    good: int = 0
    """Successes that met every clause on a latency, where an objective has one."""
    streams: StreamCounts = NO_STREAMS
    """Tokens read and written, and clients that left; of nothing where answers came in one."""
    events: Counter[Clause] = field(default_factory=Counter)
    bad_events: Counter[Clause] = field(default_factory=Counter)
    trials: Counter[Decision] = field(default_factory=Counter)
    cached: int = 0
    """Requests of finished trials' windows that the server's response cache answered."""
    latest: TrialResult | None = None
    best: TrialResult | None = None
    """The passing trial with the most inferences per second."""


@dataclass
class GeneratorTotals:
    """Running totals of one load-generating process."""

    cpu_s: float = 0.0
    loop_lag: FoldedHistogram = field(default_factory=lambda: FoldedHistogram(COARSE_S))
    memory_bytes: int = 0


@dataclass(frozen=True)
class RunningLoad:
    """The load that runs now."""

    labels: LoadLabels
    concurrency: int | None
    """Closed loop: requests in flight asked for; None where the test changes it."""
    rate_per_s: float | None
    """Open loop: the nominal rate."""
    clauses: tuple[Clause, ...]


class Recent(NamedTuple):
    """What one report added to the running load's counts."""

    at_s: float
    ended: int
    offered: int
    """Number of requests that ended or were dropped."""
    in_flight_s: float
    """The response latencies added up: a second of one is a second of one request in flight."""


class Rates(NamedTuple):
    """The running load's last seconds."""

    ended_per_s: float
    offered_per_s: float
    in_flight: float


class LoadMonitor:
    """Takes reports from one thread, is read from another.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.loads: dict[LoadLabels, LoadTotals] = {}
        self.generators: dict[str, GeneratorTotals] = {}
        self.running: RunningLoad | None = None
        self.clauses: dict[Clause, None] = {}
        """The clauses of every objective so far, in the order they came (a set)."""
        self.verdicts: dict[str, Decision] = {}
        """The current decision of each family."""
        self.quality: dict[tuple[str, str], QualityScore] = {}
        """Scores by variant and metric."""
        self._now_s = now_s
        self._began_s = 0.0
        self._recent: deque[Recent] = deque()
        self._lock = threading.Lock()

    def begin(
        self,
        labels: LoadLabels,
        slo: ServiceLevelObjective,
        *,
        family: str,
        concurrency: int | None,
        rate_per_s: float | None,
    ) -> None:
        """A load starts; what is added from now on is its."""
        with self._lock:
            clauses = clauses_of(family, slo)
            self.clauses |= dict.fromkeys(clauses)
            self.running = RunningLoad(self._bounded(labels), concurrency, rate_per_s, clauses)
            self._began_s = self._now_s()
            self._recent.clear()

    def begin_trial(self, trial: Trial, slo: ServiceLevelObjective) -> None:
        """Begin to show the load of a trial."""
        workload = trial.workload
        closed = workload.load_mode is LoadMode.CLOSED
        with self._lock:
            self.verdicts.setdefault(trial.family, Decision.UNDECIDED)
        self.begin(
            labels_of(trial.variant, workload),
            slo,
            family=trial.family,
            concurrency=workload.concurrency if closed else None,
            rate_per_s=None if closed else workload.rate_per_s,
        )

    def ask_in_flight(self, concurrency: int) -> None:
        """How many requests in flight the closed loop asks for from now on."""
        with self._lock:
            if self.running is not None:
                self.running = replace(self.running, concurrency=concurrency)

    def end(self) -> None:
        """No load runs any more."""
        with self._lock:
            self.running = None
            self._recent.clear()

    def add(self, slices: Iterable[TimeSlice]) -> None:
        """Additions to the running load's slices; without one they are nobody's."""
        with self._lock:
            running = self.running
            if running is None:
                return
            totals = self.loads.setdefault(running.labels, LoadTotals())
            ended = dropped = 0
            in_flight_s = 0.0
            for one in slices:
                _add_slice(totals, one, running.clauses)
                failed = sum(one.failures.values())
                ended += hdr.total(one.ok.response) + failed
                dropped += one.dropped
                in_flight_s += sum_s(one.ok.response) + sum_s(one.failed.response)
            self._recent.append(Recent(self._now_s(), ended, ended + dropped, in_flight_s))

    def add_generator(
        self, name: str, *, cpu_s: float, loop_lag: SparseHistogram, memory_bytes: int
    ) -> None:
        """What a process used since its last report."""
        with self._lock:
            known = name in self.generators or len(self.generators) < MOST_WORKERS
            totals = self.generators.setdefault(name if known else OTHER, GeneratorTotals())
            totals.cpu_s += max(0.0, cpu_s)
            totals.loop_lag.add(loop_lag)
            totals.memory_bytes = memory_bytes

    def add_result(self, result: TrialResult) -> None:
        """Show the result of a finished trial."""
        with self._lock:
            labels = self._bounded(labels_of(result.trial.variant, result.trial.workload))
            totals = self.loads.setdefault(labels, LoadTotals())
            totals.trials[result.decision] += 1
            totals.cached += result.server.from_cache or 0
            if result.valid:
                totals.latest = result
            best_per_s = totals.best.throughput_inferences_per_s if totals.best else -1.0
            if result.decision is Decision.PASS and result.throughput_inferences_per_s > best_per_s:
                totals.best = result

    def add_quality(self, scores: Iterable[QualityScore]) -> None:
        """Show the scores of a variant."""
        with self._lock:
            for one in scores:
                self.quality[one.variant, one.metric] = one

    def decide(self, family: str, decision: Decision) -> None:
        """The verdict on a family as it stands now."""
        with self._lock:
            self.verdicts[family] = decision

    @contextmanager
    def standing_still(self) -> Iterator[Rates | None]:
        """Hold every change off while the sums are read; yields the running load's last seconds."""
        with self._lock:
            yield self._rates()

    def _rates(self) -> Rates | None:
        """Rates over the running load's last seconds; None without a load."""
        if self.running is None:
            return None
        now_s = self._now_s()
        while self._recent and self._recent[0].at_s < now_s - RECENT_S:
            self._recent.popleft()
        span_s = min(RECENT_S, now_s - self._began_s)
        if span_s <= 0:
            return Rates(0.0, 0.0, 0.0)
        return Rates(
            ended_per_s=sum(one.ended for one in self._recent) / span_s,
            offered_per_s=sum(one.offered for one in self._recent) / span_s,
            in_flight=sum(one.in_flight_s for one in self._recent) / span_s,
        )

    def _bounded(self, labels: LoadLabels) -> LoadLabels:
        if labels in self.loads or len(self.loads) < MOST_LOADS:
            return labels
        return LoadLabels(OTHER, labels.protocol, labels.load_mode, OTHER)


def _add_slice(totals: LoadTotals, one: TimeSlice, clauses: Iterable[Clause]) -> None:
    for name, histogram in one.ok.spans.items():
        edges_s = FINE_S if SPANS[name].judged else COARSE_S
        totals.spans.setdefault(name, FoldedHistogram(edges_s)).add(histogram)
    totals.inferences += one.inferences
    totals.failures.update(one.failures)
    totals.dropped += one.dropped
    totals.good += one.good
    if one.streams != NO_STREAMS:
        totals.streams += one.streams
    ok, failed = hdr.total(one.ok.response), sum(one.failures.values())
    totals.requests += ok
    for clause in clauses:
        if clause.budget is None:
            continue
        if (span := clause.span) is not None:
            seen, dropped = one.ok.of(span.name), one.dropped if span.counts_dropped else 0
            slow = above(seen, clause.bound, inclusive=clause.operator == "<")
            events, bad = hdr.total(seen) + dropped, slow + dropped
        else:
            events, bad = ok + failed + one.dropped, failed + one.dropped
        totals.events[clause] += events
        totals.bad_events[clause] += bad

"""The counters of several replicas of one model, added up over a window as PromQL would.

Each replica's own increase is taken first and the increases are added, because a replica that came
or went in the window would look like a jump of the sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.telemetry.triton import MetricsPage

_COMPLETED = ("nv_inference_request_success", "nv_inference_request_failure")


@dataclass(frozen=True)
class ReplicaCounters:
    """One replica's counters of one model, as of one scrape."""

    completed: float
    """Requests answered or refused."""
    queued_s: float
    spent_s: float
    """Seconds that requests spent in the server, queue included."""
    waiting: float
    """Requests in the queue now."""

    @classmethod
    def of_page(cls, text: str, model: str) -> ReplicaCounters:
        """Read the counters from the text of a metrics page."""
        page = MetricsPage.parse(text)

        def summed(name: str) -> float:
            return sum(page.values(name, model=model))

        return cls(
            completed=sum(map(summed, _COMPLETED)),
            queued_s=summed("nv_inference_queue_duration_us") / 1e6,
            spent_s=summed("nv_inference_request_duration_us") / 1e6,
            waiting=summed("nv_inference_pending_request_count"),
        )


@dataclass(frozen=True)
class FleetRates:
    """What the replicas did together over a window."""

    completed_per_s: float
    waiting: float
    executing: float
    queue_ms: float
    """Mean milliseconds in the queue per request."""

    def waiting_of(self, in_flight: float) -> float:
        """Requests that wait, where so many came and are not answered.

        Those in the replicas' own queues, and those on the way to them: a busy balancer or a full
        connection holds requests that no replica has counted yet.
        """
        return max(self.waiting, in_flight - self.executing)


@dataclass
class FleetHistory:
    """The scrapes of the last window."""

    window_s: float
    _scrapes: deque[tuple[float, Mapping[str, ReplicaCounters]]] = field(default_factory=deque)

    def add(self, at_s: float, counters: Mapping[str, ReplicaCounters]) -> None:
        """One scrape of every replica that serves, by its name; times only grow."""
        self._scrapes.append((at_s, counters))
        while self._scrapes[0][0] < at_s - self.window_s:
            self._scrapes.popleft()

    def rates(self) -> FleetRates:
        """The fleet's rates over the window that ends with the last scrape."""
        span_s = self._scrapes[-1][0] - self._scrapes[0][0] if self._scrapes else 0.0
        grown = [self._grown(name) for name in {n for _, one in self._scrapes for n in one}]
        completed = sum(one.completed for one in grown)
        queued_s, spent_s = (sum(one.queued_s for one in grown), sum(one.spent_s for one in grown))
        waiting = sum(one.waiting for one in self._scrapes[-1][1].values()) if span_s else 0.0
        return FleetRates(
            completed_per_s=completed / span_s if span_s else 0.0,
            waiting=waiting,
            executing=max(0.0, spent_s - queued_s) / span_s if span_s else 0.0,
            queue_ms=1e3 * queued_s / completed if completed else 0.0,
        )

    def _grown(self, name: str) -> ReplicaCounters:
        own = [one[name] for _, one in self._scrapes if name in one]
        first, last = own[0], own[-1]
        return ReplicaCounters(
            last.completed - first.completed,
            last.queued_s - first.queued_s,
            last.spent_s - first.spent_s,
            last.waiting,
        )

"""Locust's own statistics, counted in batches.

One `events.request.fire` a request costs nearly as much as the request. So successes are added to
the statistics in batches, with the same result as if each had been logged at that moment.
Failures are rare and interesting, and go through the event one by one, up to a bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from locust.env import Environment
from locust.stats import StatsEntry, StatsError
from numpy.typing import NDArray

from harness.load.engine.batches import FailedRequest, RecordedBatch

MOST_FIRED = 100
"""Failures of one batch that the event's listeners are told of singly; those beyond are counted
only. A dead server refuses faster than anybody wants to be told."""
DROPPED = "dropped: fell due with too many requests in flight, never sent"
_NS_PER_MS = 1_000_000


class LocustCounts:
    """Hands batches to Locust; `add` is a listener of a `Recorder`.

    What was dropped stands among the failures and not among the requests: it was never sent.

    Args:
        environment: of the test; its runner is what counts the failures that are fired.
        method: the statistics' request type, such as `HTTP`.
        name: the statistics' name: the model.
        bytes_per_row: an answer's length for each of its rows, for the average content size.
    """

    def __init__(
        self, environment: Environment, method: str, name: str, *, bytes_per_row: float = 0.0
    ) -> None:
        self._environment = environment
        self._stats = environment.stats
        self._method, self._name = method, name
        self._bytes_per_row = bytes_per_row

    def add(self, batch: RecordedBatch) -> None:
        """Count every request of a batch."""
        content_bytes = round(int(batch.rows.sum()) * self._bytes_per_row)
        self._log_requests((batch.completed_ns - batch.scheduled_ns) / _NS_PER_MS, content_bytes)
        self._fire(batch.failures[:MOST_FIRED])
        self._log_failures(batch.failures[MOST_FIRED:])
        self._log_error(DROPPED, len(batch.dropped_ns))

    def _fire(self, failures: Sequence[FailedRequest]) -> None:
        hook: Any = self._environment.events.request  # Locust's hooks are untyped
        for one in failures:
            hook.fire(
                request_type=self._method,
                name=self._name,
                response_time=_latency_ms(one),
                response_length=0,
                exception=one.failure,
                context={},
            )

    def _log_failures(self, failures: Sequence[FailedRequest]) -> None:
        self._log_requests(np.array([_latency_ms(one) for one in failures]), 0)
        alike: defaultdict[str, list[FailedRequest]] = defaultdict(list)
        for one in failures:
            alike[repr(one.failure)].append(one)
        for same in alike.values():
            self._log_error(same[0].failure, len(same))

    def _log_requests(self, latencies_ms: NDArray[np.float64], content_bytes: int) -> None:
        """Let Locust log the first, which keeps its clocks and caches, and add up the others."""
        if not latencies_ms.size:
            return
        stats: Any = self._stats
        stats.log_request(self._method, self._name, float(latencies_ms[0]), content_bytes)
        log_more(self._entries(), latencies_ms[1:])

    def _log_error(self, error: Exception | str, count: int) -> None:
        """Count an error in Locust's statistics as often as it occurred."""
        if not count:
            return
        self._stats.log_error(self._method, self._name, error)
        for entry in self._entries():
            entry.num_failures += count - 1
            entry.num_fail_per_sec[max(entry.num_fail_per_sec)] += count - 1
        key = StatsError.create_key(self._method, self._name, error)
        self._stats.errors[key].occurrences += count - 1

    def _entries(self) -> tuple[StatsEntry, StatsEntry]:
        return self._stats.total, self._stats.entries[self._name, self._method]


def log_more(entries: Sequence[Any], latencies_ms: NDArray[np.float64]) -> None:
    """Count further requests as `StatsEntry.log` does, at the moment of the last one logged.

    Args:
        entries: each a `StatsEntry`, whose hints say int where Locust itself keeps floats.
        latencies_ms: (n,) of the requests.
    """
    if not latencies_ms.size:
        return
    total_ms, least_ms = float(latencies_ms.sum()), float(latencies_ms.min())
    most_ms = float(latencies_ms.max())
    found, counted = np.unique(bucket_response_times(latencies_ms), return_counts=True)
    buckets = list(zip(found.tolist(), counted.tolist(), strict=True))
    for entry in entries:
        entry.num_requests += len(latencies_ms)
        entry.num_reqs_per_sec[int(entry.last_request_timestamp)] += len(latencies_ms)
        entry.total_response_time += total_ms
        entry.min_response_time = min(entry.min_response_time, least_ms)
        entry.max_response_time = max(entry.max_response_time, most_ms)
        for bucket, count in buckets:
            entry.response_times[bucket] += count


def bucket_response_times(latencies_ms: NDArray[np.float64]) -> NDArray[np.int64]:
    """Locust's own rounding to two digits (`locust.stats.bucket_response_time`), for an array."""
    bounds_ms, steps_ms = np.array([100, 1_000, 10_000]), np.array([1, 10, 100, 1_000])
    step_ms = steps_ms[np.searchsorted(bounds_ms, latencies_ms, side="right")]
    buckets: NDArray[np.int64] = np.rint(latencies_ms / step_ms).astype(np.int64) * step_ms
    return buckets


def _latency_ms(request: FailedRequest) -> float:
    return (request.completed_ns - request.scheduled_ns) / _NS_PER_MS

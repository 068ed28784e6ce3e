"""One replica as a discrete-event simulation: Triton's queue, its dynamic batcher, its instances.

Because every batch is a stretch of the same first-come, first-served queue, the loop goes from
batch to batch and never over single requests: two bisections find what has arrived and what still
fits. That is what makes it fast enough to be repeated for every rate, configuration and draw of
the fit.

What Triton does, and so this (release 24.10, `dynamic_batch_scheduler.cc`): a free instance takes
as many requests from the front as fit its largest batch. A request with several rows is never
split, and where the next one does not fit the batch goes without it. With a queue delay an
incomplete batch waits until its oldest request has waited that long; time spent waiting for an
instance counts. With preferred sizes the batch is cut at the largest preferred size that the queue
reaches, unless the delay is over. All requests are taken to be of equal shape: those of unequal
shapes Triton does not join.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Replica:
    """What is simulated: the batcher, the instances, and how long a batch takes."""

    batch_s: tuple[float, ...]
    """Mean seconds of one execution that has its cores to itself, by rows: entry 0 is of one row.
    Its length is the largest batch."""
    instances: int = 1
    turnaround_s: float = 0.0
    """How long an instance is occupied after it has answered, before it takes the next batch."""
    queue_delay_s: float = 0.0
    """How long an incomplete batch waits for more requests."""
    preferred_sizes: tuple[int, ...] = ()
    """Rows at which a batch is sent though more would fit; empty: none but the largest."""
    queue_limit: int | None = None
    """Requests that may wait, those being executed not counted; None: any number."""
    sharing: float = 0.0
    """How much longer an execution takes for every other instance that is busy when it starts: 0
    where each has cores of its own, 1 where two take twice as long."""
    each_request_s: float = 0.0
    """What every request but the first adds to an execution, beside its rows."""

    def execution_s(self, rows: int, requests: int) -> float:
        """Mean seconds of an execution of so many requests, with so many rows in all."""
        return self.batch_s[rows - 1] + self.each_request_s * (requests - 1)

    @property
    def max_batch(self) -> int:
        """Rows of the largest batch."""
        return len(self.batch_s)


@dataclass(frozen=True)
class ReplicaRun:
    """What became of every request, and every execution in order of its start."""

    completed_s: Floats
    """One for each arrival, on the same clock; NaN where the queue was full."""
    joined: Ints
    """For each arrival, requests in the execution that answered it; 0 where it was rejected."""
    executed_rows: Ints
    """Rows of each execution."""
    started_s: Floats
    busy_s: Floats
    """How long each execution took."""

    @property
    def rejected(self) -> int:
        """Requests that met a full queue."""
        return int(np.isnan(self.completed_s).sum())


def simulate_arrivals(
    replica: Replica, arrivals_s: Floats, rows: Ints | None, noise: Floats
) -> ReplicaRun:
    """Serve requests that come at given times, whatever the replica does (an open loop).

    Args:
        replica: what serves them.
        arrivals_s: when they come, shape (n,), ascending.
        rows: rows of each, shape (n,); None: one each.
        noise: factor of each execution's mean time, shape (at least n,); all 1: no spread.

    Raises:
        UsageError: a request has more rows than the largest batch.
    """
    counts = np.ones(len(arrivals_s), dtype=np.int64) if rows is None else rows
    if len(counts) and int(counts.max()) > replica.max_batch:
        raise UsageError(
            f"a request of {int(counts.max())} rows exceeds the largest batch, {replica.max_batch}",
            next_step="ask for fewer rows per request, or for a configuration with larger batches",
        )
    if replica.queue_limit is None:
        served = np.arange(len(arrivals_s))
        batches = _unbounded(replica, arrivals_s.tolist(), np.cumsum(counts).tolist(), noise)
    else:
        batches, served = _bounded(
            replica, replica.queue_limit, arrivals_s.tolist(), counts.tolist(), noise
        )
    return _run_of(batches, len(arrivals_s), served)


Batch = tuple[int, int, float, float]
"""Requests and rows of an execution, its start and how long it took, in seconds."""


def _unbounded(
    replica: Replica, arrivals: list[float], rows_until: list[int], noise: Floats
) -> list[Batch]:
    """Every batch, where all requests are admitted.

    Args:
        replica: what serves them.
        arrivals: times in ascending order.
        rows_until: rows of all requests up to and with each.
        noise: factor of each execution's time.
    """
    batches: list[Batch] = []
    free, total, head, before = [0.0] * replica.instances, len(arrivals), 0, 0
    factors, largest = noise.tolist(), replica.max_batch
    table, sharing, delay = replica.batch_s, replica.sharing, replica.queue_delay_s
    each = replica.each_request_s
    preferred = frozenset(replica.preferred_sizes)
    one_row_each = rows_until[-1] == total if rows_until else True
    while head < total:
        oldest = arrivals[head]
        start = free[0] if free[0] > oldest else oldest
        fits = min(total, head + largest)
        if not one_row_each:
            fits = bisect_right(rows_until, before + largest, head, fits)
        if delay and start < oldest + delay:
            complete = _complete_at(arrivals, rows_until, fits, before, replica)
            start = max(start, min(oldest + delay, complete))
        end = head + 1
        if end < fits and arrivals[end] <= start:
            end = bisect_right(arrivals, start, end, fits)
        if preferred:
            overdue = delay > 0 and start >= oldest + delay
            end = _preferred_end(rows_until, head, end, before, preferred, overdue=overdue)
        rows = end - head if one_row_each else rows_until[end - 1] - before
        took = (table[rows - 1] + each * (end - head - 1)) * factors[len(batches)]
        if sharing:
            took *= 1 + sharing * sum(1 for other in free[1:] if other > start)
        heapreplace(free, start + took + replica.turnaround_s)
        batches.append((end - head, rows, start, took))
        head, before = end, before + rows
    return batches


def _complete_at(
    arrivals: Sequence[float], rows_until: Sequence[int], fits: int, before: int, replica: Replica
) -> float:
    """When the batch at the front can grow no more, or reaches a preferred size: it goes then.

    Returns:
        Infinity where the requests that come do not fill it.
    """
    if replica.preferred_sizes:
        first = min(replica.preferred_sizes)
        enough = bisect_right(rows_until, before + first - 1)
        if enough < len(arrivals):
            return arrivals[enough]
    if rows_until[fits - 1] - before == replica.max_batch:
        return arrivals[fits - 1]
    return arrivals[fits] if fits < len(arrivals) else math.inf


def _preferred_end(
    rows_until: Sequence[int],
    head: int,
    end: int,
    before: int,
    preferred: frozenset[int],
    *,
    overdue: bool,
) -> int:
    """Where the batch is cut: after the last request that makes a preferred size, if any does."""
    if overdue:
        return end
    for last in range(end, head, -1):
        if rows_until[last - 1] - before in preferred:
            return last
    return end


def _bounded(
    replica: Replica, limit: int, arrivals: list[float], rows: list[int], noise: Floats
) -> tuple[list[Batch], Ints]:
    """Every batch, and which requests were admitted: whoever finds `limit` waiting is rejected.

    The queue shrinks only when a batch starts, so that between two starts it fills up, and whoever
    comes then is turned away.
    """
    batches: list[Batch] = []
    waiting: list[int] = []
    served: list[int] = []
    free, upcoming, total = [0.0] * replica.instances, 0, len(arrivals)
    factors, preferred = noise.tolist(), frozenset(replica.preferred_sizes)

    def admit(until_s: float, *, stop_when_complete: bool = False) -> float | None:
        """Let in who comes until then; when the batch was complete, if that ends it."""
        nonlocal upcoming
        while upcoming < total and arrivals[upcoming] <= until_s:
            if len(waiting) < limit:
                waiting.append(upcoming)
            upcoming += 1
            if stop_when_complete and _is_complete(waiting, rows, replica):
                return arrivals[upcoming - 1]
        return None

    while upcoming < total or waiting:
        if not waiting:
            admit(arrivals[upcoming])
        oldest = arrivals[waiting[0]]
        deadline = oldest + replica.queue_delay_s
        start = max(free[0], oldest)
        admit(start)
        if start < deadline and not _is_complete(waiting, rows, replica):
            complete = admit(deadline, stop_when_complete=True)
            start = deadline if complete is None else complete
        sums = np.cumsum([rows[one] for one in waiting[: replica.max_batch]]).tolist()
        end = bisect_right(sums, replica.max_batch)
        if preferred:
            overdue = replica.queue_delay_s > 0 and start >= deadline
            end = _preferred_end(sums, 0, end, 0, preferred, overdue=overdue)
        took = replica.execution_s(sums[end - 1], end) * factors[len(batches)]
        took *= 1 + replica.sharing * sum(1 for other in free[1:] if other > start)
        heapreplace(free, start + took + replica.turnaround_s)
        batches.append((end, sums[end - 1], start, took))
        served += waiting[:end]
        del waiting[:end]
    return batches, np.array(served, dtype=np.int64)


def _is_complete(waiting: Sequence[int], rows: Sequence[int], replica: Replica) -> bool:
    """Whether those who wait fill a batch, leave no room for the next, or make a preferred one."""
    sum_of = 0
    for one in waiting:
        sum_of += rows[one]
        if sum_of >= replica.max_batch or sum_of in replica.preferred_sizes:
            return True
    return False


def _run_of(batches: Sequence[Batch], requests: int, served: Ints) -> ReplicaRun:
    counts = np.array([one[0] for one in batches], dtype=np.int64)
    started = np.array([one[2] for one in batches])
    busy = np.array([one[3] for one in batches])
    completed, joined = np.full(requests, np.nan), np.zeros(requests, dtype=np.int64)
    completed[served] = np.repeat(started + busy, counts)
    joined[served] = np.repeat(counts, counts)
    executed = np.array([one[1] for one in batches], dtype=np.int64)
    return ReplicaRun(completed, joined, executed, started, busy)


@dataclass(frozen=True)
class ClosedRun:
    """A closed loop's requests in order of their service."""

    latency_s: Floats
    """From the moment a client was free until it had taken the answer, shape (requests,)."""
    executed_rows: Ints
    duration_s: float
    busy_s: float
    """Seconds of all executions together."""

    @property
    def requests_per_s(self) -> float:
        """Requests answered per second."""
        return len(self.latency_s) / self.duration_s


def simulate_clients(
    replica: Replica,
    clients: int,
    rows: int,
    *,
    requests: int,
    client_s: tuple[float, float],
    noise: Floats,
) -> ClosedRun:
    """Serve clients that each send the next request once they have the last answer (closed loop).

    Args:
        replica: what serves them, its queue unbounded and without preferred sizes.
        clients: requests in flight.
        rows: of every request.
        requests: how many to serve at least.
        client_s: what a request spends outside the server, in seconds: for itself, and for every
            request that is answered with it (a batch's answers leave one after the other).
        noise: factor of each execution's mean time, shape (at least `requests`,).
    """
    most = replica.max_batch // rows
    coming, waiting = [0.0] * clients, list[float]()
    free, factors = [0.0] * replica.instances, noise.tolist()
    latencies: list[float] = []
    executed: list[int] = []
    end = busy_s = 0.0
    own_s, each_s = client_s
    heapify(coming)
    while len(latencies) < requests:
        oldest = waiting[0] if waiting else coming[0]
        start = max(free[0], oldest)
        _queue_until(coming, waiting, start)
        deadline = oldest + replica.queue_delay_s
        while len(waiting) < most and start < deadline and coming and coming[0] <= deadline:
            start = max(start, coming[0])
            _queue_until(coming, waiting, start)
        if len(waiting) < most:
            start = max(start, deadline)
        taken = waiting[:most]
        del waiting[:most]
        took = replica.execution_s(len(taken) * rows, len(taken)) * factors[len(executed)]
        took *= 1 + replica.sharing * sum(1 for other in free[1:] if other > start)
        end, busy_s = start + took, busy_s + took
        heapreplace(free, end + replica.turnaround_s)
        executed.append(len(taken) * rows)
        for place, arrived in enumerate(taken, start=1):
            back = end + own_s + place * max(2 * each_s, _APART_S)
            latencies.append(back - arrived)
            heappush(coming, back)
    return ClosedRun(np.array(latencies), np.array(executed, dtype=np.int64), end, busy_s)


_APART_S = 1e-6
"""Answers of one batch never leave at one instant: the first client's next request starts alone."""


def _queue_until(coming: list[float], waiting: list[float], until_s: float) -> None:
    while coming and coming[0] <= until_s:
        waiting.append(heappop(coming))

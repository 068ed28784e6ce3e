"""How far a measurement may be disturbed before a trial no longer counts.

`analysis/validity.py` judges by these, the report shows what was measured beside them.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.types import HostMetrics, RequestBound

GENERATOR_CPU_LIMIT = 0.90
"""Cores of one generator process; above it latency is the generator's own queue."""
LATE_FLOOR_MS = 10.0
LATE_SHARE_OF_P95 = 0.10
"""Sending late, or waking late (p99), is tolerated up to the greater of the two. One request in a
hundred that is 10 ms late moves no p95 of an objective of tens of milliseconds."""
IDLE_SHARE, IDLE_FLOOR_MS = 0.20, 1.0
"""A closed loop's slot may rest between an answer and its next request for so much of its time, or
for so long on average: beyond both the load is lighter than it claims to be."""
READ_TOGETHER_FLOOR_MS = 2.0
READ_TOGETHER_SHARE_OF_BOUND = 0.10
"""How late a generator may wake (p99) however closely tokens follow one another: the greater of the
two, the second of the tightest bound of the objective on a latency. A token that is read with the
next one has its instant, so a gap may be wrong by what the generator slept; no total is."""
CLOCK_ERROR_SLICES = 1.0
"""How uncertain the clock of a generator on another machine may be, in slices. It moves edges of
the window by as much for that generator's share, and no latency."""
STANDSTILL_SHARE = 0.05
"""Of the window, what a generator process may spend stopped or starved for over a second a time: a
closed loop has fewer requests in flight meanwhile."""
BROKEN_FAILURE_SHARE = 0.50
"""Above it the server is broken rather than unreliable; below it error_rate judges."""
RATE_SHORTFALL = 0.05
"""How far an open loop may fall due less often than its nominal rate, chance apart."""
COUNT_TOLERANCE = 0.02
"""How far Triton's count of answers and the client's may be apart."""
CACHED_SHARE = 0.01
"""Of the answers, what may come from the response cache. With so many the p95 is the 94.95th
percentile of what the model computed and the p99 the 98.99th, and a throughput is 1% too high: no
more than chance. Repeated inputs that are a few in thousands are not worth a trial."""
LOST_SHARE = 0.10
"""Of the server's time, what others on its machine may take: a mean latency reads up to a ninth too
high then."""


def allowed_late_ms(p95_ms: float) -> float:
    """How late a generator may send or wake (p99), by the response latency's p95."""
    return max(LATE_FLOOR_MS, LATE_SHARE_OF_P95 * p95_ms)


def allowed_together_ms(gap_ms: float, bounds: Iterable[RequestBound] = ()) -> float:
    """How late a generator of streams may wake (p99) before its gaps between tokens are not judged.

    Args:
        gap_ms: between two tokens, on average. One that wakes before the next token comes gives
            each its own instant.
        bounds: the objective's clauses on latencies.
    """
    tightest_ms = min((one.bound_ns / 1e6 for one in bounds), default=0.0)
    return max(READ_TOGETHER_FLOOR_MS, READ_TOGETHER_SHARE_OF_BOUND * tightest_ms, gap_ms)


def lost_share(host: HostMetrics, in_flight: float | None) -> float | None:
    """The share of the server's time that went to foreign processes or other virtual machines.

    What its threads waited behind foreign processes, and what a hypervisor took while they ran,
    over the time in which the server had something to do: that is its own demand for cores (run,
    waited, taken), and where requests spend their time otherwise (they sleep, or a GPU computes),
    the time in which one was on its way. A saturated server slows down by as much; one request at a
    time is delayed by as much; threads that merely wait for each other count for nothing.

    Args:
        host: of the window.
        in_flight: requests on their way at a time, on average; None is taken as always one.

    Returns:
        0 to 1; None where the machine does not tell.
    """
    used, waited, foreign = (
        host.server_run_cores,
        host.server_wait_cores,
        host.server_foreign_wait_cores,
    )
    if used is None or waited is None or foreign is None:
        return None
    taken = used * stolen_per_second(host)
    busy = max(used + waited + taken, min(1.0, 1.0 if in_flight is None else in_flight))
    return min(1.0, (foreign + taken) / busy) if busy > 0 else None


def stolen_per_second(host: HostMetrics) -> float:
    """Seconds that a hypervisor took for each second that the cores worked."""
    stolen, busy = host.cpu_steal or 0.0, host.cpu_utilization or 0.0
    worked = busy - stolen
    return stolen / worked if worked > 0 else 0.0

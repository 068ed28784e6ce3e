"""How much of a server's time others on its machine took, from what the machine counted."""

from __future__ import annotations

from harness.types import HostMetrics


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
    used, waited, foreign = host.server_cpu, host.server_wait_cores, host.server_foreign_wait_cores
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

"""How long an instance is occupied after it has answered, before it takes the next batch.

Triton counts what executions take, so what is left of a loaded instance's time lies between them.
Of that, a simulation of the same clients without a turnaround explains a part: the time in which no
request was there. The rest, per execution, is the turnaround.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.planning.capacity.draws import Draw
from harness.planning.capacity.replica import simulate_clients
from harness.types import LoadMode, TrialResult

_REQUESTS = 1000


def turnaround_ms(guess: Draw, trials: Sequence[TrialResult], seed: int) -> float:
    """The turnaround by the closed loop with the least time between executions; 0 without one.

    Args:
        guess: what is known of the executions.
        trials: of the configuration that is asked about.
        seed: of the simulated executions' spread.
    """
    closed = [one for one in trials if _tells(one, guess.curve.largest_rows)]
    if not closed:
        return 0.0
    busiest = min(closed, key=_idle_ms)
    workload = busiest.trial.workload
    simulated = simulate_clients(
        guess.replica(busiest.trial.serving),
        workload.concurrency,
        workload.client_batch_size,
        requests=_REQUESTS,
        client_s=(guess.client.own_ms / 1e3, guess.client.each_ms / 1e3),
        noise=guess.spread.draw(np.random.default_rng([seed, 13]), _REQUESTS),
    )
    instances = max(1, busiest.trial.serving.instance_count)
    idle_s = simulated.duration_s * instances - simulated.busy_s
    without_ms = 1e3 * idle_s / len(simulated.executed_rows)
    return max(0.0, _idle_ms(busiest) - without_ms)


def _tells(one: TrialResult, largest_rows: int) -> bool:
    workload, server = one.trial.workload, one.server
    return bool(
        workload.load_mode is LoadMode.CLOSED
        and not workload.batch_mix
        and workload.client_batch_size <= largest_rows
        and server.batch_compute_ms
        and server.requests
    )


def _idle_ms(one: TrialResult) -> float:
    """Milliseconds per execution in which its instance did not execute.

    The server's own window is as long as its requests take at the throughput that clients saw: it
    may be cut at other moments than theirs.
    """
    sizes, times = one.server.batch_sizes, one.server.batch_compute_ms
    window_s = (one.server.requests or 0) / one.throughput_requests_per_s
    instances = max(1, one.trial.serving.instance_count)
    busy_ms = sum(sizes.get(rows, 0) * ms for rows, ms in times.items())
    return (1e3 * window_s * instances - busy_ms) / max(1, sum(sizes.values()))

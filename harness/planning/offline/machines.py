"""Machines for a job by its deadline: stragglers, and one machine that is lost.

The job is cut into as many equal shards as there are machines, in whole batches. What a machine
takes for its shard is the shard over the rate, times a log-normal factor of mean 1 for the machine
and the mean of the factors of its seconds. The job ends with the slowest machine.

The worst moment to lose a machine is just before it has finished: then its shard is done again, an
equal part by each of the others as soon as it has finished its own, and not before the loss.

Both chances have a closed form, by which machines are counted; `simulated_finish` draws jobs for
the finishing time, and a test holds one against the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from harness.types.estimates import Interval
from harness.types.offline import OfflineSpread

MOST_MACHINES = 10_000
_NODES = 64
"""Nodes of the integral over the instant at which a machine is lost."""
_ROUNDING = 1e-9
_LEAST_SIGMA = 1e-11
_FIRST_LOOK = 256
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShardedJob:
    """A job on machines of one rate."""

    rows: float
    """Inferences of the whole job."""
    batch_size: int
    time_s: float
    """Seconds for the work: the deadline without the machines' start."""
    inferences_per_s: float
    """Throughput of one machine, on average."""
    spread: float
    """Coefficient of variation of the machines' times."""
    spread_of_seconds: float = 0.0

    def shard_rows(self, machines: Floats) -> Floats:
        """Rows of each machine, in whole batches; (n,) for (n,) numbers of machines."""
        return _whole_batches(self.rows / machines, self.batch_size)

    def redone_rows(self, machines: Floats) -> Floats:
        """Rows that each of the others does again when a machine is lost; infinite for one."""
        others = np.maximum(machines - 1, 1)
        shared = _whole_batches(self.shard_rows(machines) / others, self.batch_size)
        return np.where(machines > 1, shared, np.inf)

    def sigma(self, shard_s: Floats) -> Floats:
        """Standard deviation of the logarithm of a shard's time."""
        seconds = np.log1p(self.spread_of_seconds**2 / np.maximum(shard_s, 1.0))
        return np.maximum(np.sqrt(math.log1p(self.spread**2) + seconds), _LEAST_SIGMA)


def _whole_batches(rows: Floats, batch_size: int) -> Floats:
    found: Floats = np.ceil(rows / batch_size - _ROUNDING) * batch_size
    return found


def _within(limit: Floats, sigma: Floats) -> Floats:
    """Chance that a log-normal factor of mean 1 is at most `limit`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.maximum(limit, 0.0))
    found: Floats = scipy.special.ndtr((logs + _ROUNDING + sigma**2 / 2) / sigma)
    return found


def chance_in_time(job: ShardedJob, machines: Floats) -> Floats:
    """Chance that the slowest of the machines is in time; (n,) for (n,) numbers of them."""
    shard_s = job.shard_rows(machines) / job.inferences_per_s
    sigma = job.sigma(shard_s)
    found: Floats = _within(job.time_s / shard_s, sigma) ** machines
    return found


def chance_with_loss(job: ShardedJob, machines: Floats) -> Floats:
    """The chance of finishing if one machine is lost just before its end; 0 for a single machine.

    Given the lost machine's time x, each other has to be in time with its own shard and its part of
    the lost one, begun when both its own shard and x are over. The integral over x is taken at the
    midpoints of 64 shares of its distribution that are equally likely.
    """
    shard_s = job.shard_rows(machines) / job.inferences_per_s
    again_s = job.redone_rows(machines) / job.inferences_per_s
    sigma = job.sigma(shard_s)
    normal = scipy.special.ndtri((np.arange(_NODES) + 0.5) / _NODES)[:, None]
    lost_s = shard_s * np.exp(sigma * normal - sigma**2 / 2)
    own = job.time_s / (shard_s + again_s)
    after = (job.time_s - lost_s + _ROUNDING * job.time_s) / again_s
    each = _within(np.minimum(own, after), sigma)
    found: Floats = np.mean(each ** np.maximum(machines - 1, 1), axis=0)
    return np.where(machines > 1, found, 0.0)


def even_machines(job: ShardedJob) -> int | None:
    """The fewest equally fast machines; None for more than 10,000."""
    counts = np.arange(1.0, MOST_MACHINES + 1)
    shard_s = job.shard_rows(counts) / job.inferences_per_s
    return _first(counts, shard_s <= job.time_s * (1 + _ROUNDING))


def fewest_machines(job: ShardedJob, chance: float, *, with_loss: bool) -> int | None:
    """The fewest machines that keep the deadline with a chance; None for more than 10,000.

    Args:
        job: the work.
        chance: 0 to 1.
        with_loss: one of the machines is lost.
    """
    least = even_machines(job)
    if least is None:
        return None
    judge = chance_with_loss if with_loss else chance_in_time
    near = np.arange(float(least), min(least + _FIRST_LOOK, MOST_MACHINES) + 1)
    rest = np.arange(near[-1] + 1, MOST_MACHINES + 1)
    for counts in (near, rest):
        found = _first(counts, judge(job, counts) >= chance) if len(counts) else None
        if found is not None:
            return found
    return None


def _first(counts: Floats, enough: NDArray[np.bool_]) -> int | None:
    return int(counts[np.argmax(enough)]) if enough.any() else None


def simulated_finish(
    job: ShardedJob, machines: int, *, with_loss: bool, draws: int, seed: int
) -> Floats:
    """Seconds of work until the last document is done, in simulated jobs: (draws,).

    Each machine's seconds are drawn as gamma variables, of which the closed form knows the variance
    alone. With a loss a single machine never ends.
    """
    generator = np.random.default_rng(seed)
    count = np.array([float(machines)])
    shard_s = float(job.shard_rows(count)[0]) / job.inferences_per_s
    sigma = math.sqrt(math.log1p(job.spread**2))
    factors = np.exp(sigma * generator.standard_normal((draws, machines)) - sigma**2 / 2)
    if job.spread_of_seconds > 0:
        shape = max(shard_s, 1.0) / job.spread_of_seconds**2
        factors *= generator.gamma(shape, 1 / shape, (draws, machines))
    own_s = shard_s * factors
    if not with_loss:
        return np.asarray(own_s.max(axis=1), dtype=np.float64)
    if machines == 1:
        return np.full(draws, math.inf)
    again_s = float(job.redone_rows(count)[0]) / job.inferences_per_s
    begun_s = np.maximum(own_s[:, 1:], own_s[:, :1])
    return np.asarray((begun_s + again_s * factors[:, 1:]).max(axis=1), dtype=np.float64)


def drawn_rates(rate: Interval, draws: int, seed: int) -> Floats:
    """Rates over the measured one, as its interval has them: (draws,), around 1.

    The logarithm is drawn from a normal distribution whose halves reach the interval's two ends at
    their 2.5th and 97.5th percentile.
    """
    normal = np.random.default_rng([seed, 1]).standard_normal(draws)
    reach = float(scipy.special.ndtri(0.975))
    down, up = math.log(rate.value / rate.low) / reach, math.log(rate.high / rate.value) / reach
    return np.exp(np.where(normal < 0, down, up) * normal)


def jobs_at(
    rows: float, batch_size: int, time_s: float, rate: Interval, spread: OfflineSpread
) -> tuple[ShardedJob, ShardedJob, ShardedJob]:
    """The job as it was measured, at the favourable bounds and at the unfavourable ones."""
    pairs = (
        (rate.value, spread.machines.value),
        (rate.high, spread.machines.low),
        (rate.low, spread.machines.high),
    )
    measured, best, worst = (
        ShardedJob(rows, batch_size, time_s, per_s, cv, spread.seconds) for per_s, cv in pairs
    )
    return measured, best, worst

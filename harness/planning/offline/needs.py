"""Machines of one type for a variant's job, and how it then ends: in time, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import UsageError
from harness.planning.cost.money import SECONDS_PER_HOUR, scaled, times
from harness.planning.offline.machines import (
    MOST_MACHINES,
    Floats,
    ShardedJob,
    chance_in_time,
    chance_with_loss,
    drawn_rates,
    even_machines,
    fewest_machines,
    jobs_at,
    simulated_finish,
)
from harness.types.estimates import Interval, Pricing
from harness.types.offline import MachineNeed, OfflineSpread, OfflineTerms
from harness.words.numbers import asked, asked_percent, count, seconds

DRAWS = 2000
"""Simulated jobs behind a finishing time, on up to 1,000 machines; fewer on more."""
_MOST_DRAWN, _FEWEST_DRAWS = 2_000_000, 200
DAYS_PER_MONTH = 365 / 12
AS_MEASURED = Interval(1.0, 1.0, 1.0)


class NoMachinesError(UsageError):
    """No number of machines that is worth naming does the job in time."""


@dataclass(frozen=True)
class OfflineWork:
    """A job as one variant does it."""

    terms: OfflineTerms
    batch_size: int
    inferences_per_s: Interval
    """Throughput on the machine that was measured; each bound is above 0."""
    start_s: float
    spread: OfflineSpread


def machines_for(work: OfflineWork, pricing: Pricing | None, seed: int) -> MachineNeed:
    """Machines of one type for a job.

    Args:
        work: the job.
        pricing: the type; None: like the machine that was measured.
        seed: draws the simulated jobs.

    Raises:
        NoMachinesError: the machines' start takes the time up, or more than 10,000 are needed.
    """
    terms = work.terms
    time_s = terms.deadline_s - work.start_s
    if time_s <= 0:
        raise NoMachinesError(
            f"a machine starts in {seconds(work.start_s)} s, and the deadline is after "
            f"{asked(terms.deadline_s)} s",
            next_step="give the job more time: --deadline",
        )
    rate = scaled(work.inferences_per_s, pricing.scaling if pricing else AS_MEASURED)
    jobs = jobs_at(terms.rows, work.batch_size, time_s, rate, work.spread)
    with_loss = _counted(
        [fewest_machines(one, terms.chance, with_loss=True) for one in jobs], terms
    )
    machines = round(with_loss.high)
    many = np.array([float(machines)])
    per_job = None if pricing is None else _usd_per_job(work, rate, machines, pricing.usd_per_hour)
    days = terms.jobs_per_day * DAYS_PER_MONTH
    return MachineNeed(
        pricing=pricing,
        inferences_per_s=rate,
        even=_counted([even_machines(one) for one in jobs], terms),
        with_stragglers=_counted(
            [fewest_machines(one, terms.chance, with_loss=False) for one in jobs], terms
        ),
        with_loss=with_loss,
        finish_s=_finish(work, jobs[0], rate, machines, seed, with_loss=False),
        finish_with_loss_s=_finish(work, jobs[0], rate, machines, seed, with_loss=True),
        in_time=_chances([chance_in_time(one, many) for one in jobs]),
        in_time_with_loss=_chances([chance_with_loss(one, many) for one in jobs]),
        jobs_per_hour=times(rate, SECONDS_PER_HOUR / terms.rows),
        usd_per_job=per_job,
        usd_per_month=None if per_job is None else times(per_job, days),
    )


def _counted(found: Sequence[int | None], terms: OfflineTerms) -> Interval:
    """Numbers of machines as measured, at the favourable bounds and at the unfavourable ones.

    Raises:
        NoMachinesError: one of them is too many.
    """
    known = [float(one) for one in found if one is not None]
    if len(known) < len(found):
        raise NoMachinesError(
            f"more than {count(MOST_MACHINES)} machines would be needed for a chance of "
            f"{asked_percent(terms.chance)}",
            next_step="give the job more time (--deadline), or narrow what is uncertain: "
            "--measured-on, --measure, --spread",
        )
    return Interval(*known)


def _usd_per_job(work: OfflineWork, rate: Interval, machines: int, usd_per_hour: float) -> Interval:
    """Each machine is paid for from its order until its own shard is done; none of them is lost."""
    starting_s = machines * work.start_s
    value, low, high = (
        usd_per_hour * (work.terms.rows / per_s + starting_s) / SECONDS_PER_HOUR
        for per_s in (rate.value, rate.high, rate.low)
    )
    return Interval(value, low, high)


def _finish(
    work: OfflineWork, job: ShardedJob, rate: Interval, machines: int, seed: int, *, with_loss: bool
) -> Interval:
    """Seconds from ordering the machines until the last document is done, in simulated jobs."""
    draws = max(_FEWEST_DRAWS, min(DRAWS, _MOST_DRAWN // machines))
    worked_s = simulated_finish(job, machines, with_loss=with_loss, draws=draws, seed=seed)
    ends = np.percentile(worked_s / drawn_rates(rate, draws, seed), [50, 2.5, 97.5])
    value, low, high = (work.start_s + float(one) for one in ends)
    return Interval(value, low, high)


def _chances(found: Sequence[Floats]) -> Interval:
    """Chances as measured, at the favourable bounds and at the unfavourable ones."""
    value, best, worst = (float(one[0]) for one in found)
    return Interval(value, min(value, worst), max(value, best))

"""Machines of a sharded job against closed forms, by hand and by scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from harness.planning.offline.machines import (
    MOST_MACHINES,
    ShardedJob,
    chance_in_time,
    chance_with_loss,
    drawn_rates,
    even_machines,
    fewest_machines,
    simulated_finish,
)
from harness.types.estimates import Interval

SIX_HOURS = 6 * 3600.0


def job(rows, *, rate=100.0, spread=0.0, batch=1, time_s=SIX_HOURS, seconds=0.0):
    return ShardedJob(rows, batch, time_s, rate, spread, seconds)


def chances(judge, asked, *machines):
    return judge(asked, np.array(machines, dtype=float))


def test_equally_fast_machines_are_the_work_over_what_one_does():
    """100 a second for 6 hours are 2.16 million."""
    assert even_machines(job(10e6)) == 5
    assert even_machines(job(2.16e6)) == 1
    assert even_machines(job(2.16e6 + 1)) == 2
    assert even_machines(job(MOST_MACHINES * 2.16e6)) == MOST_MACHINES
    assert even_machines(job(MOST_MACHINES * 2.16e6 + 1)) is None


def test_shards_are_whole_batches():
    """20 rows in batches of 8: two machines get 16 each, and so take as long as 16 rows."""
    cut = job(20, batch=8, rate=1.0, time_s=16.0)
    assert cut.shard_rows(np.array([1.0, 2.0, 3.0])).tolist() == [24, 16, 8]
    assert even_machines(cut) == 2
    assert even_machines(job(20, batch=8, rate=1.0, time_s=15.9)) == 3


@pytest.mark.parametrize("machines", [2, 5, 40])
def test_without_stragglers_one_lost_machine_takes_one_more(machines):
    """m of m + 1 machines can do all; a few rows less, because shards are whole batches."""
    asked = job(machines * 2.16e6 - 100)
    assert even_machines(asked) == machines
    assert fewest_machines(asked, 0.95, with_loss=False) == machines
    assert fewest_machines(asked, 0.95, with_loss=True) == machines + 1


def test_a_single_machine_that_is_lost_leaves_nobody():
    small = job(10, spread=0.1)
    assert fewest_machines(small, 0.95, with_loss=False) == 1
    assert fewest_machines(small, 0.95, with_loss=True) == 2
    assert chances(chance_with_loss, small, 1).tolist() == [0.0]
    assert np.isinf(simulated_finish(small, 1, with_loss=True, draws=3, seed=0)).all()


def test_the_slowest_of_log_normal_machines_is_in_time():
    """The distribution of the greatest of m is one's to the power of m; one's mean is the shard."""
    asked = job(8 * 2.16e6 / 1.15, spread=0.1)
    sigma = math.sqrt(math.log(1.01))
    one = stats.lognorm(sigma, scale=math.exp(-(sigma**2) / 2))
    assert one.mean() == pytest.approx(1)
    assert one.std() == pytest.approx(0.1)
    found = chances(chance_in_time, asked, 8, 10)
    assert found == pytest.approx([one.cdf(1.15) ** 8, one.cdf(1.15 * 10 / 8) ** 10], abs=1e-6)


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize(("machines", "seconds"), [(3, 0.0), (12, 0.0), (12, 5.0)])
def test_simulated_jobs_agree_with_the_closed_form(machines, seconds, with_loss):
    asked = job(machines * 2.16e6 / (1.45 if with_loss else 1.15), spread=0.1, seconds=seconds)
    judge = chance_with_loss if with_loss else chance_in_time
    (expected,) = chances(judge, asked, machines)
    assert 0.05 < expected < 0.999
    draws = 20_000
    finish = simulated_finish(asked, machines, with_loss=with_loss, draws=draws, seed=7)
    error = math.sqrt(expected * (1 - expected) / draws)
    assert abs((finish <= SIX_HOURS).mean() - expected) < 4 * error + 1e-3


def test_a_lost_machine_by_a_simulation_written_out():
    """Loop by loop: nobody begins with the lost shard before it is lost, or before its own ends."""
    generator = np.random.default_rng(3)
    sigma, machines, shard_s = math.sqrt(math.log(1.04)), 4, 15_000.0
    in_time = 0
    for _ in range(4000):
        factors = np.exp(sigma * generator.standard_normal(machines) - sigma**2 / 2)
        ends = []
        for other in factors[1:]:
            begins = max(other * shard_s, factors[0] * shard_s)
            ends.append(begins + other * shard_s / (machines - 1))
        in_time += max(ends) <= 24_000.0
    (expected,) = chances(
        chance_with_loss, job(machines * shard_s * 100, spread=0.2, time_s=24_000.0), machines
    )
    assert in_time / 4000 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))


@pytest.mark.parametrize("with_loss", [False, True])
def test_the_fewest_is_enough_and_one_less_is_not(with_loss):
    asked = job(10e6, spread=0.15, seconds=0.5)
    judge = chance_with_loss if with_loss else chance_in_time
    fewest = fewest_machines(asked, 0.99, with_loss=with_loss)
    less, enough = chances(judge, asked, fewest - 1, fewest)
    assert less < 0.99 <= enough


def test_more_than_can_be_looked_at_first_are_found_too():
    asked = job(500 * 2.16e6, spread=0.3)
    fewest = fewest_machines(asked, 0.95, with_loss=False)
    less, enough = chances(chance_in_time, asked, fewest - 1, fewest)
    assert fewest > 500 + 256
    assert less < 0.95 <= enough
    assert fewest_machines(job(9999 * 2.16e6, spread=0.3), 0.95, with_loss=False) is None


def test_seconds_average_out_over_a_shard():
    """Half as fast or twice as fast from second to second: over 6 hours that is 0.3%."""
    steady, bumpy = job(2e6, spread=0.0), job(2e6, seconds=0.5)
    assert bumpy.sigma(np.array([20_000.0]))[0] == pytest.approx(0.5 / math.sqrt(20_000), rel=1e-3)
    assert even_machines(steady) == fewest_machines(bumpy, 0.95, with_loss=False)


def test_rates_are_drawn_to_the_ends_of_their_interval():
    drawn = drawn_rates(Interval(100.0, 50.0, 120.0), 40_000, 0)
    low, median, high = np.percentile(drawn, [2.5, 50, 97.5])
    assert (low, median, high) == pytest.approx((0.5, 1.0, 1.2), rel=0.02)

"""Throughput over batch size, and how trials of one load differ, by hand and by scipy."""

import dataclasses

import numpy as np
import pytest
from cost_samples import STUDENT, TEACHER, result
from scipy import stats

from harness.planning.offline.curve import (
    ASSUMED_SPREAD,
    by_load,
    curve_of,
    growth_between,
    judged,
    rate_of,
    repeated,
    scatter_of,
    spread_of,
)
from harness.planning.offline.plan import best_loads, variation_of_seconds
from harness.types.estimates import Interval
from harness.types.offline import BatchPoint, CurveSource


def exactly(value):
    return Interval(value, value, value)


def curve(least=0.1, **rates):
    sizes = {int(name[1:]): exactly(rate) for name, rate in rates.items()}
    return curve_of(CurveSource.SEARCH, sizes, least)


def again(one, rate, number):
    trial = dataclasses.replace(one.trial, repeat=number)
    return dataclasses.replace(one, trial=trial, throughput_inferences_per_s=rate)


def test_growth_is_that_of_each_doubling():
    """Two doublings that bring 44% together bring 20% each."""
    found = growth_between(BatchPoint(2, exactly(100.0)), BatchPoint(8, exactly(144.0)))
    assert found.value == pytest.approx(0.2)
    wide = growth_between(
        BatchPoint(2, Interval(100.0, 80.0, 125.0)), BatchPoint(4, Interval(150.0, 120.0, 160.0))
    )
    assert (wide.value, wide.low, wide.high) == pytest.approx((0.5, -0.04, 1.0))


def test_the_knee_is_the_batch_from_which_doubling_brings_too_little():
    found = curve(b1=100.0, b4=196.0, b8=210.0, b16=300.0)
    assert found.knee == 4
    assert found.is_sure
    assert found.ended == "doubling brings less than 10%, with confidence"
    assert curve(least=0.05, b1=100.0, b4=196.0, b8=210.0).knee is None
    growing = curve(b1=100.0, b4=196.0)
    assert (growing.knee, growing.ended) == (None, "batch 4 is the largest that was measured")
    unsure = curve_of(
        CurveSource.SEARCH, {1: Interval(100.0, 80.0, 120.0), 2: Interval(105.0, 85.0, 125.0)}, 0.1
    )
    assert (unsure.knee, unsure.is_sure) == (1, False)
    assert unsure.ended == "doubling brings less than 10%, by the mean alone"


def test_a_curve_is_judged_again_by_another_growth():
    found = curve(b1=100.0, b4=196.0, b8=210.0, b16=213.0)
    assert judged(found.source, found.points, 0.05).knee == 8
    assert judged(found.source, found.points, 0.5).knee == 1
    assert judged(found.source, found.points, 0.1) == found


def test_the_mean_of_repeated_trials_has_students_interval():
    rates = [90.0, 100.0, 110.0]
    logs = np.log(rates)
    low, high = stats.t(2, logs.mean(), stats.sem(logs)).interval(0.95)
    found = repeated(rates)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    assert found.value == pytest.approx(stats.gmean(rates))


def test_a_single_trial_has_its_own_interval_or_none():
    one = result(STUDENT, 1000.0)
    assert rate_of([one]) == Interval(1000.0, 900.0, 1100.0)
    bare = dataclasses.replace(one, throughput_low_inferences_per_s=None)
    assert rate_of([bare]) is None


def test_scatter_is_pooled_over_loads():
    """Two loads of two and three trials: three degrees of freedom."""
    first, second = result(STUDENT, 1000.0), result(TEACHER, 100.0)
    trials = [again(first, 1000.0, 0), again(first, 1100.0, 1)]
    trials += [again(second, rate, number) for number, rate in enumerate((90.0, 100.0, 121.0))]
    logs = [np.log([1000.0, 1100.0]), np.log([90.0, 100.0, 121.0])]
    squares = sum(((one - one.mean()) ** 2).sum() for one in logs)
    scatter = scatter_of(trials)
    assert (scatter.freedom, scatter.trials) == (3, 5)
    assert scatter.deviation == pytest.approx(np.sqrt(squares / 3))
    spread = spread_of(trials, None).machines
    expected = [squares / 3, squares / stats.chi2.ppf(0.975, 3), squares / stats.chi2.ppf(0.025, 3)]
    assert (spread.value, spread.low, spread.high) == pytest.approx(
        [np.sqrt(np.exp(one) - 1) for one in expected]
    )
    # More is known of the run's scatter than of two trials' own.
    pooled = rate_of(trials[:2], scatter)
    reach = stats.t(3).ppf(0.975) * scatter.deviation / np.sqrt(2)
    assert np.log(pooled.high / pooled.value) == pytest.approx(reach)


def test_too_few_repetitions_tell_nothing_and_what_is_given_counts():
    one = result(STUDENT, 1000.0)
    few = [again(one, rate, number) for number, rate in enumerate((900.0, 1000.0, 1100.0))]
    assert scatter_of(few) is None
    found = spread_of(few, None)
    assert found.machines == ASSUMED_SPREAD
    assert "assumed" in found.basis
    assert spread_of(few, 0.07).machines == exactly(0.07)


def test_invalid_trials_open_loops_mixes_and_caches_count_for_nothing():
    one = result(STUDENT, 1000.0)
    assert len(by_load([one])) == 1
    mixed = dataclasses.replace(
        one.trial, workload=dataclasses.replace(one.trial.workload, batch_mix=((1, 1.0), (8, 1.0)))
    )
    opened = dataclasses.replace(
        one.trial, workload=dataclasses.replace(one.trial.workload, load_mode="open")
    )
    cached = dataclasses.replace(
        one.trial, serving=dataclasses.replace(one.trial.serving, response_cache=True)
    )
    refused = [result(STUDENT, 1000.0, invalid="why")]
    refused += [dataclasses.replace(one, trial=trial) for trial in (mixed, opened, cached)]
    assert not by_load(refused)


def test_of_each_batch_the_load_of_the_highest_rate():
    best = best_loads(
        [
            result(STUDENT, 1000.0, concurrency=4),
            result(STUDENT, 1200.0, concurrency=8),
            result(STUDENT, 3000.0, batch=8),
        ]
    )
    assert {size: rate.value for size, (_, _, rate) in best.items()} == {1: 1200.0, 8: 3000.0}
    assert best[1][0].in_flight == 8


def test_variation_from_second_to_second():
    assert variation_of_seconds([90.0, 110.0]) == pytest.approx(np.sqrt(200) / 100)
    assert variation_of_seconds([100.0]) == 0


def test_loads_of_other_lengths_are_no_repetitions():
    """Loaded by hand with long texts a model gives a tenth: that is no slow machine."""
    usual = result(STUDENT, 1000.0)

    def at(length, rate):
        workload = dataclasses.replace(usual.trial.workload, length_mix=((length, 1.0),))
        trial = dataclasses.replace(usual.trial, workload=workload)
        return dataclasses.replace(again(usual, rate, 0), trial=trial)

    trials = [at(8, 9000.0), usual, again(usual, 1010.0, 3), again(usual, 990.0, 5), at(512, 100.0)]
    assert sorted(map(len, by_load(trials).values())) == [1, 1, 3]
    ((load, results, rate),) = best_loads(trials).values()
    assert (load.length_mix, len(results)) == ((), 3)
    assert rate.value == pytest.approx(1000.0, rel=0.001)

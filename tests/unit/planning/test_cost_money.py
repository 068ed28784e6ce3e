"""Money from rates, by hand."""

import math

import pytest

from harness.planning.cost.money import (
    break_even,
    difference,
    filled_machines,
    fleet_of,
    per_tokens,
    planned_machines,
    share_saved,
    usd_per_million,
)
from harness.types.capacity import Headroom
from harness.types.estimates import Interval, Pricing


def exactly(value):
    return Interval(value, value, value)


def bounds(interval):
    return (interval.value, interval.low, interval.high)


def test_a_thousand_per_second_at_one_dollar_an_hour():
    found = usd_per_million(Pricing("any", 1.0), exactly(1000.0))
    assert bounds(found) == pytest.approx((1 / 3.6,) * 3)
    assert round(found.value, 4) == 0.2778


def test_the_least_throughput_is_the_highest_cost():
    found = usd_per_million(Pricing("any", 1.8), Interval(1000.0, 500.0, 2000.0))
    assert bounds(found) == pytest.approx((0.5, 0.25, 1.0))


def test_the_scaling_moves_the_cost_and_widens_it():
    doubled = Pricing("any", 1.8, Interval(2.0, 1.0, 4.0), "estimate")
    found = usd_per_million(doubled, Interval(1000.0, 800.0, 1250.0))
    # 2,000 (800 to 5,000) inferences/s there
    assert bounds(found) == pytest.approx((0.25, 0.1, 0.625))


def test_a_rate_that_may_be_nothing_has_no_upper_bound_of_cost():
    assert usd_per_million(Pricing("any", 1.0), Interval(10.0, 0.0, 20.0)).high == math.inf


def test_tokens_share_the_cost_of_their_inference():
    assert bounds(per_tokens(Interval(0.5, 0.25, 1.0), 50.0)) == pytest.approx((0.01, 0.005, 0.02))


def test_the_peak_fills_whole_machines():
    rate = Interval(1000.0, 900.0, 1250.0)
    machines = filled_machines(6000.0, rate)
    assert bounds(machines) == (6, 5, 7)  # 6000/1000, 6000/1250 = 4.8, 6000/900 = 6.67
    found = fleet_of(2000.0, machines, rate, 2.0)
    assert bounds(found.usd_per_month) == (8760.0, 7300.0, 10220.0)  # 730 h of 2 USD each
    assert found.utilisation == pytest.approx(2000 / 6000)


def test_the_least_fleet_is_one_machine():
    assert filled_machines(1.0, exactly(1000.0)).value == 1


def test_a_plans_spare_replicas_stay_spare_on_larger_machines():
    plan = Headroom(peak=6, lost_replica=7, lost_zone=9, rolling_update=8, cold_start=7)
    assert bounds(planned_machines(plan, exactly(1.0))) == (9, 9, 9)
    assert planned_machines(plan, exactly(2.0)).value == 3 + 2
    assert planned_machines(plan, exactly(100.0)).value == 1 + 1
    assert planned_machines(plan, exactly(1 / 3)).value == 18 + 9  # not 19 for rounding
    without = Headroom(peak=1, lost_replica=1, lost_zone=1, rolling_update=1, cold_start=1)
    assert planned_machines(without, exactly(0.5)).value == 2


def test_savings_have_the_widest_bounds_of_both():
    before, after = Interval(10.0, 8.0, 12.0), Interval(4.0, 3.0, 6.0)
    assert bounds(difference(before, after)) == (6.0, 2.0, 9.0)
    assert bounds(share_saved(before, after)) == pytest.approx((0.6, 0.25, 0.75))


def test_a_student_that_costs_more_saves_less_than_nothing():
    assert bounds(share_saved(exactly(1.0), exactly(1.5))) == (-0.5, -0.5, -0.5)


def test_a_thousand_dollars_that_save_250_a_month_are_back_after_four():
    found = break_even(Interval(250.0, 200.0, 500.0), 1000.0, 12.0)
    assert (found.months, found.earliest_months, found.latest_months) == (4.0, 2.0, 5.0)
    # 3,000 (2,400 to 6,000) USD saved over a year, of 1,000
    assert bounds(found.return_on_investment) == pytest.approx((2.0, 1.4, 5.0))


def test_what_may_save_nothing_is_perhaps_never_paid_back():
    found = break_even(Interval(100.0, -50.0, 200.0), 1000.0, 12.0)
    assert (found.months, found.earliest_months, found.latest_months) == (10.0, 5.0, None)


def test_what_saves_nothing_is_never_paid_back():
    found = break_even(Interval(-100.0, -200.0, 0.0), 1000.0, 12.0)
    assert (found.months, found.earliest_months, found.latest_months) == (None, None, None)

"""Rules and Kubernetes' mechanics: replicas as its documentation or arithmetic give them."""

from dataclasses import replace

import numpy as np
import pytest

from harness.errors import UsageError
from harness.planning.autoscaling.rules import FleetReading, Seen, by_value, recommend
from harness.planning.autoscaling.scaler import HorizontalScaler, check_limits
from harness.types.autoscaling import (
    Behavior,
    FixedRule,
    ForecastRule,
    InFlightRule,
    Policy,
    QueueRule,
    ReplicaStep,
    ScalingLimits,
    ScheduleRule,
    Select,
    UtilizationRule,
)

SEEN = FleetReading(
    time_s=0.0, replicas=4, ready=4, completed_per_s=0.0, waiting=0.0, executing=0.0, queue_ms=0.0
)
HALF = UtilizationRule(0.5, 50.0, 60.0)


def asked(rule, tolerance=0.1, past=(), **seen):
    return recommend(rule, replace(SEEN, **seen), past, tolerance)


def test_a_value_is_held_against_its_target_as_kubernetes_documents_it():
    """Twice the target doubles the replicas, half of it halves them, and it rounds up."""
    assert by_value(200, 100, SEEN, 0.1) == 8
    assert by_value(50, 100, SEEN, 0.1) == 2
    assert by_value(130, 100, SEEN, 0.1) == 6


@pytest.mark.parametrize(("demand", "replicas"), [(219, 4), (220, 4), (221, 5), (180, 4), (179, 4)])
def test_a_total_is_divided_and_the_tolerance_counts_from_the_target(demand, replicas):
    """4 replicas at 50/s each: within 180 and 220 nothing changes; 179 / 50 rounds up to 4."""
    assert asked(HALF, completed_per_s=demand) == replicas


def test_requests_that_wait_are_demand_too():
    """200/s answered, 600 waiting to be emptied in 60 s: 210/s; with 3,000 waiting, 250/s."""
    assert asked(HALF, completed_per_s=200.0, waiting=600.0) == 4
    assert asked(HALF, completed_per_s=200.0, waiting=3000.0) == 5


def test_requests_in_flight_are_those_that_wait_and_those_that_execute():
    assert asked(InFlightRule(2.0), waiting=9.0, executing=4.0) == 7


def test_a_queue_that_stands_asks_for_no_more_than_its_limit():
    """10 minutes in the queue against 10 ms is not 60,000 times too few replicas."""
    rule = QueueRule(10.0, 50.0, most=2.0)
    assert asked(rule, queue_ms=600e3) == 8


def test_a_queue_rule_scales_in_by_demand_and_not_by_a_wait_that_is_gone():
    rule = QueueRule(10.0, 50.0)
    assert asked(rule, queue_ms=0.1, completed_per_s=140.0) == 3
    assert asked(replace(rule, per_replica_per_s=None), queue_ms=0.1, completed_per_s=140.0) == 1


def test_a_schedule_asks_ahead_and_keeps_until_the_slot_ends():
    rule = ScheduleRule(slot_s=100.0, replicas=(1, 5, 2), lead_s=30.0)
    numbers = [asked(rule, time_s=at) for at in (0, 69, 70, 100, 199, 200, 299, 300)]
    assert numbers == [1, 1, 5, 5, 5, 2, 2, 1]


def test_a_forecast_follows_a_line_to_where_it_leads():
    """Demand 10 more every 15 s; in 60 s it is 40 more than now."""
    rule = ForecastRule(0.5, 50.0, window_s=61.0, horizon_s=60.0, drain_s=None)
    past = [Seen(15.0 * n, 100.0 + 10.0 * n) for n in range(5)]
    assert asked(rule, past=past, time_s=60.0, completed_per_s=140.0, tolerance=0.0) == 4
    steeper = [Seen(one.time_s, 100 + 2 * (one.demand_per_s - 100)) for one in past]
    assert asked(rule, past=steeper, time_s=60.0, completed_per_s=180.0) == 6
    falling = [Seen(one.time_s, 300.0 - one.demand_per_s) for one in past]
    assert asked(rule, past=falling, time_s=60.0, completed_per_s=160.0, tolerance=0.0) == 4


def scaler(*rules, **limits):
    return HorizontalScaler(Policy("", rules), ScalingLimits(**{"max_replicas": 100} | limits))


def course(made, asks, every_s=15.0, replicas=1):
    """Replicas after each decision, where each one is carried out at once."""
    numbers = []
    for place, asks_for in enumerate(asks):
        made.policy = Policy("", (FixedRule(asks_for),))
        seen = replace(SEEN, time_s=place * every_s, replicas=replicas, ready=replicas)
        replicas = made.decide(seen)
        numbers.append(replicas)
    return numbers


def test_scaling_up_goes_by_four_or_by_doubling_every_15_seconds():
    """Kubernetes' default: the larger of 4 pods and 100%."""
    assert course(scaler(), [80] * 6) == [5, 10, 20, 40, 80, 80]


def test_scaling_down_waits_for_the_highest_of_five_minutes():
    """20 decisions lie within 300 s; the one that asked for 10 leaves after the twentieth."""
    numbers = course(scaler(), [10] + [3] * 22, replicas=10)
    assert numbers[:20] == [10] * 20
    assert numbers[20] == 3


def test_a_step_counts_from_when_its_period_began():
    """2 pods per 60 s: 2 at once, and the next 2 only when that minute is over."""
    slow = Behavior(0, (ReplicaStep("Pods", 2, 60),))
    assert course(scaler(up=slow), [20] * 9, replicas=4) == [6, 6, 6, 6, 8, 8, 8, 8, 10]


def test_the_smallest_step_counts_where_that_is_selected_and_none_where_it_is_disabled():
    steps = (ReplicaStep("Pods", 4, 15), ReplicaStep("Percent", 10, 15))
    least = Behavior(0, steps, Select.MIN)
    assert course(scaler(up=least), [90], replicas=20) == [22]
    assert course(scaler(down=least), [1], replicas=20) == [18]
    assert course(scaler(down=Behavior(0, steps, Select.DISABLED)), [1], replicas=20) == [20]


def test_the_rule_that_asks_for_most_is_followed_within_the_limits():
    seen = replace(SEEN, replicas=4)
    assert scaler(FixedRule(5), FixedRule(7)).decide(seen) == 7
    assert scaler(FixedRule(50), max_replicas=6).decide(seen) == 6
    assert scaler(FixedRule(0), min_replicas=4).decide(replace(seen, replicas=5)) == 5


def test_the_window_is_that_of_a_plain_search_over_all_recommendations():
    generator = np.random.default_rng(3)
    asks = generator.integers(1, 60, 400).tolist()
    free = (ReplicaStep("Percent", 100_000, 15),)
    limits = {"up": Behavior(60, free), "down": Behavior(150, (ReplicaStep("Pods", 10**6, 15),))}
    replicas, expected = 7, []
    history = [(0.0, 7)]
    for place, asks_for in enumerate(asks):
        now = place * 15.0
        known = [(at, n) for at, n in [*history, (now, asks_for)]]
        least = min(n for at, n in known if at > now - 60)
        most = max(n for at, n in known if at > now - 150)
        history.append((now, asks_for))
        replicas = min(max(replicas, least), most)
        expected.append(replicas)
    assert course(scaler(**limits), asks, replicas=7) == expected


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ScalingLimits(min_replicas=0), "an HPA keeps one"),
        (ScalingLimits(min_replicas=5, max_replicas=4), "at most 4 replicas, and at least 5"),
        (ScalingLimits(tolerance=1.0), "from 0 to below 1"),
        (ScalingLimits(down=Behavior(3601, ())), "Kubernetes takes 0 to 3600 s"),
    ],
)
def test_what_no_hpa_takes_is_refused(limits, words):
    with pytest.raises(UsageError, match=words):
        check_limits(limits)

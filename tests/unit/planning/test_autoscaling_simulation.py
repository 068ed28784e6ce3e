"""Policies over a trace: counted by hand, beside a simulation of every request; known traps."""

from dataclasses import replace

import numpy as np
import pytest

from harness.load.schedule.arrivals import arrival_times_ns
from harness.planning.autoscaling.candidates import policies_of, schedule_of
from harness.planning.autoscaling.evaluation import (
    Ground,
    choose,
    clauses_of,
    cost_of,
    course_of,
    evaluate,
    with_front,
)
from harness.planning.autoscaling.replica import ReplicaTable, tables_of
from harness.planning.autoscaling.simulation import LatencyClause, SimulatedFleet, simulate_policy
from harness.planning.capacity.fit import fit_capacity
from harness.planning.capacity.replica import Replica, simulate_arrivals
from harness.study.objective import parse_objective
from harness.types import Decision, ServingConfig
from harness.types.autoscaling import (
    FixedRule,
    Policy,
    PolicyOutcome,
    QueueRule,
    RateTrace,
    ScalingLimits,
    ScalingTerms,
    SharedMachine,
    UtilizationRule,
)
from harness.types.estimates import Demand, Interval, Pricing
from tests.simulated_server import SimulatedServer, measure

SERVICE_S = 0.01
CLAUSE = (LatencyClause(0.95, 0.05),)
TERMS = ScalingTerms(start_s=30.0, limits=ScalingLimits(max_replicas=20))
HAND = ReplicaTable(
    saturation_per_s=100.0,
    shares=(0.0, 0.5, 1.0),
    latency_s=((0.01,) * 4, (0.01, 0.01, 0.01, 0.03), (0.02, 0.04, 0.06, 0.08)),
    wait_s=(0.0, 0.005, 0.04),
    execution_s=(0.01, 0.01, 0.01),
)


def run(policy, rates, *, step_s=60.0, table=HAND, terms=TERMS, clauses=CLAUSE, start=1):
    trace = RateTrace("by hand", step_s, tuple(map(float, rates)))
    return simulate_policy(policy, trace, terms, table, clauses, start_replicas=start, seed=1)


def shared(alone, pair, rates, *, starting_share=1.0, start=2, policy=None, terms=TERMS):
    """As `run`, on one machine on which one replica and two carry so many requests per second."""
    trace = RateTrace("by hand", 60.0, tuple(map(float, rates)))
    machine = SharedMachine(alone, pair, starting_share)
    return simulate_policy(
        policy or fixed(start),
        trace,
        replace(terms, machine=machine),
        HAND,
        CLAUSE,
        start_replicas=start,
        seed=1,
    )


def fixed(number):
    return Policy("fixed", (FixedRule(number),))


def utilized(share, drain_s=60.0):
    return Policy("", (UtilizationRule(share, share * 100.0, drain_s),))


@pytest.fixture(scope="module")
def model():
    """One request at a time, always 10 ms: an M/D/1 queue of 100/s."""
    serving = ServingConfig(max_batch_size=1)
    trials = [
        measure(
            SimulatedServer(serving, lambda *_: SERVICE_S), seed=n, clients=n, requests=1500,
            client_s=0.0,
        )
        for n in (1, 2, 4)
    ]  # fmt: skip
    return fit_capacity(trials, arrivals=arrival_times_ns, seed=2)


@pytest.fixture(scope="module")
def table(model):
    return tables_of(model, Demand(1.0), 0)[0]


def test_what_one_replica_carries_costs_its_hours_and_nothing_is_late():
    found = run(fixed(1), [20] * 60)
    assert found.replica_hours == pytest.approx(1.0)
    assert found.attained() == 1.0
    assert found.scalings == 0
    assert found.missed_share(0.95) == 0.0


def test_what_exceeds_a_replica_waits_as_a_fluid_does():
    """150/s at 100/s: whoever comes after t s waits t / 2, so 20 s are kept for the first 40 s."""
    found = run(fixed(1), [150, 150, 150], clauses=(LatencyClause(0.95, 20.1),))
    assert found.attained() == pytest.approx(40 / 180, abs=0.03)


def test_a_queue_is_worked_off_at_what_the_replicas_have_to_spare():
    """120 s at 150/s leave 6,000 waiting; at 50/s they are gone 120 s later."""
    found = run(fixed(1), [150, 150, 50, 50, 50, 50], clauses=(LatencyClause(0.95, 0.1),))
    late = found.inside[0] / found.arrived < 0.9
    assert np.flatnonzero(late).tolist() == list(range(16))


def test_latencies_between_two_loads_lie_on_the_line_between_them():
    """At 75%, half of the way from 100% within 50 ms to half of them."""
    found = run(fixed(1), [75] * 60)
    assert found.attained() == pytest.approx(0.75, abs=0.02)


def test_a_replica_carries_from_when_it_has_started_and_those_that_start_end_first():
    fleet = SimulatedFleet(start_s=20.0, ready=2)
    fleet.resize(4, now_s=0.0)
    assert (fleet.ordered, fleet.advance(15.0, 15.0)) == (4, 2.0)
    # Both are ready at 20 s: for two thirds of the step from 15 to 30.
    assert fleet.advance(30.0, 15.0) == pytest.approx(2 + 2 * 2 / 3)
    fleet.resize(6, now_s=30.0)
    fleet.resize(3, now_s=45.0)
    assert (fleet.ordered, fleet.ready, fleet.starting) == (3, 3, [])


def test_a_shorter_start_keeps_more_of_a_rise_in_time():
    rates = [50] * 10 + [400] * 10
    kept = [
        run(utilized(0.7), rates, terms=replace(TERMS, start_s=start)).attained()
        for start in (5.0, 60.0, 240.0)
    ]
    assert kept[0] > kept[1] > kept[2]


def test_the_table_is_that_of_an_md1_queue(table):
    """Mean wait of M/D/1: load / (2 (1 - load)) services."""
    assert table.saturation_per_s == pytest.approx(100.0, rel=0.02)
    for place, share in enumerate(table.shares):
        if share in {0.3, 0.5, 0.7}:
            wait_s = share / (2 * (1 - share)) * SERVICE_S
            assert table.wait_s[place] == pytest.approx(wait_s, rel=0.25)
            in_flight = share * (wait_s + SERVICE_S) / SERVICE_S
            assert table.in_flight(share) == pytest.approx(in_flight, rel=0.1)
    assert table.share_with_wait(table.wait_s[5]) == pytest.approx(table.shares[5], abs=0.05)


def test_a_day_in_steps_agrees_with_a_simulation_of_every_request(table):
    """Rates that rise beyond saturation and fall again, on one replica, request by request."""
    rates = np.array([30, 60, 80, 90, 115, 115, 90, 60, 40, 30] * 2, dtype=float)
    generator, shares = np.random.default_rng(5), []
    for _ in range(5):
        arrivals = np.concatenate(
            [
                minute * 60 + np.sort(generator.uniform(0, 60, generator.poisson(rate * 60)))
                for minute, rate in enumerate(rates)
            ]
        )
        replica = Replica((SERVICE_S,), 1)
        found = simulate_arrivals(replica, arrivals, None, np.ones(len(arrivals)))
        shares.append(float((found.completed_s - arrivals <= 0.05).mean()))
    simulated = run(fixed(1), rates, table=table, terms=replace(TERMS, sync_s=5.0, scrape_s=5.0))
    assert simulated.attained() == pytest.approx(np.mean(shares), abs=0.03)


def test_trap_what_is_answered_is_no_demand_and_never_asks_for_more():
    """At 95% of 100/s and 400/s coming, answers stop at 100/s: within the tolerance for ever."""
    rates = [400] * 20
    blind = run(utilized(0.95, drain_s=None), rates)
    assert blind.ordered.max() == 1
    seeing = run(utilized(0.95), rates)
    assert seeing.ordered.max() >= 5
    assert seeing.attained() > blind.attained()


def test_trap_scaling_in_by_waiting_time_alone_swings_under_a_constant_load(table):
    """210/s: 4 replicas wait 5.5 ms and give one up, 3 wait 11.7 ms against 10 and take it back."""
    rates = [210] * 120
    alone = run(Policy("", (QueueRule(10.0, None),)), rates, table=table, start=4)
    settled = run(Policy("", (QueueRule(10.0, 66.0),)), rates, table=table, start=4)
    assert alone.scalings >= 10
    assert settled.scalings <= 2
    assert settled.attained() > alone.attained()


def test_a_schedule_has_the_busiest_rate_of_every_half_hour_of_the_first_day():
    rates = [10.0] * 48
    rates[18] = 500.0
    trace = RateTrace("two days", 1800.0, tuple(rates + [10.0] * 48))
    rule = schedule_of(trace, TERMS, per_replica_per_s=70.0)
    assert (rule.slot_s, rule.replicas[17:20]) == (1800.0, (1, 8, 1))
    assert rule.begins_s is None
    known = replace(trace, begins_s=52200.0)
    assert schedule_of(known, TERMS, per_replica_per_s=70.0).begins_s == 52200.0


def test_every_kind_of_policy_is_tried_a_fixed_number_first(table):
    trace = RateTrace("flat", 60.0, (250.0,) * 60)
    tried = list(policies_of(trace, TERMS, table, bound_s=0.05, sure_per_s=60.0))
    assert tried[0] == Policy("fixed 5", (FixedRule(5),))
    kinds = {rule.kind for one in tried for rule in one.rules}
    assert kinds == {"fixed", "utilization", "queue", "in_flight", "schedule", "forecast"}
    assert len({one.name for one in tried}) == len(tried)


def outcome(name, share, hours, decision=Decision.PASS, **more):
    return PolicyOutcome(
        Policy(name, (FixedRule(1),)), Interval(share, share, share), 0.95, decision,
        Interval(hours, hours, hours), Interval(0, 0, 0), 1, Interval(0, 0, 0), None, **more,
    )  # fmt: skip


def test_the_front_and_the_choice_leave_out_what_knows_the_trace():
    outcomes = [
        outcome("dear", 0.99, 30.0),
        outcome("good", 0.99, 20.0),
        outcome("cheap", 0.96, 10.0),
        outcome("late", 0.90, 9.0, Decision.FAIL),
        outcome("worse", 0.89, 12.0, Decision.FAIL),
        outcome("oracle", 0.999, 5.0, with_foresight=True),
    ]
    on_front = [one.policy.name for one in with_front(outcomes) if one.on_front]
    assert on_front == ["good", "cheap", "late"]
    assert choose(outcomes)[0] == "cheap"
    assert choose(outcomes[3:])[0] is None
    assert "every policy misses" in choose(outcomes[3:])[1]
    unsure = [outcome("unsure", 0.96, 8.0, Decision.UNDECIDED)]
    assert "no policy is sure" in choose(unsure)[1]


def test_an_outcome_is_sure_only_where_every_draw_leaves_it_sure():
    """A replica that may have 100/s or 60/s, at 80/s on one."""
    slower = replace(HAND, saturation_per_s=60.0)
    ground = Ground(
        RateTrace("flat", 60.0, (80.0,) * 30),
        TERMS,
        (HAND, slower),
        (LatencyClause(0.6, 0.05),),
        0.95,
        1,
        Pricing("box", 2.0, Interval(2.0, 1.0, 4.0)),
    )
    found = evaluate(ground, fixed(1))
    assert found.decision is Decision.UNDECIDED
    assert found.attained.low < 0.6 < found.attained.high
    sure = evaluate(replace(ground, tables=(HAND, HAND)), fixed(1))
    assert sure.decision is Decision.PASS
    # Half an hour on a machine twice as fast: a quarter of an hour at 2 USD, 0.25 to 1 USD.
    assert sure.cost_usd == pytest.approx(Interval(0.5, 0.25, 1.0))


def test_money_is_hours_times_the_price_over_the_speed():
    found = cost_of(Interval(10.0, 8.0, 12.0), Pricing("box", 3.0, Interval(2.0, 1.5, 4.0)))
    assert (found.value, found.low, found.high) == (15.0, 6.0, 24.0)


def test_a_course_keeps_what_came_and_what_was_late():
    found = run(fixed(1), [20] * 100 + [0] * 100)
    drawn = course_of(found)
    assert sum(drawn.demand_per_s) * drawn.stretch_s == pytest.approx(found.arrived.sum(), rel=1e-3)
    assert drawn.attained[0] == 1.0
    assert drawn.attained[-1] == -1.0


def test_a_percentile_is_a_share_of_requests_and_a_mean_is_none():
    slo = parse_objective("p95 < 50 ms, p99 < 0.2 s")
    assert clauses_of(slo) == (LatencyClause(0.95, 0.05), LatencyClause(0.99, 0.2))
    with pytest.raises(Exception, match="bounds no percentile"):
        clauses_of(parse_objective("mean < 50 ms"))


def test_two_replicas_on_one_machine_carry_what_two_were_measured_to():
    """100/s alone and 120/s together: 110/s are carried by two and late on one."""
    machine = SharedMachine(100.0, 120.0, 0.5)
    assert machine.speed(1, starting=False) == 1.0
    assert 2 * machine.speed(2, starting=False) == pytest.approx(1.2)
    assert 3 * machine.speed(3, starting=False) == pytest.approx(3 / (1 + 2 * 2 / 3))
    assert machine.speed(1, starting=True) == 0.5
    assert SharedMachine(100.0, 210.0, 1.0).speed(2, starting=False) == 1.0
    # 180/s: two of their own carry them; two that share 120/s fall behind for good.
    assert run(fixed(2), [180] * 10, start=2).attained() > 0.3
    assert shared(100.0, 120.0, [180] * 10).attained() < 0.05


def test_at_half_of_the_speed_everything_takes_twice_as_long():
    """50/s on two that carry 100/s together: half of it, whose 10 and 30 ms become 20 and 60."""
    assert shared(100.0, 100.0, [50] * 60).attained() == pytest.approx(0.75, abs=0.01)
    assert run(fixed(2), [100] * 60, start=2).attained() > 0.98


def test_a_replica_that_starts_takes_from_those_that_serve():
    """70/s on one that is left with half of its 100/s for the 30 s that another takes to start."""
    rates = [70] * 10
    kept = [
        shared(
            100.0,
            200.0,
            rates,
            starting_share=share,
            start=1,
            policy=utilized(0.5),
            terms=replace(TERMS, start_s=30.0),
        ).attained()
        for share in (1.0, 0.5)
    ]
    assert kept[1] < kept[0] - 0.04

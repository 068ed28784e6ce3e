"""The highest load that holds, on ladders whose truth is known."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.space import (
    Ladder,
    TriedLoad,
    calmer_load,
    in_flight_ladder,
    next_load,
    potential,
    rate_ladder,
)

IN_FLIGHT = in_flight_ladder(1, 64)


def climb(ladder, probe_at, start):
    """The loads that were tried, in order."""
    probes, load = [], start
    while load is not None:
        probes.append(probe_at(load))
        load = next_load(ladder, probes)
    return probes


def saturating(capacity, bound, knee=8.0):
    """A closed loop: throughput grows up to a knee; a load's latency follows by Little's law."""

    def probe_at(load):
        rate = capacity * min(1.0, load / knee)
        strain = load / rate / bound
        if strain < 1:
            return TriedLoad(load, True, rate)
        return TriedLoad(load, False, ceiling=load / strain, potential=rate)

    return probe_at


def limited(limit, rows=1.0):
    """An open loop that holds up to a rate."""

    def probe_at(rate):
        if rate <= limit:
            return TriedLoad(rate, True, rate * rows)
        return TriedLoad(rate, False, ceiling=rate, potential=rate * rows)

    return probe_at


def test_ladders():
    assert IN_FLIGHT.loads == (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64)
    assert IN_FLIGHT.middle == 8
    assert in_flight_ladder(5, 5).loads == (5,)
    rates = rate_ladder(10, 1000.5).loads
    assert (rates[0], rates[-1]) == (10, 1000.5)
    assert all(high / low < 1.07 for low, high in pairwise(rates))


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_ladder_ascends_between_its_bounds(first, second):
    lowest, highest = sorted((first, second))
    for ladder in (in_flight_ladder(lowest, highest), rate_ladder(lowest, highest)):
        assert list(ladder.loads) == sorted(set(ladder.loads))
        assert (ladder.loads[0], ladder.loads[-1]) == (lowest, highest)


def test_a_saturated_server_ends_the_climb():
    tried = [probe.load for probe in climb(IN_FLIGHT, saturating(1000, bound=1.0), start=1)]
    assert tried == [1, 2, 4, 8, 16]


def test_a_closed_loop_that_is_too_slow_jumps_by_littles_law():
    # 64 in flight take 64 ms at 1000/s; under 3.5 ms there is room for 3.
    tried = [probe.load for probe in climb(IN_FLIGHT, saturating(1000, bound=0.0035, knee=1), 64)]
    assert tried[:2] == [64, 3]
    assert len(tried) == 2


@pytest.mark.parametrize("start", [10.0, 190.0, 5000.0])
def test_an_open_loop_is_bisected_to_five_percent(start):
    ladder = rate_ladder(10, 5000)
    probes = climb(ladder, limited(700), ladder.at_most(start))
    held = max(probe.load for probe in probes if probe.holds)
    assert 700 / 1.06 <= held <= 700
    assert len(probes) <= 13


@given(
    st.lists(st.integers(1, 64), min_size=1, unique=True).map(sorted),
    st.booleans(),
    st.data(),
)
def test_any_answers_end_and_no_load_is_tried_twice(rungs, is_open, data):
    ladder = Ladder(tuple(float(rung) for rung in rungs), is_open)
    answers = st.builds(
        TriedLoad,
        st.just(0.0),
        st.booleans(),
        st.floats(0, 1000),
        st.floats(0, 64),
        st.floats(0, 1000),
        st.booleans(),
    )

    def probe_at(load):
        answer = data.draw(answers)
        ceiling = min(answer.ceiling, load)
        rate = answer.inferences_per_s
        holds = answer.holds and answer.valid
        return TriedLoad(load, holds, rate, ceiling, answer.potential, answer.valid)

    tried = [probe.load for probe in climb(ladder, probe_at, ladder.middle)]
    assert len(tried) == len(set(tried))
    assert set(tried) <= set(ladder.loads)


@given(st.integers(0, 11), st.integers(0, 11))
def test_bisection_finds_the_last_rung_that_holds(last, start):
    """Where more load always brings throughput and nothing can be said beforehand."""
    loads = IN_FLIGHT.loads

    def probe_at(load):
        if load <= loads[last]:
            return TriedLoad(load, True, load)
        return TriedLoad(load, False, ceiling=load)

    probes = climb(IN_FLIGHT, probe_at, loads[start])
    assert max(probe.load for probe in probes if probe.holds) == loads[last]
    assert len(probes) <= 9


def test_nothing_holds_until_the_lightest_was_tried():
    tried = climb(IN_FLIGHT, lambda load: TriedLoad(load, False, ceiling=load), 64)
    assert [probe.load for probe in tried] == [64, 32, 16, 8, 4, 2, 1]


def test_what_cannot_be_trusted_is_given_up():
    tried = climb(IN_FLIGHT, lambda load: TriedLoad(load, False, valid=False), 64)
    assert [probe.load for probe in tried] == [64, 32, 16]


def test_half_the_load_is_calmer_where_it_gives_as_much():
    held = [TriedLoad(16, True, 1000), TriedLoad(32, True, 1020)]
    assert calmer_load(IN_FLIGHT, held) == 8
    assert calmer_load(IN_FLIGHT, [*held, TriedLoad(8, True, 700)]) is None
    assert calmer_load(IN_FLIGHT, [*held, TriedLoad(8, True, 1010)]) == 4
    assert calmer_load(rate_ladder(1, 64), held) is None
    assert calmer_load(IN_FLIGHT, [TriedLoad(16, False)]) is None


def test_what_did_not_hold_limits_what_lighter_loads_can_give():
    assert potential([TriedLoad(4, True, 500)]) == float("inf")
    assert potential([TriedLoad(4, True, 500), TriedLoad(8, False, potential=600)]) == 600

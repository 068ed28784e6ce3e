"""Machines that stand still now and then: the clock, a closed form, and the fit to open loops."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from harness.load.schedule.arrivals import arrival_times_ns
from harness.planning.capacity.draws import long_enough
from harness.planning.capacity.fit import fit_capacity
from harness.planning.capacity.replica import Replica, simulate_arrivals
from harness.planning.capacity.stalls import NO_STALLS, StallClock, Stalls
from harness.planning.capacity.variation import choose_variation
from harness.types import LoadMode, ServingConfig
from harness.types.estimates import Demand
from tests.simulated_server import SimulatedServer, measure


def test_a_clock_stands_still_in_its_stalls():
    """Stalls of 0.5 and 1 s when it has run for 1 and for 2 s: on the wall 1 to 1.5, 2.5 to 3.5."""
    clock = StallClock(np.array([1.0, 2.0]), np.array([0.5, 1.0]))
    on_wall = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.4, 3.5, 4.0])
    running = [0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.5]
    assert clock.running_s(on_wall).tolist() == pytest.approx(running)
    assert clock.on_wall_s(np.array([0.5, 1.0, 1.5, 2.0, 2.5])).tolist() == pytest.approx(
        [0.5, 1.5, 2.0, 3.5, 4.0]
    )


def test_what_comes_in_a_stall_waits_for_its_end_and_is_answered_together():
    """Executions of 0.1 s; a stall from 1 to 1.5 s, and one hits the execution that began at 2."""
    clock = StallClock(np.array([1.0, 1.55]), np.array([0.5, 0.2]))
    arrivals = np.array([0.0, 1.1, 1.4, 2.0])
    run = simulate_arrivals(Replica((0.1, 0.1)), clock.running_s(arrivals), None, np.ones(4))
    found = clock.run_on_wall(run)
    assert found.completed_s.tolist() == pytest.approx([0.1, 1.6, 1.6, 2.3])
    assert found.executed_rows.tolist() == [1, 2, 1]
    assert found.started_s.tolist() == pytest.approx([0.0, 1.5, 2.0])
    assert found.busy_s.tolist() == pytest.approx([0.1, 0.1, 0.3])


def test_stalls_take_the_share_of_the_time_that_they_are_said_to():
    """2 per running second, of 25 ms: a second of running takes 1.05 s."""
    clock = Stalls(2.0, 0.025).clock(1000.0, np.random.default_rng(4))
    assert clock.on_wall_s(np.array([1000.0]))[0] == pytest.approx(1050.0, rel=0.002)
    assert NO_STALLS.clock(10.0, np.random.default_rng(0)).on_wall_s(np.array([7.0]))[0] == 7.0


def test_interruptions_of_one_server_are_those_of_the_closed_form():
    """Poisson arrivals, equal times, interruptions that also come while it is idle.

    In running time whatever came in a stall comes at once, so the work is that of a queue with
    batch arrivals (Pollaczek and Khinchine); a request that meets a stall waits for the rest of it
    and for those that came before it.
    """
    rate, each_s, per_s, mean_s = 3.0, 0.1, 0.05, 0.5
    square = mean_s**2 * 1.25
    longer = 1 + per_s * mean_s
    met = per_s * mean_s / longer
    work = each_s**2 * (rate + per_s * (rate * mean_s + rate**2 * square))
    waiting = work / (2 * (1 - rate * each_s * longer))
    rest = square / (2 * mean_s)
    expected = longer * (waiting + each_s) + met * (rest + longer * rate * each_s * rest)
    means = []
    for number in range(16):
        generator = np.random.default_rng([8, number])
        arrivals = np.cumsum(generator.exponential(1 / rate, 20_000))
        clock = Stalls(per_s, mean_s).clock(2 * arrivals[-1], generator)
        run = simulate_arrivals(
            Replica((each_s,)), clock.running_s(arrivals), None, np.ones(20_000)
        )
        means.append(float((clock.run_on_wall(run).completed_s - arrivals).mean()))
    half = float(t.ppf(0.9995, 15)) * np.std(means, ddof=1) / 4
    assert half < 0.03 * expected
    assert np.mean(means) == pytest.approx(expected, abs=half)
    assert expected > 1.1 * (each_s + rate * each_s**2 / (2 * (1 - rate * each_s)))


MOST = 8 / 0.0036
"""Requests per second of batches of 8 rows in 3.6 ms."""


def server(stalls=()):
    return SimulatedServer(
        ServingConfig(max_batch_size=8), lambda rows, _: (1.2 + 0.3 * rows) / 1e3, stalls=stalls
    )


def stalling(seed, span_s, *, per_s=1.5):
    """On a machine that stands still for 30 to 70 ms at random: 7% of the time."""
    generator = np.random.default_rng([17, seed])
    begins = np.cumsum(generator.exponential(1 / per_s, int(2 * per_s * span_s)))
    lengths = generator.uniform(0.03, 0.07, len(begins))
    begins += np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
    return server(list(zip(begins, begins + lengths, strict=True)))


def open_loops(of, seconds):
    shares = (0.4, 0.6, 0.8)
    return [
        measure(of(n), seed=30 + n, rate_per_s=share * MOST, requests=int(seconds * share * MOST))
        for n, share in enumerate(shares)
    ]


@pytest.fixture(scope="module")
def closed():
    """They never rest, and are taken to meet no stall."""
    return [measure(server(), seed=n, clients=n, requests=1500) for n in (1, 4, 16)]


def test_stalls_are_told_from_open_loops(closed):
    """What half of saturation shows is foretold within its interval, and to a third.

    From the closed loops alone its p95 would be less than half of that.
    """
    rate = 0.5 * MOST
    truth = measure(stalling(9, 20.0), seed=40, rate_per_s=rate, requests=int(20 * rate)).latency
    opens = open_loops(lambda n: stalling(n, 8.0), seconds=8)
    model = fit_capacity([*closed, *opens], arrivals=arrival_times_ns, seed=5)
    found = model.predict(Demand(rate), requests=4000).latency_ms
    stalls = model.best_guess.stalls
    assert 0.03 <= stalls.per_s * stalls.mean_s <= 0.15
    for name in ("p50", "p95"):
        assert found[name].low <= truth.value_ms(name) <= found[name].high
    assert found["p95"].value == pytest.approx(truth.value_ms("p95"), rel=0.33)
    without = fit_capacity(closed, arrivals=arrival_times_ns, seed=5)
    foretold = without.predict(Demand(rate), requests=4000).latency_ms["p95"].value
    assert foretold < 0.5 * truth.value_ms("p95")


@pytest.mark.parametrize(
    ("per_s", "rate_per_s", "requests"),
    [
        (0.0, 5000.0, 1500),
        # Two stalls take two seconds, at whatever rate.
        (1.0, 500.0, 1500),
        (1.0, 1000.0, 2000),
        (2.0, 4000.0, 4000),
        (0.5, 5000.0, 5000),
    ],
)
def test_a_fast_replica_is_simulated_until_it_has_met_stalls(per_s, rate_per_s, requests):
    assert long_enough(Stalls(per_s, 0.05), rate_per_s, 1500) == requests
    assert long_enough(Stalls(per_s, 0.05), rate_per_s, 6000) == 6000


def test_stalls_show_in_what_a_fast_replica_is_foretold(closed):
    """A tenth of the time stands still: p95 lies in it, at any number of requests asked for."""
    model = fit_capacity(closed, arrivals=arrival_times_ns, seed=5)
    stalled = Stalls(1.0, 0.1)
    model = replace(model, draws=tuple(replace(one, stalls=stalled) for one in model.draws))
    for requests in (400, 4000):
        found = model.predict(Demand(1500.0), requests=requests).latency_ms["p95"]
        assert 30 < found.value < 200


def test_none_are_found_where_none_are(closed):
    opens = open_loops(lambda _: server(), seconds=2)
    model = fit_capacity([*closed, *opens], arrivals=arrival_times_ns, seed=5)
    assert model.best_guess.stalls == NO_STALLS


def test_beside_stalls_no_spread_is_tried_that_would_fill_the_queue_of_every_loop(closed):
    """One execution in a hundred ten times as long is tried where no open loop tells of stalls."""
    guess = fit_capacity(closed, arrivals=arrival_times_ns, seed=5).best_guess
    opened = [
        replace(one, trial=replace(one.trial, workload=replace(
            one.trial.workload, load_mode=LoadMode.OPEN, rate_per_s=1.0
        ))) for one in closed
    ]  # fmt: skip

    class Replay:
        def check(self, *_):
            return {}

    def longest(trials):
        found = choose_variation(guess, guess.spread, trials, Replay()).variations
        return max(one.spread.values[-1] for one in found if one.spread != guess.spread)

    assert longest(closed) > 15
    assert longest([*closed, *opened]) < 8

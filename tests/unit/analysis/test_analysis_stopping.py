import numpy as np
import pytest
from known_queues import closed_loop, mdc, mm1
from scipy import stats
from simulated_trials import run_trials

from harness.analysis.steady_state import LookSchedule, seconds_needed

TRIALS = 500
SCHEDULE = LookSchedule(0.5, 4.0, 0.95)
ALLOWED = stats.binom.ppf(0.999, TRIALS, 1 - SCHEDULE.confidence) / TRIALS
"""What an error rate of 5% may look like in 500 trials, but for once in 1000 such tests."""


def share(times_s):
    return np.isfinite(times_s).mean()


def test_looks_double_from_the_shortest_window_to_the_longest():
    assert LookSchedule(0.5, 8.0).looks == pytest.approx((0.5, 1, 2, 4, 8))
    assert LookSchedule(0.5, 8.0).confidence_per_look == pytest.approx(0.99)
    uneven = LookSchedule(0.5, 3.0).looks
    assert uneven[0] == 0.5
    assert uneven[-1] == 3.0
    assert max(np.diff(np.log2(uneven))) <= 1 + 1e-9


@pytest.mark.parametrize("shortest_s", [2.0, 5.0])
def test_a_trial_that_runs_its_time_out_looks_once(shortest_s):
    schedule = LookSchedule(shortest_s, 2.0, 0.9)
    assert schedule.looks == (2.0,)
    assert schedule.confidence_per_look == pytest.approx(0.9)


def test_the_next_look_lies_ahead():
    schedule = LookSchedule(0.5, 2.0)
    assert schedule.next_look(0.0) == 0.5
    assert schedule.next_look(0.5) == pytest.approx(1.0)
    assert schedule.next_look(1.9) == 2.0
    assert schedule.next_look(2.0) is None


def test_seconds_needed_follow_the_evidence():
    assert seconds_needed(2.0, 3.0) == 6.0
    assert seconds_needed(2.0, 0.5) == 2.0
    assert seconds_needed(2.0, None) is None
    assert seconds_needed(2.0, float("inf")) is None


@pytest.mark.slow
@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("queue", ["M/M/1", "M/D/4"])
def test_trials_at_the_bound_seldom_decide(queue, utilisation):
    known = mm1(0.001, utilisation) if queue == "M/M/1" else mdc(0.005, utilisation, 4)
    bounds = run_trials(known, SCHEDULE, trials=TRIALS, seed=11)
    passed_s, failed_s = bounds.decided(known.truth_s * 1e3)
    assert share(passed_s) <= ALLOWED
    assert share(failed_s) <= ALLOWED
    # A bound below the truth is passed less often still, one above it failed less often.
    assert share(bounds.decided(0.9 * known.truth_s * 1e3)[0]) <= share(passed_s)
    assert share(bounds.decided(1.1 * known.truth_s * 1e3)[1]) <= share(failed_s)


def test_a_queue_seen_for_less_than_its_memory_stays_undecided():
    known = mm1(0.01, 0.95)
    bounds = run_trials(known, SCHEDULE, trials=TRIALS, seed=12)
    passed_s, failed_s = bounds.decided(known.truth_s * 1e3)
    assert SCHEDULE.longest_s < known.memory_s
    assert share(passed_s) <= ALLOWED
    assert share(failed_s) <= ALLOWED


def test_looking_without_correcting_for_it_would_err():
    # The reason for the schedule: independent latencies, but 95% at each of many looks.
    known = closed_loop(0.001, 1, 1.0)
    eager = LookSchedule(0.1, 3.2, 0.7)
    assert eager.confidence_per_look == pytest.approx(0.95)
    bounds = run_trials(known, eager, trials=200, seed=13)
    careful = run_trials(known, LookSchedule(0.1, 3.2, 0.95), trials=200, seed=13)
    wrong, right = (
        sum(share(times_s) for times_s in one.decided(known.truth_s * 1e3))
        for one in (bounds, careful)
    )
    assert right <= 0.05
    assert wrong > right


def test_clear_cases_are_decided_early():
    closed = closed_loop(0.001, 4, 0.2)
    bounds = run_trials(closed, SCHEDULE, trials=100, seed=14)
    assert np.median(bounds.decided(1.5 * closed.truth_s * 1e3)[0]) == 0.5
    assert np.median(bounds.decided(0.67 * closed.truth_s * 1e3)[1]) == 0.5
    open_loop = mm1(0.001, 0.5)
    bounds = run_trials(open_loop, SCHEDULE, trials=100, seed=15)
    assert np.median(bounds.decided(10 * open_loop.truth_s * 1e3)[0]) <= 1.0

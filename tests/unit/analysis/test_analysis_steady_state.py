import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_queues import closed_loop, mm1
from simulated_trials import sliced

from harness import hdr
from harness.analysis.steady_state import steady_after, steady_from, still_warming, truncation
from harness.types import RESPONSE, Latencies, TimeSlice


def load(histograms):
    return [TimeSlice(index, ok=Latencies({RESPONSE: one})) for index, one in enumerate(histograms)]


def load_of(means_ms, requests=20, seed=1):
    rng = np.random.default_rng(seed)
    return load(
        hdr.of_nanoseconds((mean * 1e6 * rng.gamma(20, 1 / 20, requests)).astype(np.int64))
        for mean in means_ms
    )


def test_the_cut_is_where_the_step_is():
    rng = np.random.default_rng(1)
    series = np.concatenate([rng.normal(30, 1, 12), rng.normal(10, 1, 48)])
    assert truncation(series) == 12


def test_an_exponential_transient_is_cut_where_it_meets_the_noise():
    rng = np.random.default_rng(2)
    series = 10 + 40 * np.exp(-np.arange(100) / 5) + rng.normal(0, 0.5, 100)
    assert 10 <= truncation(series) <= 25


@pytest.mark.parametrize(
    "series",
    [np.linspace(20, 10, 40), np.linspace(10, 20, 40), np.r_[[30.0] * 30, [10.0] * 10], [5.0] * 9],
    ids=["falling to the end", "rising to the end", "a step in the second half", "too short"],
)
def test_what_never_settles_is_cut_whole(series):
    assert truncation(series) == len(series)


def test_constant_series_are_steady_from_the_start():
    assert truncation([5.0] * 20) == 0
    assert truncation([0.0] * 20) == 0
    assert truncation(5 + np.tile([0.01, -0.01], 10)) == 0


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_a_cut_lies_in_the_first_half_or_is_the_whole(series):
    cut = truncation(series)
    assert 0 <= cut <= len(series) // 2 or cut == len(series)


def test_a_load_that_falls_is_not_steady_until_it_stays():
    means_ms = [40, 36, 32, 28, 24, 20, 16, 12, 8, 4] + [4] * 20
    slices = load_of(means_ms)
    opened = next(n for n in range(1, 31) if steady_from(slices[:n]) is not None)
    assert 11 <= opened <= 24
    assert 5 <= steady_from(slices) <= 12


def test_a_load_that_is_steady_from_the_start_opens_soon():
    queue = closed_loop(0.002, 4, 0.3)
    arrivals_s, latencies_s = queue.simulate(np.random.default_rng(3), 100, 2.0)
    opened_s = []
    for arrived, took in zip(arrivals_s, latencies_s, strict=True):
        slices = load(sliced(arrived, took, 2.0))
        counts = (n for n in range(1, 41) if steady_from(slices[:n]) is not None)
        opened_s.append(next(counts, 99) * 0.05)
    assert np.median(opened_s) <= 0.6
    assert np.quantile(opened_s, 0.95) <= 1.2


def test_few_requests_are_merged_until_they_make_points():
    assert steady_from(load([hdr.of_nanoseconds(np.empty(0, dtype=np.int64))] * 50)) is None
    # One request every other slice: ten points of five take a hundred slices.
    sparse = [load_of([5 if i % 2 else 0.001], 1 if i % 2 else 0, seed=i)[0] for i in range(200)]
    assert steady_from(sparse[:60]) is None
    assert steady_from(sparse) is not None


def test_an_overrun_server_is_never_steady():
    assert steady_from(load_of(np.linspace(5, 500, 40))) is None


def test_a_cold_start_takes_the_requests_that_were_slow():
    rng = np.random.default_rng(4)
    assert steady_after([400.0, 60.0, *rng.normal(5, 0.2, 60)]) == 2
    assert steady_after([20.0, *rng.normal(5, 0.2, 299)]) == 1
    assert steady_after(rng.normal(5, 0.2, 60)) <= 30
    assert steady_after(list(np.linspace(50, 5, 30))) is None
    assert steady_after([5.0, 5.0]) is None


def test_a_warm_up_that_outlasts_its_time_is_seen():
    assert still_warming(load_of([30] * 8 + [10] * 32)) == 8
    decaying = load_of(10 + 40 * np.exp(-np.arange(60) / 6))
    assert 3 <= still_warming(decaying) <= 30


def test_a_warm_window_is_seldom_called_warming():
    assert still_warming(load_of([10] * 40)) == 0
    assert still_warming(load_of(np.linspace(5, 50, 40))) == 0
    assert still_warming([]) == 0
    assert still_warming(load_of([300] + [10] * 39)) == 0  # a stall, not a warm-up
    called = 0
    for queue in (closed_loop(0.001, 4, 1.0), mm1(0.001, 0.8), mm1(0.001, 0.9), mm1(0.01, 0.9)):
        simulated = queue.simulate(np.random.default_rng(5), 100, 2.0)
        for arrived, took in zip(*simulated, strict=True):
            called += still_warming(load(sliced(arrived, took, 2.0))) > 0
    assert called <= 16

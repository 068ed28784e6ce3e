"""A counter's increase over a window, out of scrapes at their own instants."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.telemetry.prometheus.client import Increase, Series, increase, last_inside, problem_of

STEADY = Series({}, tuple(float(at) for at in range(20)), tuple(7.0 * at for at in range(20)))
"""Seven a second, scraped every second."""


@given(start_s=st.floats(1, 8), length_s=st.floats(3, 10))
def test_a_steady_counter_is_exact_wherever_the_edges_lie(start_s: float, length_s: float) -> None:
    found = increase(STEADY, start_s, start_s + length_s)
    assert found.value == pytest.approx(7 * length_s)
    assert found.uncertainty <= 14 + 1e-9  # two scrape intervals of it


@given(
    events_s=st.lists(st.floats(0, 100), max_size=200),
    gaps_s=st.lists(st.floats(0.5, 9.0), min_size=15, max_size=25),
    window=st.tuples(st.floats(10, 40), st.floats(15, 60)),
)
def test_the_truth_lies_within_the_uncertainty_whatever_the_load_did(
    events_s: list[float], gaps_s: list[float], window: tuple[float, float]
) -> None:
    events_s.sort()
    start_s, end_s = window[0], window[0] + window[1]
    scrapes_s = [sum(gaps_s[:count]) for count in range(len(gaps_s))]
    assume(scrapes_s[-1] >= end_s)
    series = Series(
        {}, tuple(scrapes_s), tuple(float(bisect_right(events_s, at)) for at in scrapes_s)
    )
    assume(not problem_of(series, start_s, end_s))
    truth = bisect_right(events_s, end_s) - bisect_right(events_s, start_s)
    found = increase(series, start_s, end_s)
    assert abs(found.value - truth) <= found.uncertainty + 1e-6


def test_a_load_that_starts_or_ends_between_two_scrapes_is_bounded_by_them() -> None:
    """40 requests per second from 0.8 s to 4.2 s; the window is just that."""
    times_s = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    series = Series({}, times_s, (0.0, 8.0, 48.0, 88.0, 128.0, 136.0))
    found = increase(series, 0.8, 4.2)
    assert found.value == pytest.approx(136)
    assert increase(series, 0.2, 4.8).value == pytest.approx(136)  # not a request more


def test_a_fall_inside_the_window_is_a_reset() -> None:
    series = Series({}, (0.0, 1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 2.0, 12.0, 22.0))
    assert increase(series, 0.5, 3.5) == Increase(0.0, reset=True)


def test_a_fall_before_the_first_scrape_inside_is_the_models_loading() -> None:
    series = Series({}, (0.0, 1.0, 2.0, 3.0, 4.0), (900.0, 5.0, 15.0, 25.0, 35.0))
    found = increase(series, 0.8, 3.5)
    assert not found.reset
    assert found.value == pytest.approx(27)
    assert increase(series, 0.1, 3.5).value == pytest.approx(5 + 25)  # no more than since then


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ((3.1, 3.9), "holds no scrape"),
        ((3.1, 4.9), "holds one scrape of Prometheus, one every 1 s: it takes two"),
        ((-5.0, 10.0), "begin 5 s into the window of 15 s"),
        ((10.0, 30.0), "end 11 s before the window of 20 s does"),
    ],
)
def test_a_window_without_scrapes_is_said_to_be_missing(
    window: tuple[float, float], words: str
) -> None:
    assert words in problem_of(STEADY, *window)


def test_a_window_with_scrapes_has_no_problem() -> None:
    assert problem_of(STEADY, 2.5, 9.5) == ""


def test_a_series_without_samples_is_no_error() -> None:
    assert "no scrape" in problem_of(Series(), 0.0, 1.0)
    assert last_inside(Series(), 0.0, 1.0) is None


def test_a_gauge_is_as_of_the_last_scrape_inside() -> None:
    assert last_inside(STEADY, 2.5, 9.5) == 63.0
    assert last_inside(STEADY, 2.1, 2.9) is None

"""Bounds of a throughput on loads whose true one is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis.throughput import rate_bounds, throughput_bounds
from harness.types import (
    RESPONSE,
    ArrivalKind,
    ArrivalProcess,
    Generation,
    Latencies,
    LoadMode,
    SparseHistogram,
    StreamApi,
    TimeSlice,
    WireProtocol,
    Workload,
)

SLICE_S, WARMUP_S = 0.05, 4.0
STUDIES = 200
LEAST = 0.93
"""Of intervals that say 95%, with this many studies."""
CLOSED = Workload(WireProtocol.GRPC, 1, 4, 8.0, WARMUP_S, seed=1)
OPEN = dataclasses.replace(CLOSED, load_mode=LoadMode.OPEN, rate_per_s=200.0)

Times = NDArray[np.float64]


def window(due_s: Times, done_s: Times, window_s: float = 8.0) -> list[TimeSlice]:
    """The slices after the warm-up."""
    edges = WARMUP_S + SLICE_S * np.arange(round(window_s / SLICE_S) + 1)
    due, done = np.histogram(due_s, edges)[0].tolist(), np.histogram(done_s, edges)[0].tolist()
    return [
        TimeSlice(
            index,
            ok=Latencies({RESPONSE: SparseHistogram((1000,), (n,))}),
            completed=m,
            inferences=m,
        )
        for index, (n, m) in enumerate(zip(due, done, strict=True))
    ]


def single_server(due_s: Times, service_s: Times) -> Times:
    """When each of these requests is answered, first come, first served."""
    before = np.concatenate([[0.0], np.cumsum(service_s)[:-1]])
    return before + service_s + np.maximum.accumulate(due_s - before)


def open_loop(rng: np.random.Generator, utilisation: float) -> list[TimeSlice]:
    """200 requests/s at random to one server that may be too slow for them."""
    due = np.cumsum(rng.exponential(1 / 200, 3000))
    return window(due, single_server(due, rng.exponential(utilisation / 200, len(due))))


def bounds(slices: list[TimeSlice], workload: Workload) -> tuple[float, float]:
    found = throughput_bounds(slices, SLICE_S, workload, confidence=0.95, mean_ms=10.0)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("utilisation", "truth"), [(0.3, 200.0), (0.5, 200.0), (0.8, 200.0), (1.5, 200 / 1.5)]
)
def test_an_open_loop_is_bounded_by_what_the_server_keeps_up_with(
    utilisation: float, truth: float
) -> None:
    rng = np.random.default_rng(3)
    found = [
        one
        for _ in range(STUDIES)
        if (
            one := throughput_bounds(
                open_loop(rng, utilisation), SLICE_S, OPEN, confidence=0.95, mean_ms=10.0
            )
        )
    ]

    assert len(found) >= 0.95 * STUDIES
    assert np.mean([low <= truth <= high for low, high in found]) >= LEAST


def test_a_rate_that_is_met_is_told_from_one_a_twentieth_below() -> None:
    """Of 1,600 requests that fall due at random in 8 s the number varies by 5% itself."""
    rng = np.random.default_rng(4)
    found = [bounds(open_loop(rng, 0.3), OPEN) for _ in range(STUDIES)]

    assert np.mean([low >= 190 for low, _ in found]) >= 0.95
    assert not any(high < 190 for _, high in found)


def test_failures_are_answered_never() -> None:
    rng = np.random.default_rng(5)
    due = np.cumsum(rng.exponential(1 / 200, 3000))
    answered = rng.random(len(due)) < 0.9
    slices = [
        dataclasses.replace(one, failures={"timeout": lost.completed})
        for one, lost in zip(
            window(due[answered], due[answered] + 0.005),
            window(due[~answered], due[~answered] + 0.005),
            strict=True,
        )
    ]

    low, high = bounds(slices, OPEN)

    assert high < 195
    assert 150 < low < 180 < high


def test_a_trace_is_held_to_what_it_asked_for() -> None:
    """Its own rate is not constant: 100/s, then 300/s, all answered."""
    due = np.concatenate([np.arange(0, 8, 0.01), np.arange(8, 13, 1 / 300)])
    traced = dataclasses.replace(
        OPEN, rate_per_s=None, arrivals=ArrivalProcess(kind=ArrivalKind.TRACE)
    )

    low, high = bounds(window(due, due + 0.002), traced)

    assert 195 < low < 200 < high < 205


@pytest.mark.parametrize("window_s", [1.0, 8.0])
def test_a_closed_loop_is_bounded_by_its_blocks(window_s: float) -> None:
    """One server of 5 ms, random: 200 answers per second whatever waits."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(STUDIES):
        done = np.cumsum(rng.exponential(0.005, 3000))
        low, high = bounds(window(done, done, window_s), CLOSED)
        held += low <= 200 <= high

    assert held / STUDIES >= LEAST


def test_a_server_that_slows_down_by_spells_is_known_less_well() -> None:
    """As many answers, once evenly and once by spells of 2 s."""
    even = np.arange(0, 12.5, 0.005)
    spells = np.concatenate(
        [np.arange(s, s + 2, 0.0035 if s % 4 else 0.0065) for s in range(0, 12, 2)]
    )
    slow = dataclasses.replace(CLOSED, concurrency=400)

    (low, high), found = (
        throughput_bounds(window(done, done), SLICE_S, slow, confidence=0.95, mean_ms=2000.0)
        for done in (even, spells)
    )

    assert high - low < 5
    assert found is None or found[1] - found[0] > 60


@pytest.mark.parametrize("slices", [0, 1, 3])
def test_a_window_of_few_slices_has_no_bounds(slices: int) -> None:
    due = np.arange(0, 12, 0.01)
    few = window(due, due)[:slices]

    assert throughput_bounds(few, SLICE_S, CLOSED, confidence=0.95, mean_ms=1.0) is None


def test_nothing_answered_has_no_bounds() -> None:
    empty = window(np.array([]), np.array([]))

    assert throughput_bounds(empty, SLICE_S, CLOSED, confidence=0.95, mean_ms=None) is None


def test_bounds_of_a_rate_hold_the_truth_and_those_of_a_share_are_narrower() -> None:
    """2 requests fall due a slice (40/s), and 8 of 10 are good: 32/s, as 400 windows see them."""
    generator = np.random.default_rng(5)
    plain, shares = [], []
    for _ in range(400):
        due = generator.poisson(2.0, 400)
        good = generator.binomial(due, 0.8).tolist()
        plain.append(rate_bounds(good, 0.05, confidence=0.95))
        shares.append(
            rate_bounds(good, 0.05, confidence=0.95, due=due.tolist(), nominal_per_s=40.0)
        )
    known, known_shares = ([one for one in found if one] for found in (plain, shares))
    for found in (known, known_shares):  # by chance ten blocks seem to remember each other
        assert len(found) >= 0.93 * 400
        assert sum(low <= 32 <= high for low, high in found) >= 0.93 * len(found)
    widths, share_widths = (
        np.median([high - low for low, high in found]) for found in (known, known_shares)
    )
    assert share_widths < 0.7 * widths


def test_nothing_good_in_a_window_bounds_the_rate_from_above() -> None:
    """None of a Poisson process in 20 s: below 3.69 / 20 s with 97.5% confidence."""
    bounds = rate_bounds([0] * 400, 0.05, confidence=0.95)
    assert bounds == pytest.approx((0.0, 3.6889 / 20), rel=1e-4)
    assert rate_bounds([1, 1, 1], 0.05, confidence=0.95) is None


@pytest.mark.parametrize(
    ("rate_per_s", "window_s", "good"), [(1, 8, 1.0), (1, 8, 0.8), (2, 8, 0.8), (1, 30, 0.8)]
)
def test_blocks_in_which_nothing_falls_due_are_no_bad_ones(
    rate_per_s: int, window_s: int, good: float
) -> None:
    """At so few requests many a block of ten is empty: their share is not 0."""
    generator = np.random.default_rng(6)
    found = []
    for _ in range(STUDIES):
        due = generator.poisson(rate_per_s * 0.05, window_s * 20)
        counts = generator.binomial(due, good).tolist()
        nominal = float(rate_per_s)
        one = rate_bounds(counts, 0.05, confidence=0.95, due=due.tolist(), nominal_per_s=nominal)
        found += [one] if one else []
    assert len(found) >= 0.95 * STUDIES
    truth = rate_per_s * good
    assert sum(low <= truth <= high for low, high in found) >= LEAST * len(found)


def test_a_few_that_are_all_good_do_not_show_that_all_will_be() -> None:
    """Eight of eight: below 63% with a chance of 2.5%."""
    due = [1 if index % 20 == 0 else 0 for index in range(160)]
    found = rate_bounds(due, 0.05, confidence=0.95, due=due, nominal_per_s=1.0)
    assert found == pytest.approx((0.025 ** (1 / 8), 1.125))


def test_conversations_are_not_held_to_the_rate_of_their_first_turns() -> None:
    """20 conversations of three turns a second are 60 requests/s."""
    due = np.arange(0, 13, 1 / 60)
    talks = dataclasses.replace(
        OPEN, rate_per_s=20.0, generation=Generation(StreamApi.CHAT, converses=True)
    )

    low, high = bounds(window(due, due + 0.002), talks)

    assert 58 < low < 60 < high < 62


def test_clients_that_leave_are_not_answered() -> None:
    """Of 200 streams a second three of ten are left: 140/s come to their end."""
    due = np.arange(0, 13, 1 / 140)
    left = dataclasses.replace(TimeSlice(0).streams, left=3)
    slices = [dataclasses.replace(one, streams=left) for one in window(due, due + 0.002)]

    low, high = bounds(slices, OPEN)

    assert 138 < low < 140 < high < 142

"""What questions and answers say of another clock: always the truth, within what is stated."""

from __future__ import annotations

import random

import pytest

from harness.load.generators.clocks import SAME_CLOCK, ClockEstimate, Exchange
from harness.load.generators.messages import LoadEnded, LoadProgress
from harness.types import SparseHistogram

MS = 1_000_000
S = 1000 * MS


def asked(
    estimate: ClockEstimate,
    at_ns: int,
    offset_ns: int,
    there_ns: int = MS,
    back_ns: int = MS,
) -> int:
    """One question at an instant; returns when its answer was read."""
    shown_ns = at_ns + there_ns + offset_ns
    answered_ns = at_ns + there_ns + back_ns
    estimate.add(Exchange(at_ns, shown_ns, answered_ns))
    return answered_ns


@pytest.mark.parametrize("offset_ns", [0, 3 * S, -2 * S, 10**15])
def test_the_offset_lies_within_its_error_however_uneven_the_ways(offset_ns: int) -> None:
    dice = random.Random(5)
    estimate, now_ns = ClockEstimate(), 10**12
    for _ in range(50):
        there_ns, back_ns = dice.randrange(40 * MS), dice.randrange(40 * MS)
        now_ns = asked(estimate, now_ns + S // 2, offset_ns, there_ns, back_ns)
        clock = estimate.at(now_ns)
        assert abs(clock.offset_ns - offset_ns) <= clock.error_ns
    assert clock.error_ns < 40 * MS


def test_the_fastest_exchange_says_most() -> None:
    estimate = ClockEstimate()
    now_ns = asked(estimate, 0, 7, 40 * MS, 40 * MS)
    assert estimate.at(now_ns).error_ns == 40 * MS
    now_ns = asked(estimate, now_ns, 7, MS, MS)
    assert estimate.at(now_ns).error_ns == pytest.approx(MS, abs=2)
    assert estimate.round_trip_ns == 2 * MS


def test_what_is_known_gets_old() -> None:
    estimate = ClockEstimate()
    now_ns = asked(estimate, 0, 0)
    fresh, old = estimate.at(now_ns), estimate.at(now_ns + 100 * S)
    assert old.error_ns - fresh.error_ns == 10 * MS  # 100 ppm


@pytest.mark.parametrize("drift", [50e-6, -90e-6, 400e-6])
def test_a_clock_that_drifts_is_followed(drift: float) -> None:
    """Also one that drifts faster than any should: old answers that contradict are forgotten."""
    estimate, now_ns = ClockEstimate(), 0
    for _ in range(600):
        now_ns = asked(estimate, now_ns + S // 2, int(drift * now_ns))
        clock = estimate.at(now_ns)
        assert abs(clock.offset_ns - int(drift * now_ns)) <= clock.error_ns + 2 * MS


def test_one_machine_has_one_clock_unless_it_shows_otherwise() -> None:
    same, other = ClockEstimate(same_machine=True), ClockEstimate(same_machine=True)
    assert same.at(asked(same, 0, 0)) is SAME_CLOCK
    shifted = other.at(asked(other, 0, 3 * S))
    assert shifted.offset_ns == 3 * S


def test_times_of_a_report_become_ours() -> None:
    estimate = ClockEstimate()
    clock = estimate.at(asked(estimate, 0, 3 * S))
    report = LoadProgress(
        5 * S, 4 * S, (), 0.0, SparseHistogram(), 1, since_ns=3 * S, first_failure_ns=3 * S
    )
    told = clock.told(report)
    assert isinstance(told, LoadProgress)
    assert (told.at_ns, told.complete_before_ns, told.since_ns) == (2 * S, S, 0)
    assert clock.there(told.at_ns) == report.at_ns
    ended = LoadEnded("load", "")
    assert clock.told(ended) is ended

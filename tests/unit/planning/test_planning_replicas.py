"""From a demand to numbers of replicas; demand as people write it."""

import pytest

from harness.errors import UsageError
from harness.planning.capacity.demand import (
    parse_peak,
    parse_rate,
    parse_seconds,
    parse_unavailable,
)
from harness.planning.capacity.headroom import Surroundings, headroom
from harness.types.capacity import Headroom
from harness.types.estimates import Demand


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("2000/s", 2000.0),
        ("2,000 / s", 2000.0),
        ("172,800,000 / day", 2000.0),
        ("2k req/s", 2000.0),
        ("120k/min", 2000.0),
        ("86.4M requests/day", 1000.0),
        ("3.6e6 per hour", 1000.0),
        ("250 rps", 250.0),
    ],
)
def test_a_rate_is_read_with_its_unit(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text",
    [
        *("2000", "fast", "", "-5/s", "0/s", "2000/fortnight", "1e999/s", "5/s/s", "5 m"),
        # A decimal comma, which was read as one between thousands: 15/s
        *("1,5/s", "2,5k/s", "0,500/s", "1,0000/s"),
    ],
)
def test_a_bad_rate_says_how_to_write_one(text):
    with pytest.raises(UsageError) as raised:
        parse_rate(text)
    assert "/s" in raised.value.next_step


def test_peaks_times_and_shares_are_read():
    assert (parse_peak("3x"), parse_peak("1.5"), parse_peak("2\u00d7")) == (3.0, 1.5, 2.0)
    assert (parse_seconds("10min"), parse_seconds("90s"), parse_unavailable("25%")) == (
        600,
        90,
        0.25,
    )


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse_peak, "0.5x"),
        (parse_peak, "triple"),
        (parse_seconds, "10"),
        (parse_seconds, "0s"),
        (parse_unavailable, "0.25"),
        (parse_unavailable, "100%"),
    ],
)
def test_bad_spellings_are_refused_with_a_right_one(read, text):
    with pytest.raises(UsageError) as raised:
        read(text)
    assert raised.value.next_step


def test_headroom_by_what_may_happen():
    """6,000/s at 705 a replica: 8.51, so 9. Of 14 in three zones 5 may go; of 11 a quarter is 2."""
    found = headroom(Demand(2000.0, 3.0), 705.0, Surroundings(3, 0.25, 600.0), 60.0)
    # At the mean, a tenth of the rise comes while others start: 2,400/s, 3.4 replicas.
    assert found == Headroom(9, 10, 14, 11, 4)
    assert found.recommended == 14


def test_headroom_of_a_single_zone_and_of_an_unknown_cold_start():
    """Nothing helps against the loss of the only zone; an unknown start counts as all of it."""
    found = headroom(Demand(100.0, 2.0), 100.0, Surroundings(1, 0.0, 600.0), None)
    assert found == Headroom(2, 3, 2, 2, 2)


def test_a_rate_that_fits_exactly_takes_no_replica_more():
    assert headroom(Demand(0.3), 0.1, Surroundings(), 1.0).peak == 3


@pytest.mark.parametrize("zones", [2, 3, 4, 7])
def test_enough_for_the_peak_are_left_and_one_fewer_would_not_do(zones):
    for needed in range(1, 40):
        count = headroom(Demand(float(needed)), 1.0, Surroundings(zones), 1.0).lost_zone
        assert count - -(-count // zones) >= needed
        assert (count - 1) - -(-(count - 1) // zones) < needed


def test_headroom_of_many_replicas_is_not_counted_one_by_one():
    """Two of 2 x 10^9 are left where an update takes away all but a billionth."""
    found = headroom(Demand(2.0), 1.0, Surroundings(3, 1 - 1e-9, 600.0), 1.0)
    assert found.rolling_update == pytest.approx(1e9, rel=1e-3)
    assert headroom(Demand(3e15), 1.0, Surroundings(), 1.0).rolling_update == 4 * 10**15 - 1

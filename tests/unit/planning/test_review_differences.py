"""The difference of two estimates, and what counts as worse."""

import pytest
import scipy

from harness.errors import UsageError
from harness.metrics import metric_named
from harness.planning.review.differences import (
    WorseningTolerance,
    change_of,
    independent_difference,
    parse_tolerance,
)
from harness.types.losses import Estimate
from harness.types.review import Change


def wilson(hits: int, total: int) -> Estimate:
    found = scipy.stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return Estimate(hits / total, found.low, found.high)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998, table II, method 10: p1 - p2 with Wilson's intervals
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_difference_of_two_shares_is_newcombes(first, second, low, high):
    found = independent_difference(wilson(*second), wilson(*first))
    assert found.value == pytest.approx(first[0] / first[1] - second[0] / second[1])
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_a_bound_that_is_missing_leaves_the_difference_open_on_its_side():
    found = independent_difference(Estimate(10.0, 9.0, 11.0), Estimate(12.0, 11.0, None))
    assert found.high is None
    assert found.low == pytest.approx(2.0 - 2**0.5)
    assert independent_difference(Estimate(1.0), Estimate(2.0)) == Estimate(1.0, None, None)


@pytest.mark.parametrize(
    ("metric", "difference", "tolerated", "expected"),
    [
        ("p95", (2.0, 1.0, 3.0), None, Change.WORSE),
        ("p95", (-2.0, -3.0, -1.0), None, Change.BETTER),
        ("p95", (1.0, -1.0, 3.0), None, Change.SAME),
        ("accuracy", (2.0, 1.0, 3.0), None, Change.BETTER),
        ("accuracy", (-2.0, -3.0, -1.0), None, Change.WORSE),
        # of 100, 5% is 5
        ("p95", (2.0, 1.0, 3.0), 0.05, Change.TOLERATED),
        ("p95", (4.0, 1.0, 7.0), 0.05, Change.UNDECIDED),
        ("p95", (4.0, -1.0, 7.0), 0.05, Change.UNDECIDED),
        ("p95", (7.0, 6.0, 8.0), 0.05, Change.WORSE),
        ("p95", (1.0, -1.0, 3.0), 0.05, Change.SAME),
        ("accuracy", (-7.0, -8.0, -6.0), 0.05, Change.WORSE),
        ("accuracy", (-2.0, -3.0, -1.0), 0.05, Change.TOLERATED),
        # without an upper bound nothing is known to be tolerated
        ("p95", (1.0, -1.0, None), 0.05, Change.UNDECIDED),
        ("p95", (9.0, 8.0, None), 0.05, Change.WORSE),
    ],
)
def test_a_change_follows_from_its_interval(metric, difference, tolerated, expected):
    assert change_of(metric_named(metric), 100.0, Estimate(*difference), tolerated) is expected


def test_tolerances_are_read():
    read = parse_tolerance(["5%", "accuracy=0.5%", "cold_start=50%"])
    assert read == WorseningTolerance(0.05, {"accuracy": 0.005, "cold_start": 0.5})
    assert (read.of("accuracy"), read.of("p95")) == (0.005, 0.05)
    assert WorseningTolerance().of("p95") is None


@pytest.mark.parametrize("text", ["5", "-5%", "nan%", "much", "acuracy=1%", "inf%", ""])
def test_a_tolerance_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match="--tolerate"):
        parse_tolerance([text])

"""The Pareto front: by values against brute force, its probability against known ones."""

import itertools

import numpy as np
import pytest

from harness.planning.review.front import (
    draw,
    draws_of,
    on_front,
    places,
    shared_share_draws,
    surely_dominates,
)
from harness.types import Role
from harness.types.losses import Estimate
from harness.types.review import DecisionCandidate, Figure

METRICS = ("throughput", "p95")


def candidate(name, **figures) -> DecisionCandidate:
    known = tuple(Figure(metric, Estimate(*value), "runs/a") for metric, value in figures.items())
    return DecisionCandidate(name, name, "runs/a", Role.STUDENT, known, (), confirmed=False)


def brute_force(table):
    """By the definition, one number at a time."""
    found = []
    for own in table:
        beaten = False
        for other in table:
            as_good = all(theirs >= mine for theirs, mine in zip(other, own, strict=True))
            better = any(theirs > mine for theirs, mine in zip(other, own, strict=True))
            beaten = beaten or (as_good and better)
        found.append(not beaten)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 9)), int(rng.integers(1, 5)))
    table = rng.integers(0, 4, shape).astype(float)  # few values, so that many are equal
    assert on_front(table).tolist() == brute_force(table.tolist())


def test_what_is_known_of_one_alone_counts_for_neither():
    table = np.array([[1.0, np.nan], [2.0, 5.0], [3.0, 4.0]])
    assert on_front(table).tolist() == [False, True, True]
    assert on_front(np.array([[1.0, np.nan], [np.nan, 1.0]])).tolist() == [True, True]


def test_two_alike_in_two_metrics_lie_on_the_front_three_times_in_four():
    """Each beats the other in both metrics in a quarter of the draws."""
    alike = {"throughput": (100.0, 90.0, 110.0), "p95": (10.0, 9.0, 11.0)}
    both = (candidate("a", **alike), candidate("b", **alike))
    found = places(both, METRICS, draws_of(both, METRICS, seed=1))
    for one in found:
        assert one.probability == pytest.approx(0.75, abs=0.025)  # 3.6 standard errors
        assert one.on_front
        assert one.dominated_by == ()


def test_one_metric_and_three_alike_share_the_front_evenly():
    three = tuple(candidate(name, throughput=(100.0, 90.0, 110.0)) for name in "abc")
    found = places(three, ("throughput",), draws_of(three, ("throughput",), seed=1))
    assert sum(one.probability for one in found) == pytest.approx(1.0)
    for one in found:
        assert one.probability == pytest.approx(1 / 3, abs=0.027)


def test_dominance_is_sure_only_where_intervals_are_apart():
    better = candidate("better", throughput=(100.0, 95.0, 105.0), p95=(10.0, 9.0, 11.0))
    worse = candidate("worse", throughput=(80.0, 75.0, 85.0), p95=(14.0, 13.0, 15.0))
    near = candidate("near", throughput=(90.0, 80.0, 100.0), p95=(14.0, 13.0, 15.0))
    assert surely_dominates(better, worse, METRICS)
    assert not surely_dominates(worse, better, METRICS)
    assert not surely_dominates(better, near, METRICS)  # 95 to 105 and 80 to 100 overlap
    both = (better, worse, near)
    found = {one.candidate: one for one in places(both, METRICS, draws_of(both, METRICS, seed=1))}
    assert found["better"].probability == pytest.approx(1.0, abs=0.01)
    assert found["worse"].dominated_by == ("better",)
    assert found["worse"].probability == 0.0
    assert (found["near"].on_front, found["near"].dominated_by) == (False, ())


def test_equal_exact_values_dominate_nothing():
    one, other = candidate("a", size=(5.0, 5.0, 5.0)), candidate("b", size=(5.0, 5.0, 5.0))
    assert not surely_dominates(one, other, ("size",))
    smaller = candidate("c", size=(4.0, 4.0, 4.0))
    assert surely_dominates(smaller, one, ("size",))


def test_a_candidate_that_little_is_known_of_has_no_place_and_takes_none():
    full = candidate("a", throughput=(10.0, 9.0, 11.0), p95=(5.0, 4.0, 6.0), size=(9.0, 9.0, 9.0))
    small = candidate("b", size=(1.0, 1.0, 1.0))
    names = ("throughput", "p95", "size")
    found = places((full, small), names, draws_of((full, small), names, seed=0))
    assert [one.probability for one in found] == [1.0, None]
    assert found[1].missing == ("throughput", "p95")
    assert found[0].dominated_by == ()


def test_hard_limits_take_nobody_off_the_front():
    """What fails the objective is drawn and placed like all others."""
    kept = candidate("kept", throughput=(10.0, 9.0, 11.0), p95=(5.0, 4.0, 6.0))
    fast = candidate("fails", throughput=(99.0, 98.0, 100.0), p95=(50.0, 49.0, 51.0))
    found = places((kept, fast), METRICS, draws_of((kept, fast), METRICS, seed=0))
    assert [one.on_front for one in found] == [True, True]


def test_draws_have_their_interval_as_the_central_95_percent():
    drawn = draw(Estimate(10.0, 8.0, 13.0), np.random.default_rng(0), 200_000)
    assert np.quantile(drawn, [0.025, 0.5, 0.975]) == pytest.approx([8.0, 10.0, 13.0], abs=0.05)
    assert set(draw(Estimate(3.0), np.random.default_rng(0)).tolist()) == {3.0}


def test_shares_drawn_together_keep_what_two_models_share():
    """b is right wherever a is, and on ten more rows: in no draw is a above b."""
    rows = np.random.default_rng(5)
    teacher = rows.random(1000) < 0.9
    a = teacher & (rows.random(1000) < 0.9)
    b = a.copy()
    b[np.flatnonzero(~a)[:10]] = True
    drawn = shared_share_draws({"a": a, "b": b, "t": teacher}, teacher, seed=1)
    assert (drawn["t"] == 1.0).all()
    assert (drawn["b"] > drawn["a"]).all()
    assert drawn["a"].mean() == pytest.approx(a.sum() / teacher.sum(), abs=0.002)
    # The ratio's own standard error, by the delta method
    residual = a - a.sum() / teacher.sum() * teacher
    assert drawn["a"].std() == pytest.approx(residual.std() * 1000**0.5 / teacher.sum(), rel=0.06)


def test_brute_force_knows_a_textbook_case():
    pairs = list(itertools.product((1, 2), (1, 2)))
    assert brute_force(pairs) == [False, False, False, True]


def test_a_rate_without_an_interval_proves_no_dominance():
    fast, slow = candidate("a", throughput=(100.0,)), candidate("b", throughput=(50.0,))
    assert not surely_dominates(fast, slow, ("throughput",))
    quick, late = candidate("a", cold_start=(1.0,)), candidate("b", cold_start=(2.0,))
    assert surely_dominates(quick, late, ("cold_start",))  # measured once: its value counts

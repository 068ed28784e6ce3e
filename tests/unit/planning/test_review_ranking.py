"""Weights: what is refused, scores by hand, and how far a weight may move."""

import numpy as np
import pytest
from test_review_front import candidate

from harness.errors import UsageError
from harness.planning.review.front import direction, draws_of
from harness.planning.review.ranking import check_weighed, parse_weights, rank


def ranked(candidates, weights, *, reference):
    drawn = draws_of(candidates, list(weights), seed=1)
    tables = {m: direction(m) * drawn[:, :, i] for i, m in enumerate(weights)}
    return rank(candidates, weights, tables, reference=reference, seed=1)


def test_weights_are_read():
    assert parse_weights("accuracy=2, throughput=1") == {"accuracy": 2.0, "throughput": 1.0}
    assert parse_weights("size=0,cold_start=0.5") == {"size": 0.0, "cold_start": 0.5}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accuracy=0,p95=0", "sum to nothing"),
        ("accuracy=-1,p95=2", "0 or more"),
        ("accuracy=nan", "0 or more"),
        ("accuracy=inf", "0 or more"),
        ("acuracy=1", "no metric 'acuracy'"),
        ("accuracy", "METRIC=WEIGHT"),
        ("", "METRIC=WEIGHT"),
        ("accuracy=much", "not a number"),
        ("accuracy=1,accuracy=2", "twice"),
    ],
)
def test_weights_that_mean_nothing_are_refused(text, problem):
    with pytest.raises(UsageError, match=problem):
        parse_weights(text)


def test_a_weight_on_what_nobody_knows_is_refused():
    with pytest.raises(UsageError, match="size has a weight"):
        check_weighed([candidate("a", p95=(5.0, 4.0, 6.0))], {"p95": 1.0, "size": 1.0})


def test_scores_are_weighted_geometric_means_of_advantages():
    teacher = candidate("teacher", throughput=(100.0,), size=(80.0,))
    student = candidate("student", throughput=(400.0,), size=(10.0,))
    found = ranked((teacher, student), {"throughput": 2.0, "size": 1.0}, reference="teacher")
    assert [one.candidate for one in found.ranked] == ["student", "teacher"]
    # (4^2 * 8^1)^(1/3) = 128^(1/3)
    assert found.ranked[0].score == pytest.approx(128 ** (1 / 3))
    assert found.ranked[1].score == pytest.approx(1.0)
    assert found.ranked[0].first_probability == 1.0
    assert found.ranked[0].first_share == 1.0
    assert [(one.low, one.high) for one in found.ranges] == [(0.0, None), (0.0, None)]


def test_the_range_of_a_weight_ends_where_another_takes_over():
    """log2 advantages: a (3, 0), b (0, 2). a leads while 3 w1 > 2 w2."""
    a = candidate("a", throughput=(8.0,), size=(1.0,))
    b = candidate("b", throughput=(1.0,), size=(0.25,))
    found = ranked((a, b), {"throughput": 1.0, "size": 1.0}, reference="a")
    assert found.ranked[0].candidate == "a"
    throughput, size = found.ranges
    assert (throughput.low, throughput.high) == (pytest.approx(2 / 3), None)
    assert throughput.below == "b"
    assert (size.low, size.high, size.above) == (0.0, pytest.approx(1.5), "b")
    # Weights drawn evenly on w1 + w2 = 1: a leads where w1 > 0.4
    assert found.ranked[0].first_share == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("seed", range(10))
def test_ranges_are_those_of_a_scan(seed):
    rng = np.random.default_rng(seed)
    metrics = ("throughput", "p95", "size")
    values = rng.uniform(1, 10, (5, 3))
    some = tuple(
        candidate(f"c{i}", **{m: (v,) for m, v in zip(metrics, row, strict=True)})
        for i, row in enumerate(values)
    )
    weights = dict(zip(metrics, rng.uniform(0.5, 2, 3).tolist(), strict=True))
    found = ranked(some, weights, reference="c0")
    first, gains = found.ranked[0].candidate, np.log(values) * np.array([1, -1, -1])
    for place, one in enumerate(found.ranges):
        for weight in np.linspace(0.001, 10, 300):
            vector = np.array(list(weights.values()))
            vector[place] = weight
            leads = f"c{(gains @ vector).argmax()}" == first
            inside = one.low < weight < (one.high or np.inf)
            assert leads == inside


def test_two_alike_rank_first_half_of_the_time():
    both = tuple(candidate(name, throughput=(100.0, 90.0, 110.0)) for name in "ab")
    found = ranked(both, {"throughput": 1.0}, reference="a")
    assert found.ranked[0].first_probability == pytest.approx(0.5, abs=0.03)


def test_what_has_no_ratio_is_left_out_with_the_reason():
    a = candidate("a", spearman=(0.5,), size=(1.0,))
    bad = candidate("bad", spearman=(-0.1,), size=(1.0,))
    unknown = candidate("unknown", size=(1.0,))
    found = ranked((a, bad, unknown), {"spearman": 1.0}, reference="a")
    assert [one.candidate for one in found.ranked] == ["a"]
    assert [one.partition(":")[0] for one in found.left_out] == ["bad", "unknown"]

"""Bootstrap intervals and McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from harness.quality import statistics
from harness.quality.statistics import mcnemar_p_value, percentile_interval, resampled_sums


def test_resamples_draw_as_many_rows_as_there_are() -> None:
    table = np.column_stack([np.ones(37), np.arange(37.0)])

    sums = resampled_sums(table, seed=3, resamples=400)

    assert sums.shape == (400, 2)
    assert (sums[:, 0] == 37).all()
    assert sums[:, 1].mean() == pytest.approx(table[:, 1].sum(), rel=0.05)
    assert sums[:, 1].std() == pytest.approx(table[:, 1].std() * np.sqrt(37), rel=0.15)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.arange(60.0).reshape(20, 3)
    at_once = resampled_sums(table, seed=1, resamples=100)

    monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", 7 * 20)

    assert np.array_equal(resampled_sums(table, seed=1, resamples=100), at_once)


def test_another_seed_draws_other_rows() -> None:
    table = np.arange(50.0)[:, None]

    first, second = (resampled_sums(table, seed=seed, resamples=50) for seed in (1, 2))

    assert not np.array_equal(first, second)


@pytest.mark.parametrize("rows", [60, 300])
def test_a_95_percent_interval_covers_the_truth(rows: int) -> None:
    """Of 300 samples of a known share, at least 90% of the intervals hold it.

    The percentile bootstrap covers a little less than it says at small n; less than 90% would be
    a mistake, not sampling error (300 draws: 3 standard errors below 95% is 91.2%).
    """
    truth = 0.8
    rng = np.random.default_rng(11)
    covered = 0
    for draw in range(300):
        correct = (rng.random((rows, 1)) < truth).astype(np.float64)
        shares = resampled_sums(correct, seed=draw, resamples=1000)[:, 0] / rows
        low, high = percentile_interval(shares)
        covered += low <= truth <= high
    assert covered / 300 >= 0.90


def test_undefined_resamples_are_left_out_of_the_interval() -> None:
    values = np.concatenate([np.linspace(0, 1, 101), [np.nan, np.inf]])

    assert percentile_interval(values) == pytest.approx((0.025, 0.975))


pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


@given(pairs)
@settings(deadline=None)
def test_mcnemar_is_statsmodels_exact_one(rows: list[tuple[bool, bool]]) -> None:
    first, second = np.array(rows).T
    table = [
        [(first & second).sum(), (first & ~second).sum()],
        [(~first & second).sum(), (~first & ~second).sum()],
    ]
    expected = mcnemar(table, exact=True).pvalue

    assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(second, first) == pytest.approx(mcnemar_p_value(first, second))


def test_one_sided_discord_is_significant() -> None:
    better = np.ones(100, dtype=bool)
    worse = np.arange(100) >= 10

    assert mcnemar_p_value(better, worse) == pytest.approx(2 / 2**10)
